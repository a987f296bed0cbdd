/** What the next kernel does: packets held back before the network is up, then the trees, then the memory. */

import { uptime } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnsupportedError } from '../errors.ts';
import { holdConnections } from '../process/held.ts';
import { bootId } from '../sys/machine.ts';
import { isStarting } from '../sys/systemd.ts';
import { untilAddressed } from './addresses.ts';
import { takeAlone } from './alone.ts';
import { armGuard, cameBack, disarmGuard } from './guard.ts';
import type { BegunTurn, Program } from './later.ts';
import { findMemory, keepMapped, returnUnused } from './medium.ts';
import { concludeRecord, dropRecord, readRecord, type UpdateRecord, type UpdateState, writeRecord } from './record.ts';
import { dropStrayRounds } from './rounds.ts';
import { beginGoingOn, goOn, openTree, unitOf, type Waiting, waitingTrees } from './trees.ts';
import { isBeingBrought, untilDone, wentOnAs, wentOnBefore, whyNotBrought } from './turn.ts';
import { findWorkload } from './workload.ts';

/**
 * Arms the way back, and holds back the packets of all connections of preserved trees. To be called before the network is up.
 *
 * @param warn told why there is no way back from this kernel, and whose packets cannot be held
 * @returns how many trees there are
 */
export function holdAll(warn: (text: string) => void): number {
  return hold(warn).length;
}

/** @returns the trees that wait */
function hold(warn: (text: string) => void): Waiting[] {
  keepMapped();
  guard(warn);
  const trees = waitingTrees();
  for (const tree of trees) {
    try {
      using image = openTree(tree);
      holdConnections(image);
    } catch (error) {
      // Those of the others are to be held all the same.
      warn(`the connections of ${tree.name} are not held: ${(error as Error).message}`);
    }
  }
  return trees;
}

/**
 * Both in one process, as each start of this program takes its time while all stand still: packets are held back, and when it is time
 * the trees go on.
 *
 * @param held is called when packets are held back @param time resolves when trees may go on, as far as others can tell
 * @param done is told what became of them as long as nobody else can be at it: whoever comes next is to know
 * @returns undefined where nothing waits
 */
export async function holdAndResume(
  options: ResumeOptions,
  { held, time, done }: { held(): void; time(): Promise<void>; done(result: Resumed): void },
): Promise<Resumed | undefined> {
  using _ = await takeAlone('resuming');
  const trees = hold(options.warn);
  held();
  if (trees.length === 0) return undefined;
  using begun = beginAll(trees, options);
  await time();
  const result = await resumeAlone({ ...options, begun: begun.turns });
  done(result);
  return result;
}

/** Turns of trees are taken, and what brings their memory starts, while the rest of the system does. */
function beginAll(trees: readonly Waiting[], { program, warn }: ResumeOptions): Disposable & { turns: Turns } {
  const turns = new Map<string, BegunTurn>();
  for (const tree of trees) {
    if (program === undefined || unitOf(tree) !== undefined) continue;
    try {
      turns.set(tree.name, beginGoingOn(tree, program));
    } catch (error) {
      // When it is to go on it is tried anew, and said then if it is for good.
      warn(`${tree.name}: ${(error as Error).message}`);
    }
  }
  return {
    turns,
    [Symbol.dispose]() {
      for (const turn of turns.values()) turn[Symbol.dispose]();
    },
  };
}

/** By the names of their trees; who uses one takes it out. */
type Turns = Map<string, BegunTurn>;

/** What became of the trees. */
export interface Resumed {
  readonly record: UpdateRecord | undefined;
  readonly restored: readonly { readonly name: string; readonly pid: number }[];
  readonly failed: readonly { readonly name: string; readonly error: string }[];
  /** Bytes of preserved memory that are ordinary memory now. */
  readonly returned: number;
}

export interface ResumeOptions {
  /** How long to wait for the addresses of connections, and for services, in ms. */
  readonly patience: number;
  /** Brings memory of large trees when they go on already; else all of it is there before. */
  readonly program: Program | undefined;
  /** Told why there is no way back from this kernel, and why memory is not given back. */
  warn(text: string): void;
}

/**
 * Makes all trees go on that wait. One that cannot stays where it is, with its packets held back, and the others go on. Services
 * are restored by systemd as it starts them; they are waited for, and so is memory that comes later.
 */
export async function resume(options: ResumeOptions): Promise<Resumed> {
  using _ = await takeAlone('resuming');
  keepMapped();
  guard(options.warn);
  return await resumeAlone({ ...options, begun: new Map() });
}

async function resumeAlone(options: ResumeOptions & { readonly begun: Turns }): Promise<Resumed> {
  const { warn } = options;
  const waiting = new Map(waitingTrees().map((tree) => [tree.name, tree]));
  let record = readRecord();
  // Services may have been restored by their start already; and where there is neither memory nor a copy, trees are lost.
  const open = record !== undefined && UNFINISHED.includes(record.state) ? record.trees : [];
  const names = new Set([
    ...waiting.keys(),
    ...open.flatMap((tree) => (tree.restored === undefined ? [tree.name] : [])),
  ]);
  if (names.size === 0 && open.length === 0) return { record, restored: [], failed: [], returned: 0 };
  const byHand = record?.state === 'incomplete' && record.bootId === bootId();
  if (record !== undefined) record = begun(record);
  const restored: Resumed['restored'][number][] = [];
  const failed: Resumed['failed'][number][] = [];
  // What systemd restores comes last: it does so meanwhile.
  const isService = (name: string) => findWorkload(name)?.state.unit !== undefined;
  for (const name of [...names].sort((a, b) => Number(isService(a)) - Number(isService(b)))) {
    try {
      const why = byHand ? undefined : wentOnBefore(name);
      if (why !== undefined) throw new UnsupportedError({ what: `tree ${name}`, why, remedy: GO_BACK });
      const pid = await goOnInTurn(name, waiting.get(name), options);
      restored.push({ name, pid });
      record = noted(record, name, { restored: Date.now(), restoredIn: bootId(), newPid: pid });
    } catch (error) {
      failed.push({ name, error: (error as Error).message });
      record = noted(record, name, { error: (error as Error).message });
    }
  }
  if (record !== undefined && restored.some(({ name }) => isBeingBrought(name))) record = writeRecord(record);
  // Until their checkpoints are gone, or stay.
  for (const { name } of restored) untilDone(name);
  const waits = new Set(waitingTrees().map(({ name }) => name));
  for (const { name } of restored.filter((each) => waits.has(each.name))) {
    const why = whyNotBrought(name) ?? 'who brought it ended';
    const error = `it had gone on, and was killed as its memory could not be brought: ${why}; ${GO_BACK}`;
    failed.push({ name, error });
    record = noted(record, name, { error });
  }
  if (failed.length > 0) {
    if (record !== undefined) record = writeRecord({ ...record, state: 'incomplete' });
    return { record, restored, failed, returned: 0 };
  }
  disarmGuard();
  dropRecord();
  dropStrayRounds();
  const { returned, why } = await returnUnused(findMemory());
  if (why !== undefined) warn(why);
  if (record !== undefined) {
    const state = record.back === undefined ? 'done' : 'back';
    record = concludeRecord({ ...record, state, steps: [...record.steps, { name: 'done', at: Date.now() }] });
  }
  return { record, restored, failed, returned };
}

function guard(warn: (text: string) => void): void {
  const why = armGuard();
  if (why !== undefined) warn(`if this kernel panics now, what waits is lost: ${why}`);
}

const GO_BACK = 'tideover update resume, by hand, goes back to where it was before that';

const UNFINISHED: readonly UpdateState[] = ['jumping', 'restoring', 'incomplete'];

/** @throws UnsupportedError where the trees may still run: their update is under way in this kernel, or was interrupted */
function begun(record: UpdateRecord): UpdateRecord {
  const { state, steps } = record;
  if (record.bootId === bootId() && !['restoring', 'incomplete', 'failed'].includes(state)) {
    throw new UnsupportedError({
      what: 'resuming',
      why: 'the next kernel has not been started',
      remedy: 'take the update back: tideover update abort',
    });
  }
  const kernel = { name: 'kernel', at: Date.now() - 1000 * uptime() };
  const more = [...(state === 'jumping' ? [kernel] : []), { name: 'restore', at: Date.now() }];
  return writeRecord(cameBack({ ...record, state: 'restoring', steps: [...steps, ...more] }));
}

async function goOnInTurn(
  name: string,
  tree: Waiting | undefined,
  { patience, program, begun }: ResumeOptions & { readonly begun: Turns },
): Promise<number> {
  if (tree !== undefined && unitOf(tree) === undefined) {
    await untilAddressed(findMemory(), tree.where, patience);
    const turn = begun.get(name);
    begun.delete(name);
    return goOn(tree, program, turn)!;
  }
  if (tree !== undefined || findWorkload(name)?.state.unit !== undefined) return untilStarted(name, patience);
  // By `tideover run`, or by a resume that was killed before it could write so.
  const pid = wentOnAs(name);
  if (pid !== undefined) return pid;
  throw new UnsupportedError({ what: `tree ${name}`, why: LOST, remedy: 'start it anew' });
}

export const LOST = 'it is lost: the memory that it was in is gone, and there is no copy on a disk';

/**
 * Names of trees that an update took out of its kernel, and that are nowhere in this one.
 *
 * @param isHere whether one waits, or has gone on
 */
export function lostTrees(record: UpdateRecord, isHere: (name: string) => boolean): string[] {
  const { state, trees } = record;
  if (!UNFINISHED.includes(state) || (state === 'jumping' && record.bootId === bootId())) return [];
  return trees.filter(({ name, restored }) => restored === undefined && !isHere(name)).map(({ name }) => name);
}

/**
 * Waits until a service has been restored by its own start, also longer than that while systemd starts it. Preserved memory is left
 * alone meanwhile: the start needs it for itself.
 *
 * @returns its process id
 */
async function untilStarted(name: string, patience: number): Promise<number> {
  const until = performance.now() + patience;
  const unit = findWorkload(name)?.state.unit ?? name;
  for (;;) {
    const pid = findWorkload(name)?.pid;
    if (pid !== undefined && wentOnAs(name) === pid) return pid;
    if (performance.now() > until && !isStarting(unit)) break;
    await sleep(100);
  }
  const why = 'it has not been restored by its start';
  throw new UnsupportedError({ what: `service ${unit}`, why, remedy: `journalctl -u ${unit}` });
}

function noted(record: UpdateRecord | undefined, name: string, what: Partial<UpdateRecord['trees'][number]>) {
  if (record === undefined) return undefined;
  // What is noted of one takes the place of why it failed before.
  const of = ({ error: _, ...tree }: UpdateRecord['trees'][number]) => ({ ...tree, ...what });
  return { ...record, trees: record.trees.map((each) => (each.name === name ? of(each) : each)) };
}
