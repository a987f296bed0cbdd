/**
 * One process made anew, when its tree and its memory are there: where it stands, descriptors, threads, credentials, signals,
 * timers, registers.
 */
import { F_SETFD, FD_CLOEXEC, O_CLOEXEC } from '../abi/fcntl.ts';
import { PR_SET_CHILD_SUBREAPER } from '../abi/prctl.ts';
import { PTRACE_EVENT_STOP } from '../abi/ptrace.ts';
import { RLIMIT_RTTIME, rlimit64 } from '../abi/resource.ts';
import {
  CLONE_FILES,
  CLONE_FS,
  CLONE_PTRACE,
  CLONE_SIGHAND,
  CLONE_SYSVSEM,
  CLONE_THREAD,
  CLONE_VM,
} from '../abi/sched.ts';
import { NR } from '../abi/unistd.ts';
import { PartialError } from '../errors.ts';
import { TASK_STOPPED } from '../image/messages/task.ts';
import type { ImageTask, ImageTree } from '../image/tree.ts';
import { readMaps } from '../sys/maps.ts';
import { kill, prlimit64 } from '../sys/process.ts';
import { readMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { readStatus } from '../sys/stat.ts';
import { ownAttributes, restoreProcFiles } from './attributes.ts';
import { credentialsOf, restoreCredentials, sameCredentials } from './credentials.ts';
import { Doorstep } from './doorstep.ts';
import { kindOfType } from './files/kinds.ts';
import { restoreLock } from './files/locks.ts';
import { threadsOf } from './freeze.ts';
import { withInnerId } from './ids.ts';
import { restoreLimits } from './limits.ts';
import { restoreDumpable } from './mm.ts';
import { interrupted, restoreGeneral, restoreXstate } from './registers.ts';
import { Remote } from './remote.ts';
import type { Restoring } from './restoring.ts';
import { restoreCommonFilters, restoreSeccomp } from './seccomp.ts';
import { firstWithMemory } from './sharing.ts';
import { restoreActions, restorePending } from './signals.ts';
import { lend } from './space.ts';
import { restoreParentDeathSignal, restoreThread } from './thread.ts';
import { restoreTimers } from './timers.ts';
import { expectStop, Tracee } from './tracee.ts';
import { addClone, type Made, notMade } from './tree.ts';
import { goOnWaiting } from './waits.ts';

/** A process with all its threads. */
export interface Rebuilt extends Made {
  readonly remotes: readonly Remote[];
}

/** Everything but memory, registers, and what must come last. @param keep descriptor of ours that it has until then */
export function rebuild(made: Made, restoring: Restoring, keep: number): Rebuilt {
  const { task, leader } = made;
  const core = task.threads[0]!.core;
  const tc = core.tc!;
  leader.reserve(70, 8192);
  restoreActions(leader, tc.sigactions);
  leader.run();
  if (restoring.first(`table ${task.ids!.files_id}`)) installDescriptors(leader, task, restoring, keep);
  else leader.attempt(NR.close, keep);
  leader.run();
  for (const { fd, id, type } of task.descriptors) {
    leader.reserve(1000, 64 * 1024);
    kindOfType(type)?.finish?.(restoring.entry(id), fd, leader, restoring);
  }
  for (const lock of restoring.locks) if (lock.pid === task.pid) restoreLock(leader, lock, restoring);
  leader.run();
  const cores = task.threads.map((thread) => thread.core);
  const common = restoreCommonFilters(leader, cores, restoring.filters);
  leader.run();
  const remotes = [leader, ...makeThreads(made)];
  leader.reserve(8, 256);
  restoreProcFiles(leader, tc);
  if (tc.personality !== 0) leader.call(NR.personality, tc.personality);
  for (let bits = tc.membarrier_registration_mask ?? 0, bit = 1; bits !== 0; bits &= ~bit, bit *= 2) {
    if ((bits & bit) !== 0) leader.call(NR.membarrier, bit, 0, 0);
  }
  if (tc.child_subreaper) leader.call(NR.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  restoreLimits(leader, tc.rlimits?.rlimits ?? [], ownLimits());
  leader.run();
  const own = ownCredentials();
  const attributes = ownAttributes();
  for (const [i, remote] of remotes.entries()) {
    const { core: state } = task.threads[i]!;
    restoreThread(remote, state, attributes);
    restoreSeccomp(remote, state, restoring.filters, common);
    const { creds } = state.thread_core!;
    if (creds !== undefined && !sameCredentials(creds, own)) restoreCredentials(remote, creds, own);
    if (i === 0) restoreDumpable(remote, task.mm!);
    restoreParentDeathSignal(remote, state);
    remote.start();
  }
  for (const remote of remotes) remote.finish();
  for (const [i, remote] of remotes.entries()) {
    const { tid, core: state } = task.threads[i]!;
    restorePending(remote, task.pid, tid, state.thread_core?.signals_p?.signals ?? [], false);
    remote.run();
  }
  restorePending(leader, task.pid, task.pid, tc.signals_s?.signals ?? [], true);
  leader.run();
  return { ...made, remotes };
}

/** Timers begin to run, registers and masks are set. @param elapsed milliseconds for which the clocks of the process go on already */
export function leave({ task, leader, remotes }: Rebuilt, elapsed: number): void {
  const { timers } = task.threads[0]!.core.tc!;
  if (timers !== undefined) restoreTimers(leader, timers);
  leader.run();
  for (const [i, remote] of remotes.entries()) {
    const { core } = task.threads[i]!;
    const registers = restoreGeneral(core.thread_info!);
    const left = core.thread_core?.attributes?.call_left;
    if (left !== undefined) goOnWaiting(remote, registers, Math.max(1, left - 1e6 * elapsed));
    else if (registers.number('orig_rax') >= 0)
      interrupted(registers, codeAt(remote.scratch.pid, registers.number('rip')));
    restoreXstate(remote.tracee.tid, core.thread_info!);
    remote.tracee.registers = registers;
    remote.tracee.sigmask = core.thread_core?.blk_sigset ?? core.tc?.blk_sigset ?? 0n;
    remote.tracee.putBack();
  }
}

let room: Region | undefined;

/** The two bytes of an instruction that may be `syscall`; nothing where there is no code. */
function codeAt(pid: number, address: number): Uint8Array {
  room ??= new Region(4096);
  try {
    return room.bytes.slice(0, readMemory(pid, address, room.address, 2));
  } catch {
    return new Uint8Array(0);
  }
}

/** The scratch memory goes, when all that share it have left it. */
export function clear({ task, pid, leader }: Rebuilt, tree: ImageTree, hole: { address: number; size: number }): void {
  if (firstWithMemory(tree.tasks, task) !== task) return;
  const doorstep = new Doorstep(
    pid,
    readMaps(pid).find(({ path }) => path === '[vdso]'),
  );
  try {
    const result = doorstep.call(leader.tracee, NR.munmap, hole.address, hole.size);
    if (result !== 0) throw new PartialError('restore', `scratch memory stays in process ${pid}`);
  } finally {
    doorstep[Symbol.dispose]();
  }
}

/** Lets it go on, or stop. @param stopped also where it was running */
export function letGo({ task, pid, remotes }: Rebuilt, stopped: boolean): void {
  const { tc } = task.threads[0]!.core;
  if (stopped || tc!.task_state === TASK_STOPPED) {
    kill({ pid, sig: tc!.stop_signo || 19 });
  }
  for (const { tracee } of remotes) tracee.letGo();
}

/** Working directory, root and umask: while all processes, also those that share a table of descriptors, still have `keep`. */
export function standIn({ leader, task }: Made, restoring: Restoring, keep: number): void {
  const { cwd_id, root_id, umask } = task.fs!;
  if (restoring.entry(root_id).reg?.name !== '/') {
    enterDirectory(leader, keep, restoring.open(root_id));
    leader.call(NR.chroot, leader.text(Buffer.from('.')));
  }
  enterDirectory(leader, keep, restoring.open(cwd_id));
  if (umask !== undefined) leader.call(NR.umask, umask);
  leader.run();
}

function enterDirectory(leader: Remote, keep: number, fd: number): void {
  const lent = lend(leader, keep, fd);
  const entered = leader.call(NR.fchdir, 0);
  const closed = leader.call(NR.close, 0);
  leader.passResult(lent, entered, 0);
  leader.passResult(lent, closed, 0);
}

/** Brings all descriptors in, by ascending numbers: the kernel takes the lowest free one, which is then known. */
function installDescriptors(leader: Remote, task: ImageTask, restoring: Restoring, keep: number): void {
  leader.run();
  leader.call(NR.close_range, 0, keep - 1, 0);
  leader.call(NR.close_range, keep + 1, 0xffff_ffff, 0);
  const used = new Set([keep]);
  let lowest = 0;
  for (const { fd, id, flags } of [...task.descriptors].sort((a, b) => a.fd - b.fd)) {
    leader.reserve(3, 0);
    while (used.has(lowest)) lowest++;
    lend(leader, keep, restoring.open(id));
    const cloexec = (flags & FD_CLOEXEC) !== 0;
    if (lowest === fd) {
      if (!cloexec) leader.call(NR.fcntl, fd, F_SETFD, 0);
    } else {
      leader.call(NR.dup3, lowest, fd, cloexec ? O_CLOEXEC : 0);
      leader.call(NR.close, lowest);
    }
    used.add(fd);
  }
  leader.reserve(1, 0);
  leader.call(NR.close, keep);
}

const THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PTRACE;

function makeThreads({ task, pid, inner, leader, scratch, slot }: Made): Remote[] {
  const others = task.threads.slice(1);
  const made: Remote[] = [];
  for (const [i, { tid }] of others.entries()) {
    const index = addClone(leader, tid, THREAD, 0);
    leader.run();
    const result = leader.result(index);
    if (result !== tid) throw notMade(leader.error(index, result), tid);
    const here = inner ? withInnerId(threadsOf(pid), tid)! : tid;
    expectStop(here, ({ event }) => event === PTRACE_EVENT_STOP);
    const tracee = Tracee.found(pid, here);
    tracee.blockSignals(scratch.endSignal);
    made.push(new Remote(tracee, scratch, slot + i + 1));
  }
  return made;
}

function ownLimits() {
  return Array.from({ length: RLIMIT_RTTIME + 1 }, (_, resource) => {
    const limit = rlimit64.write({});
    prlimit64({ pid: 0, resource, new_limit: 0, old_limit: limit });
    const { rlim_cur, rlim_max } = rlimit64.read(limit);
    return { cur: rlim_cur, max: rlim_max };
  });
}

function ownCredentials() {
  return credentialsOf(readStatus(process.pid));
}
