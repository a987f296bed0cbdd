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
import { kill, prlimit64 } from '../sys/process.ts';
import { readMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { readStatus } from '../sys/stat.ts';
import {
  type OwnAttributes,
  ownAttributes,
  type ProcFiles,
  restoreLoginUid,
  restoreProcFiles,
  saveProcFiles,
} from './attributes.ts';
import { cgroupsOf } from './cgroups.ts';
import { cloneAll, newestThreads } from './cloning.ts';
import { credentialsOf, restoreCredentials, sameCredentials } from './credentials.ts';
import { Doorstep } from './doorstep.ts';
import { kindOfType } from './files/kinds.ts';
import { restoreLock } from './files/locks.ts';
import { restoreLimits } from './limits.ts';
import type { Made } from './made.ts';
import { restoreDumpable } from './mm.ts';
import { interrupted, restoreGeneral, restoreXstate } from './registers.ts';
import { lend, Remote } from './remote.ts';
import type { Restoring } from './restoring.ts';
import { slotOf } from './scratch.ts';
import { restoreCommonFilters, restoreSeccomp } from './seccomp.ts';
import { firstWithMemory } from './sharing.ts';
import { restoreActions, restorePending } from './signals.ts';
import type { Spaces } from './space.ts';
import { restoreParentDeathSignal, restoreThread } from './thread.ts';
import { restoreTimers } from './timers.ts';
import { expectStop, Tracee } from './tracee.ts';
import { goOnWaiting } from './waits.ts';

/** A process with all its threads. */
export interface Rebuilt extends Made {
  readonly remotes: readonly Remote[];
}

/** What all processes have from this one, as they are made by it. */
export interface Own {
  readonly attributes: OwnAttributes;
  readonly procFiles: ProcFiles;
  readonly limits: ReturnType<typeof ownLimits>;
  readonly credentials: ReturnType<typeof credentialsOf>;
  /** As cgroupsOf() has them. */
  readonly groups: ReadonlySet<string>;
}

export function whatIsOurs(): Own {
  return {
    attributes: ownAttributes(),
    procFiles: saveProcFiles('self'),
    limits: ownLimits(),
    credentials: credentialsOf(readStatus(process.pid)),
    groups: new Set(cgroupsOf('self')),
  };
}

/** Signal actions and the table of descriptors, which the first of those that share one gets. @param keep see lend() */
export function begin({ task, leader }: Made, restoring: Restoring, keep: number): void {
  leader.reserve(70, 8192);
  restoreActions(leader, task.threads[0]!.core.tc!.sigactions);
  if (restoring.first(`table ${task.ids!.files_id}`)) installDescriptors(leader, task, restoring, keep);
  leader.start();
}

/** What can only be when the tables are there, and all threads. @param keep descriptor of ours that it had until then */
export function rebuild(made: Made, restoring: Restoring, own: Own, keep: number): Rebuilt {
  const { task, leader } = made;
  const core = task.threads[0]!.core;
  const tc = core.tc!;
  leader.reserve(1, 0);
  leader.attempt(NR.close, keep);
  for (const { fd, id, type } of task.descriptors) {
    const { finish } = kindOfType(type) ?? {};
    if (finish === undefined) continue;
    leader.reserve(1000, 64 * 1024);
    finish(restoring.entry(id), fd, leader, restoring);
  }
  for (const lock of restoring.locks) if (lock.pid === task.pid) restoreLock(leader, lock, restoring);
  const cores = task.threads.map((thread) => thread.core);
  const common = restoreCommonFilters(leader, cores, restoring.filters);
  const remotes = [leader, ...makeThreads(made)];
  leader.reserve(50, 4096);
  restoreProcFiles(leader, tc, own.procFiles);
  if (tc.personality !== 0) leader.call(NR.personality, tc.personality);
  for (let bits = tc.membarrier_registration_mask ?? 0, bit = 1; bits !== 0; bits &= ~bit, bit *= 2) {
    if ((bits & bit) !== 0) leader.call(NR.membarrier, bit, 0, 0);
  }
  if (tc.child_subreaper) leader.call(NR.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  restoreLimits(leader, tc.rlimits?.rlimits ?? [], own.limits);
  for (const [i, remote] of remotes.entries()) {
    const { core: state } = task.threads[i]!;
    remote.reserve(200, 16 * 1024);
    restoreThread(remote, state, own.attributes);
    restoreSeccomp(remote, state, restoring.filters, common);
    const { creds } = state.thread_core!;
    if (creds !== undefined && !sameCredentials(creds, own.credentials)) {
      restoreCredentials(remote, creds, own.credentials);
    }
    if (i === 0) restoreDumpable(remote, task.mm!);
    restoreParentDeathSignal(remote, state);
  }
  const ids = remotes.map((remote) => remote.call(NR.gettid));
  Remote.startAll(remotes);
  Remote.finishAll(remotes);
  for (const [i, remote] of remotes.entries()) {
    const { tid, core: state } = task.threads[i]!;
    const id = remote.result(ids[i]!);
    if (id !== tid) throw new PartialError('restore', `thread ${id} was taken for thread ${tid}`);
    restorePending(remote, task.pid, tid, state.thread_core?.signals_p?.signals ?? [], false);
  }
  Remote.startAll(remotes);
  restorePending(leader, task.pid, task.pid, tc.signals_s?.signals ?? [], true);
  leader.start();
  return { ...made, remotes };
}

/** Timers begin to run. */
export function beginTimers({ task, leader }: Rebuilt): void {
  const { timers } = task.threads[0]!.core.tc!;
  if (timers !== undefined) restoreTimers(leader, timers);
  leader.start();
}

/** Registers and masks are set. @param elapsed milliseconds for which the clocks of the process go on already */
export function leave({ task, remotes }: Rebuilt, elapsed: number): void {
  /** Most threads wait at the same place. */
  const found = new Map<number, Uint8Array>();
  const codeOf = (pid: number, address: number) => {
    const code = found.get(address) ?? codeAt(pid, address);
    found.set(address, code);
    return code;
  };
  for (const [i, remote] of remotes.entries()) {
    const { core } = task.threads[i]!;
    const registers = restoreGeneral(core.thread_info!);
    const left = core.thread_core?.attributes?.call_left;
    remote.finish();
    if (left !== undefined) goOnWaiting(remote, registers, Math.max(1, left - 1e6 * elapsed));
    else if (registers.number('orig_rax') >= 0)
      interrupted(registers, codeOf(remote.scratch.pid, registers.number('rip')));
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
export function clear(
  processes: readonly Rebuilt[],
  tree: ImageTree,
  hole: { address: number; size: number },
  spaces: Spaces,
): void {
  const doorsteps: { doorstep: Doorstep; pid: number; tracee: Tracee }[] = [];
  try {
    for (const { task, pid, leader } of processes) {
      if (firstWithMemory(tree.tasks, task) !== task) continue;
      const doorstep = new Doorstep(pid, spaces.vdsoOf(task));
      doorsteps.push({ doorstep, pid, tracee: leader.tracee });
      doorstep.begin(leader.tracee, NR.munmap, hole.address, hole.size);
    }
    for (const { doorstep, tracee } of doorsteps) doorstep.cross(tracee);
    for (const { doorstep, pid, tracee } of doorsteps) {
      if (doorstep.end(tracee) !== 0) throw new PartialError('restore', `scratch memory stays in process ${pid}`);
    }
  } finally {
    for (const { doorstep } of doorsteps) doorstep[Symbol.dispose]();
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

/** Login uid, working directory, root and umask: while all processes, also those that share a table of descriptors, still have `keep`. */
export function standIn({ leader, task }: Made, restoring: Restoring, own: Own, keep: number): void {
  restoreLoginUid(leader, task.threads[0]!.core.tc!, own.procFiles, keep);
  const { cwd_id, root_id, umask } = task.fs!;
  if (restoring.entry(root_id).reg?.name !== '/') {
    enterDirectory(leader, keep, restoring.open(root_id));
    leader.call(NR.chroot, leader.text(Buffer.from('.')));
  }
  enterDirectory(leader, keep, restoring.open(cwd_id));
  if (umask !== undefined) leader.call(NR.umask, umask);
  leader.start();
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
  leader.reserve(3, 0);
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

function makeThreads(one: Made): Remote[] {
  const { task, pid, scratch, leader, slot, layout } = one;
  const made: Remote[] = [];
  const wanted = task.threads.slice(1).map(({ tid }) => ({ id: tid, flags: THREAD, exit_signal: 0 }));
  cloneAll(
    one,
    wanted,
    // Each says its id later.
    (ids) => newestThreads(pid, ids.length),
    (i, here) => {
      expectStop(here, ({ event }) => event === PTRACE_EVENT_STOP);
      // Signals are blocked in it as in the one that made it.
      const tracee = Tracee.cloned(leader.tracee, here);
      made[i] = new Remote(tracee, scratch, layout.thread, slot + slotOf(layout, i + 1));
    },
  );
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
