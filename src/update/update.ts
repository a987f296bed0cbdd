/**
 * Changes the kernel and keeps process trees.
 *
 *     this kernel   plan -> memory -> load -> precopy -> freeze (all trees, one in the other)  -> jump
 *                                             they run   the rest written, kernel settled,
 *                                                        spilled, recorded; then they are ended
 *     next kernel   hold packets -> network -> restore each tree -> give memory back
 *
 * Each step knows how it is undone. Until the last tree is written all are only stopped, and go on by themselves; those that were
 * ended are restored here.
 */
import { freemem } from 'node:os';
import { join } from 'node:path';
import { PartialError, UnsupportedError } from '../errors.ts';
import { start } from '../kexec/load.ts';
import { bootId, readMachine } from '../sys/machine.ts';
import { sync } from '../sys/mount.ts';
import { runsSystemd } from '../sys/systemd.ts';
import { takeAlone } from './alone.ts';
import { cautionsOf } from './cautions.ts';
import { checkDrivers } from './drivers.ts';
import { disarmGuard, dropGuard, prepareGuard, whyNoGuard } from './guard.ts';
import { findMemory, openMedium, returnMemory, returnUnused } from './medium.ts';
import { type KernelRequest, NextKernel, unloadNext } from './nextkernel.ts';
import { checkStop, othersRunning, startServices, stopServices } from './others.ts';
import { precopy, roomForRounds, stopRounds, whyNoRounds } from './precopy.ts';
import {
  concludeRecord,
  type KeptTree,
  readRecord,
  type UpdateRecord,
  type UpdateState,
  writeRecord,
} from './record.ts';
import { dropNodes, dropStrayRounds, type Rounds } from './rounds.ts';
import { dropSpilled, revealSpilled, spill, spillFolder } from './spill.ts';
import { sealInPlace } from './standstill.ts';
import { unseal } from './state.ts';
import { perform, type Step, UndoneError } from './steps.ts';
import {
  demandApart,
  drop,
  examineTree,
  freezeTrees,
  goOn,
  holdWorkloads,
  isAlive,
  letConnectionsGo,
  openPreserved,
  releaseWorkloads,
  waitingTrees,
} from './trees.ts';
import { whyNoUnits } from './units.ts';
import { saveVolatile, sizeOfFiles, volatileFiles } from './volatile.ts';
import { checkpointName, nodeOfWorkload } from './workload.ts';

export interface UpdateRequest extends KernelRequest {
  readonly trees: readonly KeptTree[];
  /** Units of systemd that are stopped first, and started again if it fails. */
  readonly stop?: readonly string[];
  /** See spillFolder(). */
  readonly spill?: string | undefined;
}

export interface Plan {
  readonly next: NextKernel;
  readonly record: UpdateRecord;
  /** Bytes of memory of all trees, more or less. */
  readonly memory: number;
  /** What is good to know beforehand. */
  readonly warnings: readonly string[];
  /** Whether a panic of the next kernel before everything is restored leads back to this one. */
  readonly guarded: boolean;
}

/** What update() needs of the program around it. */
export interface Surroundings {
  /** Called as each step begins. */
  step(name: string): void;
  /** Has file systems stand still and whole on their disks until it is disposed of. */
  standStill(): Disposable;
}

/**
 * Looks whether everything can be done, and changes nothing.
 *
 * @throws UnsupportedError, FormatError what is in the way
 */
export function planUpdate({ trees, stop = [], spill: wanted, ...request }: UpdateRequest): Plan {
  if (trees.length === 0) {
    const what = 'an update that keeps nothing';
    throw new UnsupportedError({
      what,
      why: 'no tree is named',
      remedy: 'name what is to be kept: --keep, --keep-pid',
    });
  }
  demandApart(trees);
  demandNoneInterrupted();
  const [waiting] = waitingTrees();
  if (waiting !== undefined) {
    throw new UnsupportedError({
      what: `the checkpoint of ${waiting.name}`,
      why: 'it waits to be restored',
      remedy: 'tideover update resume, or give it up: tideover update abort --drop',
    });
  }
  const noUnits = runsSystemd() ? whyNoUnits() : undefined;
  if (noUnits !== undefined) {
    const why = `the next system would not restore anything: ${noUnits}`;
    throw new UnsupportedError({ what: 'update', why, remedy: 'install them: tideover update setup' });
  }
  const names = trees.map(({ name }) => name);
  checkStop(stop, names);
  const next = new NextKernel(request);
  next.check();
  const drivers = checkDrivers(next);
  const measured = trees.map((tree) => ({ ...tree, memory: examineTree(tree) }));
  const files = sizeOfFiles(trees.flatMap(({ pid }) => volatileFiles(pid)));
  const memory = measured.reduce((sum, { memory }) => sum + memory, files);
  demandRoom(memory);
  const folder = spillFolder(wanted, needs(memory));
  const from = readMachine().kernel.release;
  const noGuard = whyNoGuard(next.commandLine);
  const unguarded =
    noGuard === undefined ? [] : [`if the next kernel panics, nothing leads back to this one: ${noGuard}`];
  const plan = { next, memory, guarded: noGuard === undefined };
  const stopped = stop.length === 0 ? {} : { stopped: stop };
  const common = {
    state: 'planned',
    bootId: '',
    from,
    to: next.release,
    trees: measured,
    steps: [],
    ...stopped,
  } as const;
  const slow = whyNoRounds();
  const others = othersRunning(names, stop);
  const cut = 'not kept, and ended as by a power cut, with file systems that are whole';
  const ended = others.length === 0 ? [] : [`${cut}: ${others.join(', ')}; what minds that is stopped first by --stop`];
  const cautions = trees.flatMap(cautionsOf);
  const warnings = [...drivers, ...cautions, ...(slow === undefined ? [] : [slow]), ...ended, ...unguarded];
  if (folder !== undefined) return { ...plan, record: { ...common, spill: folder }, warnings };
  const lost = 'there is no copy on a disk: if the next kernel dies before it can do anything, the trees are lost';
  return { ...plan, record: common, warnings: [lost, ...warnings] };
}

/** @throws UnsupportedError where the trees do not fit into memory once more */
function demandRoom(memory: number): void {
  const [needed, free] = [needs(memory), freemem()];
  if (needed <= free) return;
  const mib = (bytes: number) => `${Math.ceil(bytes / (1 << 20))} MiB`;
  throw new UnsupportedError({
    what: 'room for the trees in preserved memory',
    why: `${mib(needed)} are needed, and ${mib(free)} are free`,
    remedy: 'end something, or keep less',
  });
}

/** Bytes of preserved memory, or of a disk, for trees with so much. */
function needs(memory: number): number {
  return memory + memory / 16 + roomForRounds(memory) + ROOM;
}

/** Does what was planned, and does not return. @throws UndoneError's failure where it was undone */
export async function update(plan: Plan, { step, standStill }: Surroundings): Promise<never> {
  using _ = await takeAlone('changing the kernel');
  demandNoneInterrupted();
  const { next, memory } = plan;
  let { record } = plan;
  const write = (state: UpdateState) => {
    record = writeRecord({ ...record, state });
  };
  const begin = (name: string) => {
    record = { ...record, steps: [...record.steps, { name, at: Date.now() }] };
    step(name);
  };
  const hadMemory = findMemory() !== undefined;
  let still: Disposable | undefined;
  let rounds: Rounds = new Map();
  const steps: Step[] = [
    {
      name: 'memory',
      run() {
        openMedium(findMemory(), { create: true, size: needs(memory) }).close();
        write('planned');
      },
      async undo() {
        unseal();
        // What could not be put back stays for a person to look at.
        if (hadMemory || waitingTrees().length > 0) return undefined;
        await returnMemory(findMemory(), true);
        return 'preserved memory was given back';
      },
    },
    {
      name: 'load',
      run() {
        if (plan.guarded) prepareGuard();
        else dropGuard();
        next.load();
        write('loaded');
      },
      undo() {
        unloadNext();
        dropGuard();
        return 'the next kernel was unloaded';
      },
    },
    ...(record.stopped === undefined
      ? []
      : [
          {
            name: 'stop',
            run: () => stopServices(plan.record.stopped!),
            undo: () => startServices(plan.record.stopped!),
          },
        ]),
    {
      name: 'precopy',
      run() {
        rounds = precopy(record.trees, record.spill);
        // Now, so that as little as can be is left to do while they stand still.
        next.settle();
        sync({});
      },
      undo() {
        dropCopies(record);
        return undefined;
      },
    },
    {
      name: 'freeze',
      run() {
        holdWorkloads(record.trees);
        freezeTrees(record.trees, {
          rounds,
          frozen(tree, frozen, rest) {
            const trees = record.trees.map((each) => (each.node === tree.node ? { ...each, frozen, rest } : each));
            record = { ...record, trees };
          },
          lastly() {
            if (record.spill !== undefined) begin('spill');
            for (const tree of record.trees) {
              if (record.spill !== undefined) {
                using image = openPreserved(tree);
                spill(image, record.spill, tree.name, rounds.get(tree.node));
              }
              saveVolatile(tree.pid, tree.node, record.spill && join(record.spill, tree.name));
            }
            begin('settle');
            write('frozen');
            next.settle();
          },
        });
      },
      undo: () => putBack(record),
    },
    {
      name: 'jump',
      run() {
        if (record.spill !== undefined) for (const { name } of record.trees) revealSpilled(record.spill, name);
        write('jumping');
        next.settle();
        sync({});
        still = standStill();
        sealInPlace(false);
        start();
      },
      undo() {
        still?.[Symbol.dispose]();
        unseal();
        return undefined;
      },
    },
  ];
  try {
    await perform(steps, ({ name }) => begin(name));
  } catch (error) {
    if (!(error instanceof UndoneError)) throw error;
    const { undone, left } = error;
    concludeRecord({
      ...record,
      state: 'failed',
      error: `${error.step}: ${error.message}`,
      undone: [...undone, ...left],
    });
    throw error.failure;
  }
  throw new Error('the next kernel was started and did not come');
}

/** Beside the memory of trees: what else an image has, and the record, in bytes. */
const ROOM = 32 << 20;

/**
 * Has trees go on that were stopped: those that were ended are restored here.
 *
 * @returns which these are
 * @throws Error naming those that could not be, which stay where they are; all others go on
 */
function putBack(record: UpdateRecord): string | undefined {
  const { trees } = record;
  releaseWorkloads(trees);
  const ended = trees.filter((tree) => !isAlive(tree));
  const restored: string[] = [];
  const faults: string[] = [];
  for (const each of waitingTrees().filter(({ name }) => ended.some((tree) => tree.name === name))) {
    try {
      goOn(each);
      restored.push(each.name);
    } catch (error) {
      faults.push(`${each.name} waits in ${checkpointName(each.where)}: ${(error as Error).message}`);
    }
  }
  dropCopies(record);
  if (faults.length > 0) throw new Error(faults.join('; '));
  return restored.length === 0 ? undefined : `restored here: ${restored.join(', ')}`;
}

/** Removes what was written of trees that go on here, or have ended. */
function dropCopies({ trees, spill: folder }: UpdateRecord): void {
  const running = trees.filter(isAlive);
  stopRounds(running.map(({ pid }) => pid));
  dropNodes(running.map(({ node }) => node));
  const waiting = new Set(waitingTrees().map(({ name }) => name));
  for (const { name } of folder === undefined ? [] : trees) if (!waiting.has(name)) dropSpilled(name, folder);
  dropStrayRounds();
}

/**
 * Takes back what an update left that was interrupted in this kernel.
 *
 * @param giveUp drop trees that wait, in memory and on the disk; they are lost
 * @returns what was undone
 * @throws PartialError naming what could not be put back, and stays where it is; UnsupportedError where it is of an earlier kernel: its trees are to be resumed, or given up
 */
export async function abort(giveUp: boolean): Promise<string[]> {
  using _ = await takeAlone('taking the update back');
  const record = readRecord();
  const interrupted = isInterrupted(record) ? record : undefined;
  const isOpen = record !== undefined && !CONCLUDED.includes(record.state);
  if (!giveUp && isOpen && interrupted === undefined) {
    throw new UnsupportedError({
      what: 'taking the update back',
      why: `it has started this kernel: ${record.from} -> ${record.to}`,
      remedy: 'tideover update resume; or give up what waits: --drop',
    });
  }
  if (!giveUp && interrupted === undefined) return [];
  const undone: string[] = [];
  if (interrupted !== undefined) {
    unseal();
    unloadNext();
    dropGuard();
    undone.push('the next kernel was unloaded');
  }
  if (giveUp) undone.push(...giveUpTrees());
  // What cannot be put back keeps nothing else from it.
  const left: string[] = [];
  if (interrupted !== undefined) {
    for (const each of [() => putBack(interrupted), () => startServices(interrupted.stopped ?? [])]) {
      try {
        const done = each();
        if (done !== undefined) undone.push(done);
      } catch (error) {
        left.push((error as Error).message);
      }
    }
  }
  if (isOpen) {
    const error = giveUp ? 'it was given up' : 'it was interrupted';
    concludeRecord({ ...record, state: 'failed', error, undone: [...undone, ...left] });
  }
  dropStrayRounds();
  const { why } = await returnUnused(findMemory());
  if (left.length > 0) throw new PartialError('taking the update back', left.join('; '));
  return why === undefined ? undone : [...undone, why];
}

/** @returns whose checkpoints were removed */
function giveUpTrees(): string[] {
  const waiting = waitingTrees();
  for (const tree of waiting) letConnectionsGo(tree);
  drop(waiting);
  releaseWorkloads(waiting.map(({ name }) => ({ name, node: nodeOfWorkload(name) })));
  disarmGuard();
  return waiting.map(({ name }) => `${name} was given up`);
}

/**
 * To be asked before another way into the next kernel is taken: what an interrupted update wrote of its trees is of a moment from which they
 * have gone on, and they would do so once more.
 *
 * @throws UnsupportedError
 */
export function demandNoneInterrupted(): void {
  if (!isInterrupted(readRecord())) return;
  throw new UnsupportedError({
    what: 'starting the next kernel',
    why: 'an update is under way, or was interrupted, and what it has written of its trees would go on in the next kernel',
    remedy: 'take it back first: tideover update abort',
  });
}

/** Whether an update has begun in this kernel and neither ended nor left it. */
function isInterrupted(record: UpdateRecord | undefined): boolean {
  return record !== undefined && record.bootId === bootId() && BEFORE_JUMP.includes(record.state);
}

const BEFORE_JUMP: readonly UpdateState[] = ['planned', 'loaded', 'frozen', 'jumping'];
const CONCLUDED: readonly UpdateState[] = ['done', 'back', 'failed'];
