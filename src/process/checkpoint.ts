/**
 * Writes a process and all below it into an image.
 *
 *     look -> stop -> ask from outside (/proc, kcmp) -> ask from within -> write -> let go, kill or leave stopped
 *
 * First everything is looked at while it runs: what cannot be saved is said then, and the code is warm when the processes are
 * stopped.
 */
import { PRIO_PROCESS } from '../abi/resource.ts';
import { SIGKILL, SIGSTOP } from '../abi/signal.ts';
import { FormatError, PartialError, SyscallError, UnsupportedError } from '../errors.ts';
import { type ImageDraft, type ImageStore, MemoryStore } from '../image/store.ts';
import { pagesFile } from '../image/types.ts';
import { getpriority, kill, setpriority } from '../sys/process.ts';
import { Region } from '../sys/region.ts';
import { readForks, readStat, readStatus } from '../sys/stat.ts';
import { cgroupsOf } from './cgroups.ts';
import { clocksOf, systemTime } from './clocks.ts';
import { checkPidfds } from './files/pidfd.ts';
import { FileTables } from './files/table.ts';
import { Foresight } from './foresight.ts';
import { childrenOf, type Frozen, freezeTree, threadsOf } from './freeze.ts';
import { Freezer } from './freezer.ts';
import { isGone } from './gone.ts';
import { saveGroups } from './groupsettings.ts';
import { endIdle, startIdle } from './idle.ts';
import { saveIpc } from './ipc.ts';
import { HeldMemory, type Memory, ProcessMemory, writePagemap } from './memory.ts';
import { Namespaces } from './namespaces.ts';
import { saveNetwork } from './network.ts';
import { refuseLeaderless, refuseRunning } from './refused.ts';
import { type SaveOptions, Saving } from './saving.ts';
import { checkSessions, hasLeader } from './sessions.ts';
import { checkSharing, type Member } from './sharing.ts';
import { Snapshot } from './snapshot.ts';
import { finishSysv } from './sysv.ts';
import { enterAll, Guest, leaveAll, type SavedTask, SharedObjects, saveOutside, saveTask, saveZombie } from './task.ts';
import { neverEnds, reapEach } from './tracee.ts';
import { Tracking } from './tracking.ts';
import { saveNames } from './uts.ts';
import { afterVfork } from './vfork.ts';
import { lookAtWaits } from './waits.ts';
import { type AddressSpace, memoryOf, writeImage, writeStatistics } from './write.ts';

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
  /** Folder of a control group that stops all of the tree at once; one that the tree has for itself does so without that. */
  readonly freezeGroup?: string | undefined;
}

export interface SavingOptions extends CheckpointOptions {
  readonly freezer?: Freezer | undefined;
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
  /** From the first thread that stopped to the last that was let go or killed. */
  readonly frozen: number;
  /** Until the image was on the disk, when they had been let go or killed. */
  readonly sync: number;
}

/**
 * @param draft gets the image and is committed; it is aborted when something fails
 * @throws UnsupportedError (something cannot be saved; the processes go on untouched), SyscallError
 */
export function checkpoint(given: CheckpointOptions, draft: ImageDraft): CheckpointResult {
  const { parent, outcome, trackMemory } = given;
  let tracking: Tracking | undefined;
  let freezer: Freezer | undefined;
  let foresight: Foresight | undefined;
  try {
    tracking = new Tracking(treeOf(given.pid), { parent, goOn: trackMemory === true && outcome !== 'kill' });
    const options = { ...given, tracking };
    const until = performance.now() + LOOKING;
    const goesOn = outcome === 'run' && given.beforeEnd === undefined;
    const watched = trackMemory === true && outcome !== 'kill';
    // What another thread says is there when the image is written: it stays stopped until then, and is written once more if need be.
    if (goesOn) foresight = parent === undefined && !watched ? new Foresight(true) : undefined;
    else foresight = draft.clear !== undefined && !watched ? new Foresight(false) : undefined;
    let memory = lookAt(options, foresight);
    for (let round = 1; round < ROUNDS && performance.now() < until; round++) memory = lookAt(options, foresight);
    if (parent !== undefined) {
      memory = lookAt(options, foresight);
      practise(memory);
    }
    const sizes = memory.map(({ runs }) => runs.size);
    const expected = sizes.reduce((sum, size) => sum + size, 0);
    const room = new HeldMemory(HELD, options.outcome === 'run' && expected <= HELD ? expected : 0);
    try {
      reserve(draft, sizes);
      rehearse(options);
      freezer = Freezer.of(given.pid, given.freezeGroup);
      const saved = { ...options, freezer };
      try {
        return save(saved, draft, room, foresight);
      } catch (error) {
        if (!(error instanceof Unforeseen)) throw error;
        room.clear();
        draft.clear?.();
        return save(saved, draft, room);
      }
    } finally {
      room[Symbol.dispose]();
    }
  } catch (error) {
    if (!(error instanceof PartialError)) draft.abort();
    throw error;
  } finally {
    foresight?.[Symbol.dispose]();
    freezer?.[Symbol.dispose]();
    tracking?.[Symbol.dispose]();
  }
}

/**
 * Has pages get their room before anything is stopped: what there is none for is said then, and giving it takes longer than
 * filling it. 1 GiB of a tmpfs: 0.35 s of 0.5.
 */
function reserve(draft: ImageDraft, sizes: readonly number[]): void {
  for (const [i, size] of sizes.entries()) if (size > WORTH_ROOM) draft.reserve?.(pagesFile(i + 1), size);
}

/** In bytes. */
const WORTH_ROOM = 1 << 20;

/**
 * What a checkpoint of a tree would have, and whether it can be made at this moment. Nothing is stopped or changed.
 *
 * @returns bytes of memory, more or less
 * @throws UnsupportedError (something cannot be saved)
 */
export function examine(options: CheckpointOptions): number {
  const { pid, parent } = options;
  const tracking = parent === undefined ? undefined : new Tracking(treeOf(pid), { parent, goOn: false });
  try {
    return lookAt({ ...options, tracking }, undefined).reduce((sum, { runs }) => sum + runs.size, 0);
  } finally {
    tracking?.[Symbol.dispose]();
  }
}

/**
 * Everything but stopping and writing. Processes that are made meanwhile are not seen, and what they share with the others looks as
 * if somebody outside had it: such a refusal counts only if none was made.
 *
 * @returns the memory that the image will have, more or less
 */
function lookAt(options: CheckpointOptions, foresight: Foresight | undefined): Memory[] {
  for (let left = LOOKS; ; left--) {
    const before = readForks();
    const isWhole = () => readForks() === before;
    try {
      return lookOnce(options, foresight, isWhole);
    } catch (error) {
      if (!(error instanceof UnsupportedError) || left === 1 || isWhole()) throw error;
    }
  }
}

const LOOKS = 5;

/** @param isWhole whether no process was made meanwhile */
function lookOnce(options: CheckpointOptions, foresight: Foresight | undefined, isWhole: () => boolean): Memory[] {
  refuseOneself(options.pid);
  afterVfork(() => treeOf(options.pid), options.timeout);
  const root = readStat(options.pid);
  if (root.state === 'Z') {
    refuseLeaderless(options.pid);
    throw hasEnded(options.pid, root.ppid);
  }
  const namespaces = new Namespaces(options.pid);
  const saving = new Saving(options, namespaces, false);
  saving.foresight = foresight;
  const tables = new FileTables(saving);
  const objects = new SharedObjects(namespaces);
  const members: Member[] = [];
  const spaces: AddressSpace[] = [];
  try {
    const pids = new Set(treeOf(options.pid));
    for (const pid of pids) {
      try {
        const status = readStatus(pid);
        if (status.State === 'Z') {
          refuseLeaderless(pid);
          continue;
        }
        namespaces.check(pid);
        for (const tid of threadsOf(pid).slice(1)) namespaces.check(`${pid}/task/${tid}`);
        namespaces.within(() => refuseRunning(pid, pids));
        refuseSession(pid, pids, options);
        const { ids, vmas, pages, unchanged } = namespaces.within(() =>
          saveOutside({ pid, umask: status.Umask }, saving, tables, objects),
        );
        members.push({ pid, ppid: status.PPid, sid: readStat(pid).session, ids, isZombie: false });
        spaces.push({ host: pid, pid, ids, zombie: false, vmas, pages, unchanged });
      } catch (error) {
        // It ended, or closed something, while it was looked at.
        if (!isGone(error)) throw error;
        if (pid === options.pid) readStat(pid);
      }
    }
    namespaces.within(() => {
      tables.finish(pids);
      if (namespaces.has('net')) saveNetwork();
      if (namespaces.has('ipc')) saving.ipc = saveIpc(saving);
      finishSysv(saving, pids, isWhole());
    });
    checkPidfds(saving, pids);
    checkSharing(members);
    checkSessions(members);
    return memoryOf(spaces, saving);
  } finally {
    tables[Symbol.dispose]();
    saving[Symbol.dispose]();
  }
}

/**
 * Lists and reads what was written since an earlier image, which is in many small pieces, and writes it nowhere: what is done to
 * ten thousand pieces for the first time takes four times as long as it does then.
 */
function practise(memory: readonly Memory[]): void {
  const nowhere = { create: () => ({ write() {}, close() {} }) };
  for (const each of memory) {
    if (!(each instanceof ProcessMemory)) continue;
    try {
      for (let round = 0; round < 2; round++) writePagemap(nowhere, each, 1);
      each.each(() => {});
    } catch (error) {
      // It runs, and unmaps what is being read.
      if (!(error instanceof SyscallError)) throw error;
    }
  }
}

/**
 * Checkpoints a process of ours that does nothing into memory. Code that runs for the first time takes ten times as long as it
 * does then: 20 ms for a small program, which would be stopped meanwhile.
 */
function rehearse(options: CheckpointOptions): void {
  const pid = startIdle();
  const until = performance.now() + REHEARSING;
  const room = new HeldMemory(ROUNDS << 16, 0);
  try {
    for (let round = 0; round < ROUNDS && performance.now() < until; round++) {
      const draft = new MemoryStore().draft();
      save({ ...options, ...REHEARSED, pid }, draft, room);
    }
  } catch {
    // Where it cannot be done it is not needed; what goes wrong with the program itself is said then.
  } finally {
    endIdle(pid);
    room[Symbol.dispose]();
  }
}

const ROUNDS = 50;
/** In ms. What is looked at before is warm as well. */
const LOOKING = 40;
/** In ms; what takes 4 ms the first time takes 1.2 the second and 0.6 after 50. */
const REHEARSING = 80;

const REHEARSED = {
  outcome: 'run',
  ghostLimit: 1 << 20,
  beforeEnd: undefined,
  tracking: undefined,
  serve: undefined,
  lazyPages: false,
} as const;

/** A process and all below it, of which some may end meanwhile. */
export function treeOf(root: number): number[] {
  const below = (pid: number): number[] => {
    try {
      return [pid, ...(readStat(pid).state === 'Z' ? [] : childrenOf(pid)).flatMap(below)];
    } catch (error) {
      if (pid !== root && isGone(error)) return [];
      throw error;
    }
  };
  return below(root);
}

export function refuseOneself(pid: number): void {
  for (let at = process.pid; at > 0; at = readStat(at).ppid) {
    if (at !== pid) continue;
    throw new UnsupportedError({
      what: 'process tree',
      pid,
      why: 'tideover itself runs in it',
      remedy: 'run tideover from outside of the tree',
    });
  }
}

function hasEnded(pid: number, parent: number): UnsupportedError {
  return new UnsupportedError({
    what: 'process tree',
    pid,
    why: 'its root has ended and only waits for its parent to see that',
    remedy: `save the tree of its parent: -t ${parent}`,
  });
}

function refuseSession(pid: number, tree: ReadonlySet<number>, options: CheckpointOptions): void {
  if (options.shellJob) return;
  const { session } = readStat(pid);
  if (tree.has(session) || !hasLeader(session)) return;
  throw new UnsupportedError({
    what: `session ${session}`,
    pid,
    why: 'its leader is not in the tree',
    remedy: 'give --shell-job, here and at the restore, or start the program with setsid',
  });
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
  const committedFirst = beforeEnd !== undefined || options.serve !== undefined;
  const namespaces = new Namespaces(pid);
  const saving = new Saving(options, namespaces, true);
  saving.foresight = foresight;
  const tables = new FileTables(saving);
  const objects = new SharedObjects(namespaces);
  const guests: Guest[] = [];
  const snapshots: Snapshot[] = [];
  saving.waits = lookAtWaits(treeOf(pid));
  const unhurried = hurry();
  const started = performance.now();
  let frozen: Frozen;
  try {
    frozen = freezeTree(pid, timeout, options.freezer);
  } catch (error) {
    unhurried();
    throw error;
  }
  saving.stoppedAt = Number(systemTime('monotonic'));
  const freezing = performance.now() - started;
  let [done, stopped] = [false, 0];
  const letGo = (): void => {
    done = true;
    if (outcome === 'kill') namespaces.within(() => saving.connections.leave());
    else saving.connections[Symbol.dispose]();
    finish(outcome, frozen, guests);
    stopped = performance.now() - started;
    if (outcome === 'kill') reapAll(frozen);
    unhurried();
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
    saving.groups = saveGroups(groups, namespaces.has('cgroup') ? pid : undefined);
    if (saving.mounts !== undefined) saving.contents = saving.mounts.contents();
    checkPidfds(saving, tree);
    for (const [i, process] of frozen.processes.entries()) {
      if (!process.zombie) guests.push(new Guest(process, outside[i]!.vmas));
    }
    enterAll(guests);
    foresight?.ask();
    let next = 0;
    const asked = frozen.processes.map((process, i) =>
      process.zombie ? () => saveZombie(process, saving) : saveTask(guests[next++]!, outside[i]!, saving),
    );
    const tasks = asked.map((answer) => answer());
    const memory = memoryOf(tasks, saving);
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
    options.tracking?.write(draft, (pid) => saving.ids.inside(pid), spaces);
    writeImage(draft, { tasks, saving, clocks, memory });
    if (foresight?.wereRight() === false) throw new Unforeseen();
    writeStatistics(draft, memory, { freezing, frozen: done ? stopped : performance.now() - started });
    // From here on the disk can only fail to make it last: there is room for all, and all is written.
    draft.seal();
    if (committedFirst) {
      draft.commit();
      if (options.serve !== undefined) serve(memory, options.serve);
      beforeEnd?.();
    }
    if (!done) letGo();
    const synced = performance.now();
    if (!committedFirst) commit(draft, outcome);
    options.tracking?.committed();
    return {
      processes: tasks.length,
      threads: frozen.processes.reduce((sum, { threads }) => sum + threads.length, 0),
      memory: memory.reduce((sum, { runs }) => sum + runs.size, 0),
      unchanged: tasks.reduce((sum, { unchanged }) => sum + unchanged.size, 0),
      unwatched: options.tracking?.isLost === true,
      freezing,
      frozen: stopped,
      sync: performance.now() - synced,
    };
  } finally {
    if (!done) {
      saving.connections[Symbol.dispose]();
      undo(frozen, guests);
    }
    unhurried();
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
  const seen = new Set<number>();
  for (const { process, remotes } of guests) {
    const { ids, vmas } = tasks.find(({ host }) => host === process.pid)!;
    if (tracking === undefined || seen.has(ids.vm_id)) continue;
    seen.add(ids.vm_id);
    tracking.enter(remotes[0]!, vmas);
    tracking.restart(process.pid, vmas);
  }
}

/** A process has other mappings than it was taken to have. */
class Unforeseen extends Error {}

/** Has this thread go before others while programs stand still, where it may. @returns ends that */
function hurry(): () => void {
  const before = 20 - getpriority({ which: PRIO_PROCESS, who: 0 });
  setpriority.attempt({ which: PRIO_PROCESS, who: 0, prio: -20 });
  return () => void setpriority.attempt({ which: PRIO_PROCESS, who: 0, prio: before });
}

/** What is copied here at most, while the processes are stopped, in bytes. It takes 3 ms. */
const HELD = 32 << 20;
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
