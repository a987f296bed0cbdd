/**
 * Processes: wait4(2), waitid(2), kill(2), tgkill(2), rt_sigqueueinfo(2), pidfd_open(2) and its family, kcmp(2),
 * prctl(2), arch_prctl(2), credentials(7), setns(2), unshare(2), prlimit(2), sched_setattr(2), sigprocmask(2), futex(2).
 */
import * as futexAbi from '../abi/futex.ts';
import * as kcmpAbi from '../abi/kcmp.ts';
import * as pidfdAbi from '../abi/pidfd.ts';
import * as prctlAbi from '../abi/prctl.ts';
import * as resource from '../abi/resource.ts';
import * as sched from '../abi/sched.ts';
import * as signals from '../abi/signal.ts';
import { timespec } from '../abi/time.ts';
import * as wait from '../abi/wait.ts';
import { address, cstring, flags, hex, input, int, oneOf, output, syscall, word } from './syscall.ts';

const waitOptions = flags(wait, /^(__)?W/);
/** A signal by its name; 0 only asks whether one could be sent. */
export const signal = oneOf(signals, /^SIG[A-Z0-9]+$/);

/** @param wstatus 4 bytes, for waitStatus() @returns the id; 0 with WNOHANG when nothing has happened */
export const wait4 = syscall('wait4', 61, { pid: int, wstatus: output, options: waitOptions, rusage: output });
export const waitid = syscall('waitid', 247, {
  idtype: oneOf(wait, /^P_/),
  id: int,
  infop: output,
  options: waitOptions,
  rusage: output,
});

export const kill = syscall('kill', 62, { pid: int, sig: signal });
export const tgkill = syscall('tgkill', 234, { tgid: int, tid: int, sig: signal });
/** @param uinfo a siginfo, as it is to arrive; only the process itself may give an si_code from 0 up or SI_TKILL */
export const rt_sigqueueinfo = syscall('rt_sigqueueinfo', 129, { tgid: int, sig: signal, uinfo: input });
export const rt_tgsigqueueinfo = syscall('rt_tgsigqueueinfo', 297, { tgid: int, tid: int, sig: signal, uinfo: input });

/** @returns a descriptor, closed on exec @throws SyscallError ESRCH, EINVAL (not the leader of its threads) */
export const pidfd_open = syscall('pidfd_open', 434, { pid: int, flags: flags(pidfdAbi, /^PIDFD_(NONBLOCK|THREAD)$/) });
/** Duplicates another's descriptor into this process, closed on exec. @throws SyscallError EBADF, EPERM (ptrace access) */
export const pidfd_getfd = syscall('pidfd_getfd', 438, { pidfd: int, targetfd: int, flags: hex });
export const pidfd_send_signal = syscall('pidfd_send_signal', 424, {
  pidfd: int,
  sig: signal,
  info: input,
  flags: hex,
});

/**
 * Are two kernel objects one? @returns 0 the same; 1, 2 an order for sorting; 3 different without an order
 *
 * @throws SyscallError ENOSYS (kernel without CONFIG_KCMP), EPERM (ptrace access), EBADF, ESRCH
 */
export const kcmp = syscall('kcmp', 312, {
  pid1: int,
  pid2: int,
  type: oneOf(kcmpAbi, /^KCMP_/),
  idx1: word,
  idx2: word,
});

export const prctl = syscall('prctl', 157, {
  option: oneOf(
    prctlAbi,
    /^PR_(?!(SET_MM|CAP_AMBIENT|SET_VMA|TIMER_CREATE_RESTORE_IDS|SCHED_CORE|MCE_KILL|SPEC|TSC)_)/,
  ),
  arg2: word,
  arg3: word,
  arg4: word,
  arg5: word,
});
export const arch_prctl = syscall('arch_prctl', 158, {
  code: oneOf(prctlAbi, /^ARCH_/),
  addr: word,
});

export const getpid = syscall('getpid', 39, {});
export const gettid = syscall('gettid', 186, {});
export const getppid = syscall('getppid', 110, {});
export const getpgid = syscall('getpgid', 121, { pid: int });
export const getsid = syscall('getsid', 124, { pid: int });
export const setsid = syscall('setsid', 112, {});
export const setpgid = syscall('setpgid', 109, { pid: int, pgid: int });

/** Moves the calling thread only, and most kinds only while it shares nothing with other threads. */
export const setns = syscall('setns', 308, { fd: int, nstype: flags(sched, /^CLONE_NEW/) });
export const unshare = syscall('unshare', 272, { flags: flags(sched, /^CLONE_/) });

/** Of the calling thread alone, once it has unshared them (CLONE_FS). */
export const chroot = syscall('chroot', 161, { path: cstring });
export const fchdir = syscall('fchdir', 81, { fd: int });

/** @param new_limit an rlimit64, or 0 to leave it @param old_limit an rlimit64, or 0 */
export const prlimit64 = syscall('prlimit64', 302, {
  pid: int,
  resource: oneOf(resource, /^RLIMIT_/),
  new_limit: input,
  old_limit: output,
});
/** How many descriptors this process may have at a time. */
export function descriptorLimit(): number {
  const limit = resource.rlimit64.write({});
  prlimit64({ pid: 0, resource: resource.RLIMIT_NOFILE, new_limit: 0, old_limit: limit });
  return Number(resource.rlimit64.read(limit).rlim_cur);
}
/** Of one thread, or with 0 of the calling one. @returns 20 - nice */
export const getpriority = syscall('getpriority', 140, { which: int, who: int });
/** @param prio nice, -20 goes first */
export const setpriority = syscall('setpriority', 141, { which: int, who: int, prio: int });
export const sched_getattr = syscall('sched_getattr', 315, { pid: int, attr: output, size: int, flags: hex });
export const sched_setattr = syscall('sched_setattr', 314, { pid: int, attr: input, flags: hex });
export const ioprio_get = syscall('ioprio_get', 252, { which: int, who: int });
export const sched_setaffinity = syscall('sched_setaffinity', 203, { pid: int, cpusetsize: int, mask: input });
/** @returns bytes of the mask that were filled in */
export const sched_getaffinity = syscall('sched_getaffinity', 204, { pid: int, cpusetsize: int, mask: output });

/** A mask for sched_setaffinity() that has one processor. */
export function maskOf(processor: number): Uint8Array {
  const mask = new Uint8Array((processor >>> 3) + 1);
  mask[processor >>> 3] = 1 << (processor & 7);
  return mask;
}

/** Which processor the calling thread has at this moment, and its node, as u32. */
export const getcpu = syscall('getcpu', 309, { cpu: output, node: output, tcache: int });

/** Of the calling thread. @param set 8 bytes, as is `oldset` */
export const rt_sigprocmask = syscall('rt_sigprocmask', 14, {
  how: oneOf(signals, /^SIG_(BLOCK|UNBLOCK|SETMASK)$/),
  set: input,
  oldset: output,
  sigsetsize: int,
});

/** @param uaddr of an int @param timeout a timespec, or 0 @returns 0, when woken @throws SyscallError EAGAIN (it is not `val`), EINTR */
export const futex = syscall('futex', 202, {
  uaddr: address,
  futex_op: oneOf(futexAbi, /^FUTEX_WAIT/),
  val: int,
  timeout: input,
});

export const nanosleep = syscall('nanosleep', 35, { duration: input, rem: output });

/** Sleeps, and the whole thread with it; a signal's handler ends it early. */
export function sleep(nanoseconds: number): void {
  const duration = timespec.write({ tv_sec: Math.floor(nanoseconds / 1e9), tv_nsec: nanoseconds % 1e9 });
  nanosleep.attempt({ duration, rem: 0 });
}
