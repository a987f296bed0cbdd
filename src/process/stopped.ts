/**
 * What is done while processes stand still, until they are let go, killed or left stopped.
 *
 *     stop -> ask from outside (/proc, kcmp) -> ask from within -> write -> let go, kill or leave stopped
 */
import { SIGKILL, SIGSTOP } from '../abi/signal.ts';
import { FormatError, PartialError } from '../errors.ts';
import type { ImageDraft, ImageStore } from '../image/store.ts';
import { kill } from '../sys/process.ts';
import { Region } from '../sys/region.ts';
import type { AllOrNone } from './allornone.ts';
import { cgroupsOf } from './cgroups.ts';
import { clocksOf, systemTime } from './clocks.ts';
import { checkPidfds } from './files/pidfd.ts';
import { FileTables } from './files/table.ts';
import type { Foresight } from './foresight.ts';
import { type Frozen, freezeTree, treeOf } from './freeze.ts';
import type { Freezer } from './freezer.ts';
import { GroupsSeen, saveGroups } from './groupsettings.ts';
import { endHere, Haste, LITTLE } from './haste.ts';
import { saveIpc } from './ipc.ts';
import { type HeldMemory, type Memory, ProcessMemory } from './memory.ts';
import { Namespaces } from './namespaces.ts';
import { saveNetwork } from './network.ts';
import { type SaveOptions, Saving } from './saving.ts';
import { Snapshot } from './snapshot.ts';
import { finishSysv } from './sysv.ts';
import {
  enterAll,
  Guest,
  isVdso,
  leaveAll,
  type SavedTask,
  SharedObjects,
  saveOutside,
  saveTask,
  saveZombie,
} from './task.ts';
import { neverEnds, reapEach } from './tracee.ts';
import { saveNames } from './uts.ts';
import { lookAtWaits } from './waits.ts';
import { memoryOf, writeImage, writeStatistics } from './write.ts';

export interface CheckpointOptions extends SaveOptions {
  /** Root of the tree. */
  readonly pid: number;
  /** What becomes of the processes: `kill`, go on (`run`), or stay stopped as by SIGSTOP (`stop`). */
  readonly outcome: 'kill' | 'run' | 'stop';
  /** For each thread to stop, in milliseconds. */
  readonly timeout: number;
  /** Called when the image is complete and the processes are still stopped; if it throws, they go on. */
  readonly beforeEnd?: (() => void) | undefined;
  /**
   * With `lazyPages`: hands out what is not in the image, which is complete then. The processes are still stopped; they end when it
   * returns, and go on if it throws. `read` gives memory of one by its id in the image, valid until the next call.
   */
  readonly serve?: ((read: (id: number, address: number, length: number) => Uint8Array) => void) | undefined;
  /** The image, of a pre-dump as a rule, on which this one builds: pages that have not been written since are not saved. */
  readonly parent?: ImageStore | undefined;
  /** A later image may build on this one. */
  readonly trackMemory?: boolean | undefined;
  /**
   * Of a tree that is killed: it is not waited for, as the kernel takes 0.1 s to take a GiB apart.
   *
   * @param ended waits until all have ended
   */
  readonly endsMeanwhile?: ((ended: () => void) => void) | undefined;
  /** Others stand still and wait for this one, and what saves has just been used: it is not rehearsed. */
  readonly inHaste?: boolean | undefined;
  /** Folder of a control group that stops all of the tree at once; one that the tree has for itself does so without that. */
  readonly freezeGroup?: string | undefined;
}

export interface SavingOptions extends CheckpointOptions {
  readonly freezer?: Freezer | undefined;
  readonly groups?: GroupsSeen;
  /** Of a tree that is to end or to stay stopped. */
  readonly ending?: AllOrNone | undefined;
  /** Nobody waits for it. */
  readonly rehearsed?: boolean;
}

/** Times in milliseconds. */
export interface CheckpointResult {
  readonly processes: number;
  readonly threads: number;
  /** Bytes of memory in the image. */
  readonly memory: number;
  /** Bytes of memory that stand in the image on which it builds. */
  readonly unchanged: number;
  /** Whether nobody has watched what was written since that one: this one is whole then. */
  readonly unwatched: boolean;
  /** Until the last thread had stopped. */
  readonly freezing: number;
  /** From when the first thread was told to stop until the last was let go or killed. */
  readonly frozen: number;
  /** Until the image was on the disk, when they had been let go or killed. */
  readonly sync: number;
}

/**
 * Memory that goes on changing is copied here or by a snapshot before the processes go on, and written afterwards. Of those that
 * end or stay stopped nothing changes: their image is complete, but for being on the disk, before they end.
 */
export function save(
  options: SavingOptions,
  draft: ImageDraft,
  room: HeldMemory,
  foresight?: Foresight,
): CheckpointResult {
  const { pid, timeout, outcome, beforeEnd } = options;
  const committedFirst =
    options.serve !== undefined ||
    (beforeEnd !== undefined && draft.commitsToReader !== true) ||
    (outcome === 'kill' && draft.commitsAtOnce === true);
  const namespaces = new Namespaces(pid);
  const saving = new Saving(options, namespaces, true);
  saving.foresight = foresight;
  const tables = new FileTables(saving);
  const objects = new SharedObjects(namespaces);
  const guests: Guest[] = [];
  const snapshots: Snapshot[] = [];
  saving.waits = lookAtWaits(treeOf(pid));
  const haste = options.rehearsed === true ? undefined : new Haste();
  haste?.begin();
  let frozen: Frozen;
  try {
    frozen = freezeTree(pid, timeout, options.freezer);
  } catch (error) {
    haste?.[Symbol.dispose]();
    throw error;
  }
  saving.stoppedAt = Number(systemTime('monotonic'));
  const started = frozen.since;
  const freezing = performance.now() - started;
  let [done, stopped] = [false, 0];
  const letGo = (): void => {
    if (outcome === 'kill') namespaces.within(() => saving.connections.leave());
    else saving.connections[Symbol.dispose]();
    done = true;
    options.ending?.turn(frozen.processes.map((process) => process.pid));
    finish(outcome, frozen, guests);
    stopped = performance.now() - started;
    if (outcome === 'kill') {
      // Several end at the same time.
      if (frozen.processes.length === 1) endHere(frozen.processes[0]!.threads.map(({ tid }) => tid));
      const ended = () => reapAll(frozen);
      if (options.endsMeanwhile === undefined) ended();
      else options.endsMeanwhile(ended);
    }
    haste?.[Symbol.dispose]();
  };
  try {
    const clocks = clocksOf(pid);
    // Objects are compared and memory is listed before any of it is ours.
    const outside = namespaces.within(() =>
      frozen.processes.map((process) =>
        process.zombie
          ? undefined
          : saveOutside({ pid: process.pid, umask: process.status.Umask }, saving, tables, objects),
      ),
    );
    foresight?.ask('small');
    const tree = new Set(frozen.processes.map((process) => process.pid));
    namespaces.within(() => {
      // Before packets are held back, which is another rule.
      if (namespaces.has('net')) saving.network = saveNetwork();
      tables.saveQueues(frozen.processes.filter(({ zombie }) => !zombie).map((process) => process.pid));
      tables.finish(tree);
      if (namespaces.has('ipc')) saving.ipc = saveIpc(saving);
      finishSysv(saving, tree, true);
      if (namespaces.has('uts')) saving.uts = saveNames();
    });
    const live = frozen.processes.filter(({ zombie }) => !zombie);
    const groups = new Set(live.flatMap((process) => cgroupsOf(process.pid)));
    saving.groups = saveGroups(groups, options.groups ?? new GroupsSeen(), namespaces.has('cgroup') ? pid : undefined);
    if (saving.mounts !== undefined) saving.contents = saving.mounts.contents();
    checkPidfds(saving, tree);
    for (const [i, process] of frozen.processes.entries()) {
      if (!process.zombie) guests.push(new Guest(process, outside[i]!.vmas.find(isVdso)));
    }
    enterAll(guests);
    let next = 0;
    const asked = frozen.processes.map((process, i) =>
      process.zombie ? () => saveZombie(process, saving) : saveTask(guests[next++]!, outside[i]!, saving),
    );
    const tasks = asked.map((answer) => answer());
    // Not before: brk(2) waits until nobody walks through the page tables.
    foresight?.ask('large');
    const memory = memoryOf(tasks, saving);
    const total = memory.reduce((sum, { runs }) => sum + runs.size, 0);
    if (total > LITTLE) haste?.forLong();
    watch(guests, tasks, options);
    const reapers = namespaces.has('pid') || tasks.some(({ threads }) => threads[0]!.core.tc?.child_subreaper);
    if (outcome === 'run' && beforeEnd === undefined && keepMemory(memory, { guests, reapers }, room, snapshots))
      letGo();
    for (const each of memory) {
      if (!(each instanceof ProcessMemory)) continue;
      if (foresight?.wasRight(each.of, each.from) === false) throw new Unforeseen();
      each.find();
    }
    const spaces = memory.filter((each) => each instanceof ProcessMemory);
    // Where the image is a stream nothing of it can be taken back.
    if (foresight?.wereRight('small') === false) throw new Unforeseen();
    if (options.tracking?.goesOn === true) options.tracking.write(draft, (pid) => saving.ids.inside(pid), spaces);
    writeImage(draft, { tasks, saving, clocks, memory });
    if (foresight?.wereRight('large') === false) throw new Unforeseen();
    writeStatistics(draft, memory, { freezing, frozen: done ? stopped : performance.now() - started });
    // From here on the disk can only fail to make it last: there is room for all, and all is written.
    draft.seal();
    // A copy to a disk, other trees: what does that for us must not wait until we are done.
    if (committedFirst || beforeEnd !== undefined) haste?.forLong();
    if (committedFirst) {
      draft.commit();
      if (options.serve !== undefined) serve(memory, options.serve);
    }
    beforeEnd?.();
    if (!done) letGo();
    const synced = performance.now();
    if (!committedFirst) commit(draft, outcome);
    options.tracking?.committed();
    return {
      processes: tasks.length,
      threads: frozen.processes.reduce((sum, { threads }) => sum + threads.length, 0),
      memory: total,
      unchanged: tasks.reduce((sum, { unchanged }) => sum + unchanged.size, 0),
      unwatched: options.tracking?.isLost === true,
      freezing,
      frozen: stopped,
      sync: performance.now() - synced,
    };
  } catch (error) {
    if (!(error instanceof PartialError)) saving.undo();
    throw error;
  } finally {
    if (!done) {
      saving.connections[Symbol.dispose]();
      undo(frozen, guests);
    }
    haste?.[Symbol.dispose]();
    for (const snapshot of snapshots) snapshot[Symbol.dispose]();
    for (const guest of guests) guest[Symbol.dispose]();
    tables[Symbol.dispose]();
    saving[Symbol.dispose]();
  }
}

/** Hands out memory that is not in the image. */
function serve(memory: readonly Memory[], to: NonNullable<CheckpointOptions['serve']>): void {
  const room = new Region(SERVED);
  try {
    to((id, address, length) => {
      const found = memory.find((each) => each.name === id);
      if (!(found instanceof ProcessMemory) || length > room.size) {
        const [expected, got] = ['pages of a process of the image', `${length} bytes of ${id}`];
        throw new FormatError({ file: 'page server', field: 'what is asked for', expected, found: got });
      }
      return found.readNow(room, address, length);
    });
  } finally {
    room[Symbol.dispose]();
  }
}

/** At most at a time, in bytes. */
const SERVED = 256 << 10;

/** Has it told from now on what is written, once for those that share their memory. */
function watch(guests: readonly Guest[], tasks: readonly SavedTask[], { tracking }: CheckpointOptions): void {
  if (tracking?.goesOn !== true) return;
  const seen = new Set<number>();
  for (const { process, remotes } of guests) {
    const { ids, vmas } = tasks.find(({ host }) => host === process.pid)!;
    if (seen.has(ids.vm_id)) continue;
    seen.add(ids.vm_id);
    tracking.enter(remotes[0]!, vmas);
    tracking.restart(process.pid, vmas);
  }
}

/** A process has other mappings than it was taken to have. */
export class Unforeseen extends Error {}

/** What is copied here at most, while the processes are stopped, in bytes. It takes 3 ms. */
export const HELD = 32 << 20;
/** Memory of one process from which on a snapshot is faster than a copy, in bytes. */
const WORTH_A_SNAPSHOT = 1 << 20;

/**
 * Has memory stay as it is when its processes go on: small ones by a copy, large ones by a snapshot.
 *
 * @param reapers whether one of the processes gets the orphans below it as children, as an init does: it would get a snapshot too
 * @returns whether that could be done for all of it
 */
function keepMemory(
  memory: readonly Memory[],
  { guests, reapers }: { guests: readonly Guest[]; reapers: boolean },
  room: HeldMemory,
  snapshots: Snapshot[],
): boolean {
  const total = memory.reduce((sum, { runs }) => sum + runs.size, 0);
  const large = (each: Memory): each is ProcessMemory =>
    total > HELD && each instanceof ProcessMemory && each.runs.size > WORTH_A_SNAPSHOT;
  const held = memory.reduce((sum, each) => sum + (large(each) ? each.leftByFork : each.runs.size), 0);
  if (held > HELD || (reapers && memory.some(large))) return false;
  for (const each of memory) {
    if (!large(each)) {
      each.hold(room);
      continue;
    }
    const guest = guests.find(({ process }) => process.pid === each.of)!;
    const snapshot = guest.process.status.Seccomp === 0 ? Snapshot.of(guest.remotes[0]!) : undefined;
    if (snapshot === undefined) return false;
    snapshots.push(snapshot);
    each.moveTo(snapshot.pid, room);
  }
  return true;
}

/** Makes the image last. Where that fails after the processes have ended, it is all that there is of them. */
function commit(draft: ImageDraft, outcome: CheckpointOptions['outcome']): void {
  try {
    draft.commit();
  } catch (error) {
    if (outcome !== 'kill') throw error;
    const kept = draft.keep();
    const state = `the processes have ended; their image, which is complete but may not be on the disk, stays in ${kept}`;
    throw new PartialError('checkpoint', state, { cause: error });
  }
}

function finish(outcome: CheckpointOptions['outcome'], frozen: Frozen, guests: readonly Guest[]): void {
  if (outcome === 'kill') {
    for (const { pid, zombie } of frozen.processes) if (!zombie) kill({ pid, sig: SIGKILL });
    return;
  }
  leaveAll(guests);
  if (outcome === 'stop') for (const { pid, zombie } of frozen.processes) if (!zombie) kill({ pid, sig: SIGSTOP });
  frozen.release();
}

/** Lets everything go on as far as it can be reached. */
function undo(frozen: Frozen, guests: readonly Guest[]): void {
  for (const guest of guests) {
    try {
      guest.settle();
      leaveAll([guest]);
    } catch {
      // Its threads go on where they were all the same; some scratch memory stays.
    }
  }
  frozen.release();
}

/** Waits for the end of what was killed, and reaps what the kernel leaves to a tracer. */
function reapAll({ processes }: Frozen): void {
  const threads = processes.flatMap((process) => process.threads);
  const [left] = reapEach(threads.map(({ tid }) => tid).reverse());
  if (left !== undefined) throw neverEnds(left);
  for (const thread of threads) thread.forget();
}
