/** The process tree made anew: with the same ids, sessions, groups and zombies, each process in a memory that is still empty. */

import { Errno } from '../abi/errno.ts';
import { PR_GET_CHILD_SUBREAPER, PR_SET_CHILD_SUBREAPER } from '../abi/prctl.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_NEWPID, CLONE_PARENT, CLONE_PTRACE, CLONE_VM, clone_args } from '../abi/sched.ts';
import { SIGCHLD, SIGKILL, SIGURG, SIGWINCH, siginfo } from '../abi/signal.ts';
import { timespec } from '../abi/time.ts';
import { NR } from '../abi/unistd.ts';
import { FormatError, PartialError, SyscallError, UnsupportedError } from '../errors.ts';
import type { ImageTask, ImageTree } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { clone3 } from '../sys/clone.ts';
import { prctl, sleep } from '../sys/process.ts';
import { cont } from '../sys/ptrace.ts';
import { readStat } from '../sys/stat.ts';
import { makeScratch } from './bare.ts';
import { childrenOf, threadsOf } from './freeze.ts';
import { byInnerId } from './ids.ts';
import { Remote, Scratch, type SlotLayout, scratchSize } from './remote.ts';
import { bornIn, isEarly, isStray } from './sessions.ts';
import { makerOf, withMemory } from './sharing.ts';
import { expectEnd, reapEach, Tracee } from './tracee.ts';

/** Of a process that is being made: a thousand calls at a time, and what they refer to. It has no way back. */
export const makeLayout: SlotLayout = { frame: 0, records: 16 * 4096, data: 64 * 4096 };

/** A process that is being made. */
export interface Made {
  readonly task: ImageTask;
  /** Its id here. */
  readonly pid: number;
  /** Whether its id in the image is one of another PID namespace. */
  readonly inner: boolean;
  readonly scratch: Scratch;
  readonly leader: Remote;
  /** Of the leader in the scratch memory; those of its threads follow. */
  readonly slot: number;
}

/** Where the scratch memory of all processes is: free in each of them. */
export function findHole(tree: ImageTree): { address: number; size: number } {
  const threads = Math.max(...tree.tasks.map((task) => slotsOf(task, tree).slots));
  const size = scratchSize(makeLayout, threads);
  const vmas = tree.tasks.flatMap(({ mm }) => mm?.vmas ?? []).sort((a, b) => a.start - b.start);
  let address = 0x1000_0000;
  for (const { start, end } of vmas) {
    if (start >= address + size) break;
    if (end > address) address = Math.ceil(end / 0x10000) * 0x10000 + 0x10000;
  }
  return { address, size };
}

interface RootOptions {
  /** It becomes a child of our parent. */
  readonly sibling: boolean;
  /** It is the init of a new PID namespace. */
  readonly inner: boolean;
}

/**
 * Makes the root, with nothing but scratch memory. It is a tracee that dies with this process, as all that it makes.
 *
 * @param with `keep`: descriptor that the root inherits
 * @param made gets it
 * @throws UnsupportedError (an id is taken), SyscallError EPERM
 */
export function makeRoot(
  tree: ImageTree,
  { hole, keep, ...how }: { hole: { address: number; size: number }; keep: number } & RootOptions,
  made: Made[],
): Made {
  const root = bareRoot(tree, hole, how);
  made.push(root);
  const { leader } = root;
  // The standard descriptors of this process are not close-on-exec.
  if (keep > 0) leader.call(NR.close_range, 0, keep - 1, 0);
  leader.call(NR.close_range, keep + 1, 0xffff_ffff, 0);
  unmapBut(leader, [hole]);
  leader.run();
  return root;
}

/** Adds the calls that take all memory away but some of it. */
export function unmapBut(remote: Remote, kept: readonly { readonly address: number; readonly size: number }[]): void {
  let at = 0;
  for (const { address, size } of [...kept].sort((a, b) => a.address - b.address)) {
    remote.reserve(2, 0);
    if (address > at) remote.call(NR.munmap, at, address - at);
    at = address + size;
  }
  if (at < TASK_SIZE) remote.call(NR.munmap, at, TASK_SIZE - at);
}

const TASK_SIZE = 0x7fff_ffff_f000;

/**
 * Makes the children of a process, and its session between those that were born before and after that.
 *
 * @param with `made`: gets them; `inSession`: called when the process leads a session, which its children will be of
 */
export function makeChildren(
  parent: Made,
  tree: ImageTree,
  { hole, made, inSession }: { hole: { address: number }; made: Made[]; inSession: () => void },
): void {
  const { task, leader } = parent;
  const children = tree.tasks.filter((each) => each.ppid === task.pid && !isStray(tree.tasks, each));
  const early = (child: ImageTask) => isEarly(tree.tasks, child);
  const make = (maker: ImageTask, of: readonly ImageTask[]): void => {
    const by = made.find((each) => each.task === maker);
    if (by === undefined) throw new UnsupportedError(lateMaker(of[0]!.pid, maker.pid));
    const wanted = of.map((child) => {
      const { flags } = makerOf(tree.tasks, child);
      // A sibling's signal is taken over; clone3(2) allows none then.
      const exit_signal = (flags & CLONE_PARENT) === 0 ? exitSignal(child) : 0;
      return { id: child.pid, flags: flags | CLONE_PTRACE, exit_signal };
    });
    const among = () => childrenOf(parent.pid, [parent.pid]);
    cloneAll(by, wanted, among, (i, pid) => {
      made.push(justMade(of[i]!, pid, parent.inner, tree, hole));
    });
  };
  const makeAll = (of: readonly ImageTask[]): void => {
    for (let at = 0, end = 0; at < of.length; at = end) {
      const { maker } = makerOf(tree.tasks, of[at]!);
      while (end < of.length && makerOf(tree.tasks, of[end]!).maker === maker) end++;
      make(maker, of.slice(at, end));
    }
  };
  makeAll(children.filter(early));
  if (task.sid === task.pid) {
    leader.call(NR.setsid);
    leader.start();
    inSession();
  }
  makeAll(children.filter((child) => !early(child)));
}

/** A process that was just cloned, and has the scratch memory of the one it was cloned of. @param pid its id here */
export function justMade(
  task: ImageTask,
  pid: number,
  inner: boolean,
  tree: ImageTree,
  hole: { address: number },
): Made {
  const tracee = Tracee.stoppedChild(pid, pid);
  const { slot, slots } = slotsOf(task, tree);
  const scratch = new Scratch(pid, hole.address, makeLayout, slots, endSignal(task));
  tracee.blockSignals(scratch.endSignal);
  return { task, pid, inner, scratch, leader: new Remote(tracee, scratch, slot), slot };
}

function lateMaker(pid: number, maker: number) {
  const why = `process ${maker} was to make it, which is of another session`;
  return { what: `process ${pid}`, pid, why, remedy: 'restore it with CRIU' };
}

/** Which parts of the scratch memory a process has: those that share one memory stand one behind the other. */
function slotsOf(task: ImageTask, tree: ImageTree): { slot: number; slots: number } {
  const sharing = withMemory(tree.tasks, task);
  const slot = sharing.slice(0, sharing.indexOf(task)).reduce((sum, { threads }) => sum + threads.length, 0);
  return { slot, slots: slot + task.threads.length };
}

/** What its parent gets when a process ends. */
function exitSignal({ threads }: ImageTask): number {
  return threads[0]!.core.tc?.exit_signal ?? SIGCHLD;
}

/** What clone3(2) is to make: a child or thread. */
interface Wanted {
  /** 0 for any. */
  readonly id: number;
  readonly flags: number;
  readonly exit_signal: number;
}

/** How many in one batch. */
const CLONES = 200;

/**
 * Has a process make children or threads, many at a time.
 *
 * @param among lists ids here of which those of them will be some
 * @param taken is told the place of each that is there, and its id here; also when others could not be made
 * @throws UnsupportedError (an id is taken), SyscallError
 */
export function cloneAll(
  made: Made,
  wanted: readonly Wanted[],
  among: () => readonly number[],
  taken: (place: number, id: number) => void,
): void {
  const { leader, inner } = made;
  for (let first = 0; first < wanted.length; first += CLONES) {
    const part = wanted.slice(first, first + CLONES);
    leader.run();
    const indexes = part.map((each) => addClone(leader, each));
    leader.run();
    const results = indexes.map((index) => leader.result(index));
    const failed = results.flatMap((result, i) =>
      result > 0 ? [] : [{ i, error: leader.error(indexes[i]!, result) }],
    );
    const here = inner ? byInnerId(among()) : undefined;
    for (const [i, id] of results.entries()) {
      if (id > 0) taken(first + i, here === undefined ? id : here.get(id)!);
    }
    for (const { i, error } of failed) {
      const { id } = part[i]!;
      if (error.errno !== Errno.EEXIST || inner || !isGoing(id)) throw notMade(error, id);
      cloneAs(leader, part[i]!);
      taken(first + i, id);
    }
  }
}

/**
 * Has a process make one.
 *
 * @param parent whose child it will be, with its id here
 * @returns its id here
 */
export function cloneOne(made: Made, wanted: Omit<Wanted, 'exit_signal'>, parent: number): number {
  let pid = 0;
  const all = [{ ...wanted, flags: wanted.flags | CLONE_PTRACE, exit_signal: 0 }];
  cloneAll(
    made,
    all,
    () => childrenOf(parent, [parent]),
    (_, id) => {
      pid = id;
    },
  );
  return pid;
}

/** Adds the call. */
function addClone(remote: Remote, { id, flags, exit_signal }: Wanted): number {
  const ids = new Uint8Array(4);
  new DataView(ids.buffer).setInt32(0, id, true);
  const set = id === 0 ? {} : { set_tid: remote.put(ids), set_tid_size: 1 };
  const args = clone_args.write({ flags, exit_signal, ...set });
  return remote.attempt(NR.clone3, remote.put(args), args.length);
}

/** Waits for an id that is about to become free. */
function cloneAs(remote: Remote, wanted: Wanted): void {
  const { id } = wanted;
  for (let left = ATTEMPTS; ; left--) {
    const index = addClone(remote, wanted);
    remote.run();
    const result = remote.result(index);
    if (result === id) return;
    if (result !== -Errno.EEXIST || left === 0 || !isGoing(id)) throw notMade(remote.error(index, result), id);
    sleep(WAIT);
  }
}

/** Whether an id will be free in a moment: what has it has ended, or is about to. */
function isGoing(id: number): boolean {
  try {
    return 'ZX'.includes(readStat(id).state);
  } catch {
    return true;
  }
}

/**
 * An id is taken until somebody has waited for the process that had it. What has just been killed goes in a moment, but with an
 * orphan that is a matter of init, and some look only every few seconds.
 */
const ATTEMPTS = 100_000;
const WAIT = 200_000;

function notMade(error: SyscallError, id: number): Error {
  if (error.errno !== Errno.EEXIST) return error;
  return new UnsupportedError({
    what: `process id ${id}`,
    why: 'another process or thread has it',
    remedy: `end that one (ps -L -p ${id}; a zombie goes when its parent waits for it), or restore in a new pid namespace`,
  });
}

/** The process that all others come from: it shares our memory until it executes a program that is nothing but scratch memory. */
function bareRoot(tree: ImageTree, hole: { address: number; size: number }, how: RootOptions): Made {
  const task = tree.tasks[0]!;
  const session = bornIn(tree.tasks, task);
  const leads =
    !how.inner && tree.tasks.some(({ sid, threads }) => sid === session && threads[0]!.core.tc!.session_left);
  const tracee = makeScratch(() => cloneRoot(leads ? session! : task.pid, how), hole);
  const first = bare(task, tree, hole, tracee, how.inner);
  if (!leads) return first;
  // The leader of its session is gone, and goes again.
  const { leader, scratch } = first;
  try {
    leader.call(NR.setsid);
    leader.run();
    cloneOne(first, { id: task.pid, flags: CLONE_PARENT }, process.pid);
    const root = justMade(task, task.pid, false, tree, hole);
    leader.call(NR.exit_group, 0);
    leader.start();
    expectEnd(session!, () => cont(session!));
    return root;
  } finally {
    scratch[Symbol.dispose]();
  }
}

function bare(task: ImageTask, tree: ImageTree, hole: { address: number }, tracee: Tracee, inner: boolean): Made {
  const { pid } = tracee;
  const { slot, slots } = slotsOf(task, tree);
  const scratch = new Scratch(tracee.pid, hole.address, makeLayout, slots, endSignal(task));
  scratch.install();
  tracee.blockSignals(scratch.endSignal);
  return { task, pid, inner, scratch, leader: new Remote(tracee, scratch, slot), slot };
}

/** It ends with us: by what it asks for itself until it is traced, and by PTRACE_O_EXITKILL if it was seized before it could. */
function cloneRoot(pid: number, { sibling, inner }: RootOptions): number {
  for (let left = ATTEMPTS; ; left--) {
    try {
      const flags = CLONE_VM + CLONE_CLEAR_SIGHAND + (inner ? CLONE_NEWPID : 0);
      // A sibling ends with our signal, and would be told of the end of our parent.
      const how = sibling
        ? { flags: flags + CLONE_PARENT, exit_signal: 0 }
        : { flags, exit_signal: SIGCHLD, pdeath_sig: SIGKILL };
      return clone3({ ...how, set_tid: [pid] }).pid;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      if (error.errno !== Errno.EEXIST || left === 0 || !isGoing(pid)) throw notMade(error, pid);
      sleep(WAIT);
    }
  }
}

/** A signal to end batches with that does not wait for the process in the image. */
function endSignal(task: ImageTask): number {
  const queues = task.threads.flatMap(({ core }) => [core.tc?.signals_s, core.thread_core?.signals_p]);
  const waiting = new Set(
    queues.flatMap((queue) => (queue?.signals ?? []).map((each) => siginfo.read(each.siginfo).si_signo)),
  );
  return [SIGURG, SIGWINCH, SIGCHLD].find((signal) => !waiting.has(signal)) ?? SIGURG;
}

/** Lets those end that had ended, in the way they did. */
export function makeZombies(made: readonly Made[]): void {
  for (const { task, pid, leader } of made) {
    if (!task.isZombie) continue;
    const code = task.threads[0]!.core.tc!.exit_code;
    const signal = code & 0x7f;
    if (signal === 0) leader.call(NR.exit_group, (code >> 8) & 0xff);
    else leader.call(NR.kill, task.pid, signal);
    // Signals are blocked in it as in all; its last one is let through.
    leader.tracee.unblockSignals();
    leader.start();
    expectEnd(pid, (status) => {
      if (status.event === 0 && status.signal !== signal) throw doesNotKill(task.pid, code);
      cont(pid, status.event === 0 ? signal : 0);
    });
    leader.tracee.forget();
    const parent = made.find((each) => each.task.pid === task.ppid);
    if (parent !== undefined) dropChildSignal(parent.leader);
  }
}

/** Code that goes on behind its last signal comes to the end of the batch. */
function doesNotKill(pid: number, code: number): FormatError {
  const file = fileName(images.CORE, pid);
  return new FormatError({ file, field: 'tc.exit_code', expected: 'what a process ends by', found: `${code}` });
}

/** Takes the SIGCHLD back that a process got for a zombie; had it waited, the image has it. */
export function dropChildSignal(remote: Remote): void {
  const set = new Uint8Array(8);
  new DataView(set.buffer).setBigUint64(0, 1n << BigInt(SIGCHLD - 1), true);
  remote.attempt(NR.rt_sigtimedwait, remote.put(set), 0, remote.put(new Uint8Array(timespec.size)), set.length);
  remote.run();
}

/**
 * Has orphans of what is made become children of this process, so that ids are free again when what was made is taken away.
 *
 * @returns has it as it was
 */
export function reapOrphans(): () => void {
  const before = new Uint8Array(4);
  prctl({ option: PR_GET_CHILD_SUBREAPER, arg2: before, arg3: 0, arg4: 0, arg5: 0 });
  const set = (on: number) => prctl({ option: PR_SET_CHILD_SUBREAPER, arg2: on, arg3: 0, arg4: 0, arg5: 0 });
  set(1);
  return () => void set(before[0]!);
}

/**
 * Kills what was made and waits for it, so that nothing is left.
 *
 * @param cause why
 * @throws PartialError with the processes that stay all the same
 */
export function killMade(made: readonly Made[], cause: unknown): void {
  const threads = made.map(({ pid }) => {
    try {
      const all = threadsOf(pid);
      process.kill(pid, 'SIGKILL');
      return all;
    } catch {
      // It is gone already.
      return [pid];
    }
  });
  // As their tracer, and then as their parent, which is gone: see reapOrphans().
  const left = [...reapEach(threads.flat().reverse()), ...reapEach(made.map(({ pid }) => pid))];
  if (left.length === 0) return;
  const state = `${left.join(', ')} of the restored tree cannot be ended, and goes when the kernel lets it`;
  throw new PartialError('restore', state, { cause });
}
