/**
 * What a process may have that nothing can read, or nothing can make again, and that it would miss: it is refused. What concerns one
 * mapping or one descriptor is refused where those are saved.
 */
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { GETPID } from '../abi/ipc.ts';
import { KCMP_SYSVSEM } from '../abi/kcmp.ts';
import { PR_SCHED_CORE, PR_SCHED_CORE_GET } from '../abi/prctl.ts';
import {
  NT_386_IOPERM,
  PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG,
  PTRACE_GETREGSET,
  ptrace_sud_config,
} from '../abi/ptrace.ts';
import { iovec } from '../abi/uio.ts';
import { UnsupportedError } from '../errors.ts';
import { close, openat, pread64 } from '../sys/files.ts';
import { readProcText } from '../sys/proc.ts';
import { kcmp, prctl } from '../sys/process.ts';
import { ptrace } from '../sys/ptrace.ts';
import { Region } from '../sys/region.ts';
import { readStat } from '../sys/stat.ts';
import { listSysv, semctl } from '../sys/sysvipc.ts';
import { cgroupsOf } from './cgroups.ts';
import { threadsOf } from './freeze.ts';
import { endIdle, startIdle } from './idle.ts';

/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of include/linux/sched.h: what PR_SET_IO_FLUSHER sets. */
const IO_FLUSHER = 0x0008_0000 | 0x0010_0000;

/** Looks at a process that runs. @param tree process ids @throws UnsupportedError */
export function refuseRunning(pid: number, tree: ReadonlySet<number>): void {
  const refuse = (what: string, why: string, remedy: string) => new UnsupportedError({ pid, what, why, remedy });
  if (programClass(pid) !== ELFCLASS64) throw refuse32Bits(pid, 'program');
  if (mayUndo(pid, tree)) {
    throw refuse(
      'System V semaphores',
      'it uses SEM_UNDO, and nothing tells what is to be undone at its end',
      'let it work without SEM_UNDO (semop(2))',
    );
  }
  const label = labelOf(pid);
  if (label !== labelOf('self')) {
    throw refuse(
      `label ${label}`,
      'a security module gave it, and it would have that of tideover',
      'run tideover with that label',
    );
  }
  const groups = cgroupsOf(pid).join();
  for (const tid of threadsOf(pid).slice(1)) {
    if (cgroupsOf(`${pid}/task/${tid}`).join() === groups) continue;
    throw refuse(
      `control group of thread ${tid}`,
      'it is another one than that of its process',
      'put it where the process is',
    );
  }
  const cookie = new Uint8Array(8);
  const args = { option: PR_SCHED_CORE, arg2: PR_SCHED_CORE_GET, arg3: pid, arg4: 0, arg5: cookie };
  if (prctl.attempt(args) === 0 && cookie.some((byte) => byte !== 0)) {
    throw refuse(
      'core scheduling',
      'it shares a core only with chosen others (PR_SCHED_CORE), which cannot be made again',
      'start it without that',
    );
  }
  if ((readStat(pid).flags & IO_FLUSHER) === IO_FLUSHER) {
    throw refuse('PR_SET_IO_FLUSHER', 'it serves a block device or file system', 'leave this process out');
  }
}

/** What to say of what runs 32-bit code, in which ours cannot run. */
export function refuse32Bits(pid: number, what: string): UnsupportedError {
  return new UnsupportedError({ pid, what, why: 'it runs 32-bit code', remedy: 'leave this process out' });
}

/** The fifth byte of an ELF file. elf(5) */
const EI_CLASS = 4;
const ELFCLASS64 = 2;

function programClass(pid: number): number {
  const fd = openat({ dirfd: AT_FDCWD, pathname: `/proc/${pid}/exe`, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  try {
    room ??= new Region(8192);
    pread64({ fd, buf: room.address, count: 1, offset: EI_CLASS });
    return room.bytes[0]!;
  } finally {
    close({ fd });
  }
}

/** A process whose first thread has ended looks like one that has. @throws UnsupportedError where others of its threads go on */
export function refuseLeaderless(pid: number): void {
  const threads = threadsOf(pid).length - 1;
  if (threads === 0) return;
  throw new UnsupportedError({
    pid,
    what: 'a thread leader that has ended',
    why: `${threads} of its threads go on, and an ended leader cannot be made again`,
    remedy: 'let the first thread wait for the others (pthread_join(3)) instead of pthread_exit(3)',
  });
}

/** What SELinux, AppArmor or the like calls a process. */
function labelOf(pid: number | 'self'): string {
  try {
    return readProcText(`/proc/${pid}/attr/current`).replace(/[\0\n]/g, '');
  } catch {
    // There is no such module, or it has no labels.
    return '';
  }
}

/**
 * Whether something may be undone in semaphores when a process ends. Undo lists cannot be read. One that never used any has none,
 * as a process that has done nothing at all; but one that ever had threads has one in any case, and is believed to use it if
 * somebody in the tree was the last to change one of the semaphores.
 */
function mayUndo(pid: number, tree: ReadonlySet<number>): boolean {
  const sets = listSysv('sem');
  if (sets.length === 0) return false;
  const idle = startIdle();
  try {
    if (kcmp.attempt({ pid1: pid, pid2: idle, type: KCMP_SYSVSEM, idx1: 0, idx2: 0 }) <= 0) return false;
  } finally {
    endIdle(idle);
  }
  return sets.some(({ semid, nsems }) =>
    Array.from({ length: nsems! }, (_, semnum) => semctl.attempt({ semid: semid!, semnum, cmd: GETPID, arg: 0 })).some(
      (last) => tree.has(last),
    ),
  );
}

let room: Region | undefined;
const vector = new Uint8Array(iovec.size);

/** Looks at a thread that is stopped. @throws UnsupportedError */
export function refuseStopped(pid: number, tid: number): void {
  const refuse = (what: string, why: string, remedy: string) =>
    new UnsupportedError({ pid, what: `thread ${tid}: ${what}`, why, remedy });
  room ??= new Region(8192);
  const { size } = ptrace_sud_config;
  const config = { request: PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, pid: tid, addr: size, data: room.address };
  if (ptrace.attempt(config) === 0 && ptrace_sud_config.read(room.bytes).mode !== 0n) {
    throw refuse(
      'system calls that it handles itself (PR_SET_SYSCALL_USER_DISPATCH)',
      'ours would go to it too',
      'leave this process out',
    );
  }
  iovec.write({ iov_base: room.address, iov_len: room.size }, vector);
  if (ptrace.attempt({ request: PTRACE_GETREGSET, pid: tid, addr: NT_386_IOPERM, data: vector }) === 0) {
    throw refuse('input and output ports (ioperm(2))', 'they are of a device', 'leave this process out');
  }
}

/** What to say of a process that may not have memory which it can both write and execute, where code of ours runs. */
export function refuseExecutable(pid: number): UnsupportedError {
  return new UnsupportedError({
    pid,
    what: 'memory that is writable and executable',
    why: 'it has forbidden itself any (PR_SET_MDWE), or a security module has, and tideover needs some in it for a moment',
    remedy: 'start it without that (MemoryDenyWriteExecute= of systemd)',
  });
}
