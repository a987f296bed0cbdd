/** The process tree made anew: with the same ids, sessions, groups and zombies, each process in a memory that is still empty. */
import { Errno } from '../abi/errno.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_NEWPID, CLONE_PARENT, CLONE_PTRACE, CLONE_VM } from '../abi/sched.ts';
import { SIGCHLD, SIGKILL, SIGURG, SIGWINCH, siginfo } from '../abi/signal.ts';
import { NR } from '../abi/unistd.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import type { ImageTask, ImageTree } from '../image/tree.ts';
import { clone3 } from '../sys/clone.ts';
import { cont } from '../sys/ptrace.ts';
import { makeScratch } from './bare.ts';
import { ATTEMPTS, childrenByInnerId, cloneAll, cloneOne, isGoing, mayBeSaved, notMade, waitForId } from './cloning.ts';
import type { Haste } from './haste.ts';
import { type Hole, LEADER, type Made } from './made.ts';
import { Remote } from './remote.ts';
import { type ProcessLayout, Scratch, scratchSize, slotOf } from './scratch.ts';
import { bornIn, isEarly, isStray } from './sessions.ts';
import { makerOf, withMemory } from './sharing.ts';
import { expectEnd, Tracee } from './tracee.ts';

/** Where the scratch memory of all processes is: free in each of them. */
export function findHole(tree: ImageTree): Hole {
  const layout = { leader: LEADER, thread: threadLayout(tree) };
  const size = scratchSize(Math.max(...tree.tasks.map((task) => slotsOf(task, tree, layout).end)));
  const vmas = tree.tasks.flatMap(({ mm }) => mm?.vmas ?? []).sort((a, b) => a.start - b.start);
  let address = 0x1000_0000;
  for (const { start, end } of vmas) {
    if (start >= address + size) break;
    if (end > address) address = Math.ceil(end / 0x10000) * 0x10000 + 0x10000;
  }
  return { address, size, layout };
}

/** Of threads but the first one: 200 calls at a time, the largest filter for system calls (32 KiB), or all their groups. */
function threadLayout(tree: ImageTree): ProcessLayout['thread'] {
  const groups = tree.tasks.flatMap(({ threads }) =>
    threads.map(({ core }) => core.thread_core?.creds?.groups.length ?? 0),
  );
  const largest = groups.reduce((most, count) => Math.max(most, count), 0);
  return { frame: 0, records: 4 * PAGE, data: 12 * PAGE + Math.ceil((4 * largest) / PAGE) * PAGE };
}

const PAGE = 4096;

interface RootOptions {
  readonly haste: Haste | undefined;
  /** It becomes a child of our parent. */
  readonly sibling: boolean;
  /** It is the init of a new PID namespace. */
  readonly inner: boolean;
  /** Has who writes the image come to its end, if it is being written; else returns false. */
  readonly takeAll: () => boolean;
}

/**
 * Makes the root, with nothing but scratch memory when it has done what it is given here, with what it is given next. It is a tracee
 * that dies with this process, as all that it makes.
 *
 * @param with `keep`: descriptor that the root inherits
 * @param made gets it
 * @throws UnsupportedError (an id is taken), SyscallError EPERM
 */
export function makeRoot(
  tree: ImageTree,
  { hole, keep, ...how }: { hole: Hole; keep: number } & RootOptions,
  made: Made[],
): Made {
  const root = bareRoot(tree, hole, how);
  made.push(root);
  const { leader } = root;
  // The standard descriptors of this process are not close-on-exec.
  if (keep > 0) leader.call(NR.close_range, 0, keep - 1, 0);
  leader.call(NR.close_range, keep + 1, 0xffff_ffff, 0);
  unmapBut(leader, [hole]);
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
  { hole, made, inSession }: { hole: Hole; made: Made[]; inSession: () => void },
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
    const outer = (ids: readonly number[]) => childrenByInnerId(parent.pid, ids);
    cloneAll(by, wanted, outer, (i, pid) => {
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
export function justMade(task: ImageTask, pid: number, inner: boolean, tree: ImageTree, hole: Hole): Made {
  const tracee = Tracee.stoppedChild(pid, pid);
  const { slot, end } = slotsOf(task, tree, hole.layout);
  const scratch = new Scratch(pid, hole.address, scratchSize(end), endSignal(task));
  tracee.blockSignals(scratch.endSignal);
  return { task, pid, inner, scratch, leader: new Remote(tracee, scratch, LEADER, slot), slot, layout: hole.layout };
}

function lateMaker(pid: number, maker: number) {
  const why = `process ${maker} was to make it, which is of another session`;
  return { what: `process ${pid}`, pid, why, remedy: 'restore it with CRIU' };
}

/** Which parts of the scratch memory a process has: those that share one memory stand one behind the other. */
function slotsOf(task: ImageTask, tree: ImageTree, layout: ProcessLayout): { slot: number; end: number } {
  const sharing = withMemory(tree.tasks, task);
  const slot = sharing
    .slice(0, sharing.indexOf(task))
    .reduce((sum, { threads }) => sum + slotOf(layout, threads.length), 0);
  return { slot, end: slot + slotOf(layout, task.threads.length) };
}

/** What its parent gets when a process ends. */
function exitSignal({ threads }: ImageTask): number {
  return threads[0]!.core.tc?.exit_signal ?? SIGCHLD;
}

/** The process that all others come from: it shares our memory until it executes a program that is nothing but scratch memory. */
function bareRoot(tree: ImageTree, hole: Hole, how: RootOptions): Made {
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

function bare(task: ImageTask, tree: ImageTree, hole: Hole, tracee: Tracee, inner: boolean): Made {
  const { pid } = tracee;
  const { slot, end } = slotsOf(task, tree, hole.layout);
  const scratch = new Scratch(tracee.pid, hole.address, scratchSize(end), endSignal(task));
  scratch.install();
  tracee.blockSignals(scratch.endSignal);
  return { task, pid, inner, scratch, leader: new Remote(tracee, scratch, LEADER, slot), slot, layout: hole.layout };
}

/** It ends with us: by what it asks for itself until it is traced, and by PTRACE_O_EXITKILL if it was seized before it could. */
function cloneRoot(pid: number, { haste, sibling, inner, takeAll }: RootOptions): number {
  const until = performance.now() + WHILE_SAVED;
  for (let left = ATTEMPTS; ; ) {
    try {
      const flags = CLONE_VM + CLONE_CLEAR_SIGHAND + (inner ? CLONE_NEWPID : 0);
      // A sibling ends with our signal, and would be told of the end of our parent.
      const how = sibling
        ? { flags: flags + CLONE_PARENT, exit_signal: 0 }
        : { flags, exit_signal: SIGCHLD, pdeath_sig: SIGKILL };
      const clone = () => clone3({ ...how, set_tid: [pid] }).pid;
      return haste === undefined ? clone() : haste.calmly(clone);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      const taken = error.errno === Errno.EEXIST && left > 0;
      if (taken && isGoing(pid)) waitForId(left--);
      // It may be what the image is of, on the same machine. Whoever writes that does not know of us, and kills it without us too.
      else if (taken && performance.now() < until && mayBeSaved(pid) && takeAll()) waitForId(0);
      else throw notMade(error, pid);
    }
  }
}

/** In ms: as long as an action script at post-dump may take. */
const WHILE_SAVED = 60_000;

/** A signal to end batches with that does not wait for the process in the image. */
function endSignal(task: ImageTask): number {
  const queues = task.threads.flatMap(({ core }) => [core.tc?.signals_s, core.thread_core?.signals_p]);
  const waiting = new Set(
    queues.flatMap((queue) => (queue?.signals ?? []).map((each) => siginfo.read(each.siginfo).si_signo)),
  );
  return [SIGURG, SIGWINCH, SIGCHLD].find((signal) => !waiting.has(signal)) ?? SIGURG;
}
