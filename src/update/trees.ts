/** The process trees that an update keeps: found, looked at, frozen into preserved memory, and made to go on. */
import { rmSync } from 'node:fs';
import { TideoverError, UnsupportedError } from '../errors.ts';
import type { ImageStore } from '../image/store.ts';
import { IMAGE_CONTENT } from '../pkram/index.ts';
import { checkpoint } from '../process/checkpoint.ts';
import { isGoing } from '../process/cloning.ts';
import { treeOf } from '../process/freeze.ts';
import { releaseConnections } from '../process/held.ts';
import { infoHere } from '../process/info.ts';
import type { LazyResult } from '../process/lazypages.ts';
import { examine, refuseOneself } from '../process/look.ts';
import { sleep } from '../sys/process.ts';
import { readStat } from '../sys/stat.ts';
import { attemptSystemctl } from '../sys/systemd.ts';
import { type BegunTurn, beginTurn, bring, type Program, type Restored, restoreInTurn } from './later.ts';
import { draftNode, findMemory, openMedium, openNode, type Place } from './medium.ts';
import { howToSave } from './precopy.ts';
import type { KeptTree } from './record.ts';
import { dropNodes, lastRound, type Rounds, removeWithRounds } from './rounds.ts';
import { runWorkload } from './run.ts';
import { copyOf, dropSpilled, spilledTrees } from './spill.ts';
import { isSpent, type Kept, type Turn, takeTurn } from './turn.ts';
import {
  type Checkpoint,
  findWorkload,
  holdWorkload,
  isTreeName,
  nodeOfWorkload,
  openCheckpoint,
  releaseWorkload,
  spillOf,
} from './workload.ts';

/** Nodes of trees that are no workloads: `tree/pid-N`. */
const TREES = 'tree/';
const WORKLOADS = nodeOfWorkload('');

/** A tree by the process id of its root. @throws UnsupportedError where there is none, or tideover itself is in it */
export function treeOfPid(pid: number): KeptTree {
  let starttime: number;
  try {
    starttime = readStat(pid).starttime;
  } catch {
    const what = `process ${pid}`;
    throw new UnsupportedError({ what, why: 'there is none', remedy: 'see ps; it is the root of the tree' });
  }
  refuseOneself(pid);
  const name = `pid-${pid}`;
  return { name, node: `${TREES}${name}`, pid, starttime };
}

/** A workload that runs. @throws UnsupportedError where it does not */
export function treeOfWorkload(name: string): KeptTree {
  const found = findWorkload(name);
  if (found?.pid === undefined) {
    throw new UnsupportedError({
      what: `workload ${name}`,
      why: found === undefined ? 'there is none of that name' : 'it does not run',
      remedy: 'start it with tideover run, or name the process of another one with --keep-pid',
    });
  }
  refuseOneself(found.pid);
  return { name, node: nodeOfWorkload(name), pid: found.pid, starttime: found.state.starttime };
}

/** @throws UnsupportedError where a process would be kept with two trees, or a tree is named twice */
export function demandApart(trees: readonly KeptTree[]): void {
  const names = new Map<number, string>();
  for (const { name, pid } of trees) {
    for (const each of treeOf(pid)) {
      const other = names.get(each);
      if (other !== undefined) {
        const why = other === name ? 'it is named twice' : `${other} has process ${each} too`;
        throw new UnsupportedError({ what: `keeping ${name}`, why, remedy: 'name each tree once, by its root' });
      }
      names.set(each, name);
    }
  }
}

/** Whether the process that was kept is there, and goes on: one that was killed may take seconds to give its memory back. */
export function isAlive({ pid, starttime }: KeptTree): boolean {
  try {
    return readStat(pid).starttime === starttime && !isGoing(pid);
  } catch {
    return false;
  }
}

/** Waits until one has ended that is not alive. @throws UnsupportedError where it does not */
export function untilEnded({ name, pid, starttime }: KeptTree): void {
  const until = performance.now() + PATIENCE;
  for (;;) {
    try {
      const now = readStat(pid);
      if (now.starttime !== starttime || 'ZX'.includes(now.state)) return;
    } catch {
      return;
    }
    if (performance.now() > until) break;
    sleep(10e6);
  }
  const why = `process ${pid} has been killed, and does not end`;
  throw new UnsupportedError({ what: `tree ${name}`, why, remedy: 'wait until it has: tideover update resume' });
}

/** In ms: 1 GiB takes 0.1 s to be taken apart, and ten times that in an emulated machine. */
const PATIENCE = 120_000;

/** @returns bytes of memory, more or less @throws UnsupportedError what of it cannot be saved */
export function examineTree({ pid }: KeptTree): number {
  return examine(howToSave(pid));
}

/**
 * Stops trees, writes each into its node, and kills them when all are written and `lastly` is done. If anything fails, all go on.
 *
 * @param inHaste whether another one stands still already
 */
export function freezeTrees(
  trees: readonly KeptTree[],
  how: {
    /** On which their images build. */
    readonly rounds: Rounds;
    /**
     * Is called when all have been killed.
     * @param ended waits until the tree has ended
     * @param since from when it stood still, in ms since 1970 @param rest bytes of memory that were written meanwhile
     */
    frozen(tree: KeptTree, since: number, rest: number, ended: () => void): void;
    /** Is called when all are written and stand still. */
    lastly(): void;
  },
  inHaste = false,
): void {
  const { rounds, frozen, lastly } = how;
  const [first, ...rest] = trees;
  if (first === undefined) {
    lastly();
    return;
  }
  const draft = draftNode(findMemory(), first.node, infoHere(), lastRound(rounds, first.node));
  const beforeEnd = () => freezeTrees(rest, how, true);
  let ended = () => {};
  const endsMeanwhile = (wait: () => void) => {
    ended = wait;
  };
  const saved = checkpoint({ ...howToSave(first.pid), parent: draft.parent, beforeEnd, endsMeanwhile, inHaste }, draft);
  frozen(first, Date.now() - saved.frozen, saved.memory, ended);
}

/** A tree that does not run and can. */
export interface Waiting {
  readonly name: string;
  readonly where: Checkpoint;
}

/** Trees in preserved memory, and those that are on the disk alone. What a tree has gone on from is removed. */
export function waitingTrees(): Waiting[] {
  return foundTrees().filter((each) => !isSpent(keptOf(each)));
}

function keptOf(waiting: Waiting): Kept {
  const { name, where } = waiting;
  const node = where.kind === 'node' ? where.node : isWorkload(waiting) ? nodeOfWorkload(name) : `${TREES}${name}`;
  return { name, node, place: findMemory() };
}

function foundTrees(): Waiting[] {
  const inMemory = preservedTrees();
  const names = new Set(inMemory.map(({ name }) => name));
  const onDisk = spilledTrees().filter((name) => !names.has(name));
  return [...inMemory, ...onDisk.map((name) => ({ name, where: { kind: 'directory', path: spillOf(name) } as const }))];
}

/** Trees in preserved memory. */
function preservedTrees(): Waiting[] {
  const place = findMemory();
  if (place === undefined) return [];
  using pkram = openMedium(place, { readOnly: true });
  return pkram.nodes().flatMap(({ name: node, content }) => {
    const prefix = [TREES, WORKLOADS].find((each) => node?.startsWith(each));
    if (content !== IMAGE_CONTENT || node === undefined || prefix === undefined) return [];
    return [{ name: node.slice(prefix.length), where: { kind: 'node', node } as const }];
  });
}

/** To be closed with `using`. */
export function openTree({ where }: Waiting): ImageStore & Disposable {
  const image = openCheckpoint(findMemory(), where);
  return { ...image, [Symbol.dispose]: () => image.close() };
}

/** Opens the copy of a tree in its node. */
export function openPreserved({ node }: KeptTree): ImageStore & Disposable {
  const image = openNode(findMemory(), node);
  return { ...image, [Symbol.dispose]: () => image.close() };
}

/**
 * Makes a tree go on. Its checkpoint goes then, in memory and on the disk. That of a service is restored by systemd.
 *
 * @param program has memory of a large one come later, and its checkpoint go when that is there
 * @param begun its turn, if it has been taken
 * @returns process id of its root; undefined where systemd has it
 * @throws what restore() does, and UnsupportedError where systemd cannot start its unit
 */
export function goOn(waiting: Waiting, program?: Program, begun?: BegunTurn): number | undefined {
  const { name } = waiting;
  const unit = begun === undefined ? unitOf(waiting) : undefined;
  if (unit !== undefined) {
    releaseWorkload(name);
    startUnit(unit);
    return undefined;
  }
  using turn = begun ?? takeTurn(keptOf(waiting));
  releaseWorkload(name);
  const copy = copyOf(name);
  const { pid, later } = isWorkload(waiting) ? startWorkload(name, turn, program) : restored(waiting, turn, program);
  if (later) return pid;
  drop([waiting]);
  if (copy !== undefined) rmSync(copy, { recursive: true, force: true });
  return pid;
}

/** Takes the turn of a tree that is not restored by systemd, and starts what it will need. To be closed with `using`. */
export function beginGoingOn(waiting: Waiting, program: Program): BegunTurn {
  const turn = takeTurn(keptOf(waiting));
  try {
    using image = openTree(waiting);
    return beginTurn(image, turn, waiting.name, waiting.where, program);
  } catch (error) {
    turn[Symbol.dispose]();
    throw error;
  }
}

/** Brings the memory of a tree that goes on; see later.ts. @param place of preserved memory @returns undefined where it did not */
export function bringMemory({ name, where }: Waiting, place: Place | undefined): LazyResult | undefined {
  return bring(place, where, () => {
    if (where.kind === 'node') {
      using pkram = openMedium(place, {});
      removeWithRounds(pkram, where.node);
    }
    dropSpilled(name);
  });
}

const warn = (text: string) => process.emitWarning(text);

/** As `tideover run NAME` does. */
function startWorkload(name: string, turn: Turn, program: Program | undefined): Restored {
  const of = {
    name,
    command: [],
    log: undefined,
    terminal: false,
    startAnyway: false,
    notify: false,
    sibling: false,
    unit: undefined,
  };
  return runWorkload({ ...of, place: findMemory(), turn, program, warn });
}

function restored(waiting: Waiting, turn: Turn, program: Program | undefined): Restored {
  using image = openTree(waiting);
  return restoreInTurn(
    image,
    { stopped: false, shellJob: false },
    { ...waiting, place: findMemory(), turn, program, warn },
  );
}

/** Unit of systemd that restores a tree by itself when it starts; undefined where none does. */
export function unitOf(waiting: Waiting): string | undefined {
  return isWorkload(waiting) ? findWorkload(waiting.name)?.state.unit : undefined;
}

function isWorkload({ name, where }: Waiting): boolean {
  return where.kind === 'node' ? where.node === nodeOfWorkload(name) : !isTreeName(name);
}

function startUnit(unit: string): void {
  attemptSystemctl('reset-failed', unit);
  const why = attemptSystemctl('start', unit);
  if (why === undefined) return;
  const remedy = `journalctl -u ${unit}`;
  throw new UnsupportedError({ what: `service ${unit}`, why: `it did not start: ${why}`, remedy });
}

/** Keeps `tideover run` from restoring workloads before it is time. */
export function holdWorkloads(trees: readonly KeptTree[]): void {
  for (const { name, node } of trees) if (node === nodeOfWorkload(name)) holdWorkload(name);
}

export function releaseWorkloads(trees: readonly Pick<KeptTree, 'name' | 'node'>[]): void {
  for (const { name, node } of trees) if (node === nodeOfWorkload(name)) releaseWorkload(name);
}

/** Lets the packets of a tree through that is given up. */
export function letConnectionsGo(tree: Waiting): void {
  try {
    using image = openTree(tree);
    releaseConnections(image);
  } catch (error) {
    // Nobody can say any more which they were, or this kernel cannot hold any.
    if (!(error instanceof TideoverError)) throw error;
  }
}

/** Removes checkpoints, where they are there. */
export function drop(trees: readonly { readonly name: string; readonly where: Checkpoint }[]): void {
  dropNodes(trees.flatMap(({ where }) => (where.kind === 'node' ? [where.node] : [])));
  for (const { name } of trees) dropSpilled(name);
}
