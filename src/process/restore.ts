/**
 * Makes the processes of an image go on.
 *
 *     open the files -> make the tree -> for each process: mappings, contents, descriptors, threads -> registers -> let go
 *
 * The processes are tracees of this one until all of them are ready, and die with it: nothing half-restored stays.
 */
import { writeFileSync } from 'node:fs';
import { F_DUPFD, F_SETFD, FD_CLOEXEC, O_CLOEXEC } from '../abi/fcntl.ts';
import { ARCH_MAP_VDSO_64, PR_SET_CHILD_SUBREAPER } from '../abi/prctl.ts';
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
import { FormatError, PartialError, UnsupportedError } from '../errors.ts';
import { checkedStore } from '../image/checked.ts';
import * as area from '../image/messages/memory.ts';
import { TASK_STOPPED } from '../image/messages/task.ts';
import { MemoryImage, type VmaEntry } from '../image/pages.ts';
import type { ImageStore } from '../image/store.ts';
import { type ImageTask, type ImageTree, readTree } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { close, fcntl } from '../sys/files.ts';
import { readMaps } from '../sys/maps.ts';
import { kill, pidfd_open, prlimit64 } from '../sys/process.ts';
import { readStatus } from '../sys/stat.ts';
import { viewMemory } from '../sys/syscall.ts';
import { enterTime } from './clocks.ts';
import { credentialsOf, restoreCredentials, sameCredentials } from './credentials.ts';
import { Doorstep } from './doorstep.ts';
import { kindOfType } from './files/kinds.ts';
import { restoreLock } from './files/locks.ts';
import { restoreLimits } from './limits.ts';
import { restoreDumpable, restoreMm } from './mm.ts';
import { eachPart, fillMemory } from './pages.ts';
import { restoreGeneral, restoreXstate } from './registers.ts';
import { Remote } from './remote.ts';
import { Restoring } from './restoring.ts';
import { restoreActions, restorePending } from './signals.ts';
import { restoreParentDeathSignal, restoreThread } from './thread.ts';
import { restoreTimers } from './timers.ts';
import { expectStop, Tracee } from './tracee.ts';
import {
  addClone,
  findHole,
  killMade,
  type Made,
  makeChildren,
  makeGroups,
  makeTree,
  makeZombies,
  notMade,
} from './tree.ts';
import { finishVma, KERNEL_AREAS, restoreGuard, restoreUnplaced, restoreVma } from './vma.ts';

export interface RestoreOptions {
  /** They go on stopped, as by SIGSTOP. */
  readonly stopped: boolean;
  readonly shellJob: boolean;
}

export interface RestoreResult {
  /** Root of the tree, a child of this process. */
  readonly pid: number;
  readonly processes: number;
  readonly threads: number;
}

/**
 * Nothing goes on before all that was read is known to be what was written.
 *
 * @throws FormatError, VerifyError, UnsupportedError, SyscallError; PartialError where processes stay that could not be
 *   taken away
 */
export function restore(image: ImageStore, options: RestoreOptions): RestoreResult {
  const store = checkedStore(image);
  const tree = readTree(store);
  checkImage(tree, options);
  const restoring = new Restoring(store, tree);
  const made: Made[] = [];
  try {
    restoring.prepareShared();
    openEverything(tree, restoring);
    const keep = reserveNumber(tree);
    try {
      const hole = findHole(tree);
      made.push(...makeTree(tree, hole, keep));
      enterTime(made[0]!.leader, store);
      makeChildren(made[0]!, tree, hole, made);
      makeGroups(made);
      makeZombies(made);
      restoring.made();
      const live = made.filter(({ task }) => !task.isZombie);
      const processes = inImageOrder(live, store).map((one) => fill(one, restoring, keep, hole));
      for (const process of processes) finish(process, restoring, keep);
      store.finish();
      for (const process of processes) leave(process, hole);
      restoring[Symbol.dispose]();
      for (const process of processes) letGo(process, options);
    } finally {
      close({ fd: keep });
    }
    return {
      pid: tree.tasks[0]!.pid,
      processes: tree.tasks.length,
      threads: tree.tasks.reduce((sum, { threads }) => sum + threads.length, 0),
    };
  } catch (error) {
    killMade(made);
    throw error;
  } finally {
    restoring[Symbol.dispose]();
    for (const { scratch } of made) scratch[Symbol.dispose]();
  }
}

/** What can be refused before anything is made. */
function checkImage(tree: ImageTree, options: RestoreOptions): void {
  const pids = new Set(tree.tasks.map(({ pid }) => pid));
  if (tree.tasks.length === 0) {
    throw new FormatError({ file: fileName(images.PSTREE), field: 'entries', expected: 'a process', found: 'none' });
  }
  for (const { pid, sid } of tree.tasks) {
    if (options.shellJob || pids.has(sid)) continue;
    throw new UnsupportedError({
      what: `session ${sid}`,
      pid,
      why: 'its leader is not in the image',
      remedy: 'give --shell-job: it will be of the session and group of tideover',
    });
  }
}

/** All files that some process has, maps or stands in, so that what is missing is known before anything is made. */
function openEverything(tree: ImageTree, restoring: Restoring): void {
  for (const { mm, fs, descriptors, isZombie } of tree.tasks) {
    if (isZombie) continue;
    const ids = [
      ...descriptors.map(({ id }) => id),
      ...mm!.vmas.map(fileOf).filter((id) => id !== undefined),
      ...[mm!.exe_file_id, fs!.cwd_id, fs!.root_id],
    ];
    // Files about the processes themselves come with these.
    for (const id of ids) if (!restoring.entry(id).reg?.name.startsWith('/proc/')) restoring.open(id);
  }
}

/** The file behind a mapping, if any. */
function fileOf(vma: VmaEntry): number | undefined {
  return (vma.status & (area.VMA_FILE_PRIVATE | area.VMA_FILE_SHARED)) === 0 ? undefined : vma.shmid;
}

/**
 * A descriptor of this process that all restored ones have while they are made, under a number that none of them will use: by
 * it they take what else they need. It is the only one that is not closed on exec.
 */
function reserveNumber(tree: ImageTree): number {
  const used = new Set(tree.tasks.flatMap(({ descriptors }) => descriptors.map(({ fd }) => fd)));
  const self = pidfd_open({ pid: process.pid, flags: 0 });
  try {
    for (let from = 3; ; ) {
      const fd = fcntl({ fd: self, cmd: F_DUPFD, arg: from });
      if (!used.has(fd)) return fd;
      close({ fd });
      from = fd + 1;
    }
  } finally {
    close({ fd: self });
  }
}

/** Contents stand in the image in this order, and a stream is read once. */
function inImageOrder(made: readonly Made[], store: ImageStore): (Made & { readonly image: MemoryImage })[] {
  return made
    .map((one) => ({ ...one, image: new MemoryImage(store, one.task.pid) }))
    .sort((a, b) => a.image.runs.pagesId - b.image.runs.pagesId);
}

/** A process with all its threads. */
interface Filled extends Made {
  readonly remotes: readonly Remote[];
}

/** Adds the calls that bring a descriptor of ours into the process, as the argument of a call that is added next. */
function lend(remote: Remote, keep: number, fd: number): number {
  return remote.call(NR.pidfd_getfd, keep, fd, 0);
}

/** Mappings and what is in them. */
function fill(
  { task, scratch, leader, image }: Made & { image: MemoryImage },
  restoring: Restoring,
  keep: number,
  hole: { address: number; size: number },
): Filled {
  const { mm } = task;
  const vmas = mm!.vmas.filter((vma) => (vma.status & (KERNEL_AREAS | area.VMA_AREA_GUARD)) === 0);
  const filled = new Set<VmaEntry>();
  const rings = vmas.filter((vma) => isRing(vma, restoring));
  placeRings(leader, rings, restoring, keep, hole);
  for (const vma of vmas) {
    if (rings.includes(vma)) continue;
    leader.reserve(3, 0);
    const { runs } = image;
    const first = runs.first(vma.start);
    if (first < runs.length && runs.vaddr[first]! < vma.end) filled.add(vma);
    const behind = behindOf(vma, restoring);
    if (behind === undefined) {
      restoreVma(leader, vma, -1, filled.has(vma));
      continue;
    }
    const lent = lend(leader, keep, behind);
    const mapped = restoreVma(leader, vma, 0, filled.has(vma));
    const closed = leader.call(NR.close, 0);
    leader.passResult(lent, mapped, 4);
    leader.passResult(lent, closed, 0);
  }
  placeVdso(leader, mm!.vmas);
  leader.run();
  eachPart(image, (to, from, length) => {
    const kernels = mm!.vmas.find((vma) => to >= vma.start && to < vma.end);
    if (kernels !== undefined && (kernels.status & KERNEL_AREAS) !== 0) checkVdso(task.pid, kernels, to, from, length);
    else fillMemory(task.pid, to, from, length);
  });
  image.close();
  for (const vma of vmas) {
    leader.reserve(68, 0);
    finishVma(leader, vma, filled.has(vma));
  }
  for (const vma of mm!.vmas.filter(({ status }) => (status & area.VMA_AREA_GUARD) !== 0)) {
    leader.reserve(1, 0);
    restoreGuard(leader, vma);
  }
  leader.reserve(8, 8192);
  const lent = lend(leader, keep, restoring.open(mm!.exe_file_id));
  leader.run();
  restoreMm(leader, mm!, leader.result(lent));
  standIn(leader, task, restoring, keep);
  leader.run();
  return { task, scratch, leader, remotes: [leader] };
}

function isRing(vma: VmaEntry, restoring: Restoring): boolean {
  const file = fileOf(vma);
  return file !== undefined && restoring.entry(file).type === 'EXT';
}

/** While nothing else is there yet but the scratch memory. */
function placeRings(
  leader: Remote,
  rings: readonly VmaEntry[],
  restoring: Restoring,
  keep: number,
  hole: { address: number; size: number },
): void {
  const occupied = [{ start: hole.address, end: hole.address + hole.size }];
  for (const vma of rings) {
    leader.run();
    const lent = lend(leader, keep, restoring.open(vma.shmid));
    const mapped = restoreUnplaced(leader, vma, occupied);
    const closed = leader.call(NR.close, 0);
    leader.passResult(lent, mapped, 4);
    leader.passResult(lent, closed, 0);
    leader.run();
    if (leader.result(mapped) !== vma.start) {
      throw new UnsupportedError({
        what: 'io_uring',
        pid: leader.scratch.pid,
        why: `the kernel does not map it at 0x${vma.start.toString(16)}`,
        remedy: 'report it, with the kernel',
      });
    }
    occupied.push(vma);
  }
}

/** A descriptor of ours for what a mapping shows, or undefined for memory of its own. */
function behindOf(vma: VmaEntry, restoring: Restoring): number | undefined {
  if ((vma.status & area.VMA_ANON_SHARED) !== 0) return restoring.shared(vma.shmid);
  return fileOf(vma) === undefined ? undefined : restoring.open(vma.shmid);
}

/** The kernel's own pages are its own: it maps them where they were. */
function placeVdso(remote: Remote, vmas: readonly VmaEntry[]): void {
  const places = vmas.filter((vma) => (vma.status & (area.VMA_AREA_VDSO | area.VMA_AREA_VVAR)) !== 0);
  if (places.length === 0) return;
  remote.reserve(1, 0);
  remote.call(NR.arch_prctl, ARCH_MAP_VDSO_64, Math.min(...places.map(({ start }) => start)));
}

/**
 * Programs have addresses of functions in the vdso, and libraries keep them: it must be as it was.
 *
 * @param from where a part of the old one lies here, which was at `to` in the process
 */
function checkVdso(pid: number, vdso: VmaEntry, to: number, from: number, length: number): void {
  const here = readMaps('self').find(({ path }) => path === '[vdso]')!;
  const same =
    here.end - here.start === vdso.end - vdso.start &&
    Buffer.compare(viewMemory(from, length), viewMemory(here.start + to - vdso.start, length)) === 0;
  if (same) return;
  throw new UnsupportedError({
    what: 'vdso',
    pid,
    why: 'that of this kernel is another one, and calls cannot be led over to it yet',
    remedy: 'restore on the kernel on which the image was made',
  });
}

/** Everything but registers, and what must come last. */
function finish(made: Filled, restoring: Restoring, keep: number): void {
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
  for (const lock of restoring.locks) if (lock.pid === task.pid) restoreLock(leader, lock);
  leader.run();
  const remotes = [leader, ...makeThreads(made)];
  Object.assign(made, { remotes });
  if (tc.oom_score_adj !== undefined && tc.oom_score_adj !== 0) {
    writeFileSync(`/proc/${task.pid}/oom_score_adj`, `${tc.oom_score_adj}`);
  }
  if (tc.personality !== 0) leader.call(NR.personality, tc.personality);
  for (let bits = tc.membarrier_registration_mask ?? 0, bit = 1; bits !== 0; bits &= ~bit, bit *= 2) {
    if ((bits & bit) !== 0) leader.call(NR.membarrier, bit, 0, 0);
  }
  if (tc.child_subreaper) leader.call(NR.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  restoreLimits(leader, tc.rlimits?.rlimits ?? [], ownLimits());
  leader.run();
  const own = ownCredentials();
  for (const [i, remote] of remotes.entries()) {
    const { core: state } = task.threads[i]!;
    restoreThread(remote, state);
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
}

/** Working directory, root and umask. */
function standIn(leader: Remote, task: ImageTask, restoring: Restoring, keep: number): void {
  const { cwd_id, root_id, umask } = task.fs!;
  if (restoring.entry(root_id).reg?.name !== '/') {
    enterDirectory(leader, keep, restoring.open(root_id));
    leader.call(NR.chroot, leader.text(Buffer.from('.')));
  }
  enterDirectory(leader, keep, restoring.open(cwd_id));
  if (umask !== undefined) leader.call(NR.umask, umask);
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

function makeThreads({ task, leader, scratch }: Filled): Remote[] {
  const others = task.threads.slice(1);
  const made: Remote[] = [];
  for (const [i, { tid }] of others.entries()) {
    const index = addClone(leader, tid, THREAD, 0);
    leader.run();
    const result = leader.result(index);
    if (result !== tid) throw notMade(leader.error(index, result), tid);
    expectStop(tid, ({ event }) => event === PTRACE_EVENT_STOP);
    const tracee = Tracee.found(task.pid, tid);
    tracee.blockSignals(scratch.endSignal);
    made.push(new Remote(tracee, scratch, i + 1));
  }
  return made;
}

/** Timers begin to run, the scratch memory goes, registers and masks are set. */
function leave({ task, leader, remotes }: Filled, hole: { address: number; size: number }): void {
  const { timers } = task.threads[0]!.core.tc!;
  if (timers !== undefined) restoreTimers(leader, timers);
  leader.run();
  for (const [i, remote] of remotes.entries()) {
    const { core } = task.threads[i]!;
    restoreXstate(remote.tracee.tid, core.thread_info!);
    remote.tracee.registers = restoreGeneral(core.thread_info!);
    remote.tracee.sigmask = core.thread_core?.blk_sigset ?? core.tc?.blk_sigset ?? 0n;
    remote.tracee.putBack();
  }
  const doorstep = new Doorstep(task.pid, readMaps(task.pid));
  try {
    const result = doorstep.call(leader.tracee, NR.munmap, hole.address, hole.size);
    if (result !== 0) throw new PartialError('restore', `scratch memory stays in process ${task.pid}`);
  } finally {
    doorstep[Symbol.dispose]();
  }
}

function letGo({ task, remotes }: Filled, options: RestoreOptions): void {
  const { tc } = task.threads[0]!.core;
  if (options.stopped || tc!.task_state === TASK_STOPPED) {
    kill({ pid: task.pid, sig: tc!.stop_signo || 19 });
  }
  for (const { tracee } of remotes) tracee.letGo();
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
