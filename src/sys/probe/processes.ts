/** What making, changing and restoring processes needs. Children that are asked for here never come to be. */
import * as cap from '../../abi/capability.ts';
import { errnoName } from '../../abi/errno.ts';
import { KCMP_FILE } from '../../abi/kcmp.ts';
import {
  ARCH_MAP_VDSO_64,
  PR_SET_MM,
  PR_SET_MM_MAP_SIZE,
  PR_TIMER_CREATE_RESTORE_IDS,
  PR_TIMER_CREATE_RESTORE_IDS_GET,
  prctl_mm_map,
} from '../../abi/prctl.ts';
import * as sched from '../../abi/sched.ts';
import { SIGKILL } from '../../abi/signal.ts';
import { AF_INET, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_STREAM } from '../../abi/socket.ts';
import { TCP_REPAIR, TCP_REPAIR_OFF, TCP_REPAIR_ON } from '../../abi/tcp.ts';
import { __WALL } from '../../abi/wait.ts';
import { SyscallError } from '../../errors.ts';
import { capabilities as heldCapabilities } from '../capability.ts';
import { clone3 } from '../clone.ts';
import { close } from '../files.ts';
import { io_uring_setup } from '../io_uring.ts';
import { cgroup2Mount, readMountinfo } from '../mountinfo.ts';
import { arch_prctl, kcmp, kill, prctl, wait4 } from '../process.ts';
import { Region } from '../region.ts';
import { setsockopt, socket } from '../socket.ts';
import { type Answer, no, partly, unknown, yes } from './answer.ts';
import { allows, list, read } from './files.ts';

/** What each privilege is needed for. */
const NEEDED = [
  ['CAP_SYS_PTRACE', cap.CAP_SYS_PTRACE, 'processes of others'],
  ['CAP_CHECKPOINT_RESTORE', cap.CAP_CHECKPOINT_RESTORE, 'process ids'],
  ['CAP_SYS_ADMIN', cap.CAP_SYS_ADMIN, 'namespaces, seccomp'],
  ['CAP_NET_ADMIN', cap.CAP_NET_ADMIN, 'TCP connections'],
  ['CAP_DAC_OVERRIDE', cap.CAP_DAC_OVERRIDE, 'files of others'],
  ['CAP_CHOWN', cap.CAP_CHOWN, 'owners of files'],
  ['CAP_FOWNER', cap.CAP_FOWNER, 'modes of files'],
  ['CAP_SETUID', cap.CAP_SETUID, 'credentials'],
  ['CAP_SETGID', cap.CAP_SETGID, 'credentials'],
  ['CAP_SETPCAP', cap.CAP_SETPCAP, 'bounding sets'],
  ['CAP_KILL', cap.CAP_KILL, 'signals to others'],
  ['CAP_SYS_NICE', cap.CAP_SYS_NICE, 'priorities'],
  ['CAP_IPC_LOCK', cap.CAP_IPC_LOCK, 'locked memory'],
  ['CAP_SYS_BOOT', cap.CAP_SYS_BOOT, 'kexec'],
  ['CAP_SYS_RAWIO', cap.CAP_SYS_RAWIO, '/dev/mem'],
  ['CAP_SYS_MODULE', cap.CAP_SYS_MODULE, 'drivers for preserved memory'],
] as const;

export function capabilities(): Answer {
  const held = heldCapabilities().effective;
  const missing = NEEDED.filter(([, bit]) => ((held >> BigInt(bit)) & 1n) === 0n);
  const who = `user id ${process.geteuid!()}`;
  const shared = /^\s*0\s+0\s+4294967295$/.test(read('/proc/self/uid_map').text ?? '');
  const where = shared ? '' : ', in a user namespace of its own';
  if (missing.length === 0) {
    if (shared) return yes(`${who} with all privileges that are needed`);
    return partly(`${who} with all privileges${where}`, 'kexec and /dev/mem need the initial user namespace');
  }
  const remedy = 'run as root, outside of a container';
  if (missing.length === NEEDED.length) return no(`${who}${where}, without any of the privileges needed`, remedy);
  return partly(`${who}${where}, without ${missing.map(([name, , use]) => `${name} (${use})`).join(', ')}`, remedy);
}

/** Asks for a child with the process id of this process: EEXIST from a kernel that would have given another one. */
export function cloneSetTid(): Answer {
  const answered = tryClone(0, [process.pid]);
  const tried = `clone3 with set_tid of a process id that is taken: ${answered}`;
  if (answered === 'EEXIST') return yes(tried);
  if (answered === 'EPERM') return no(tried, 'run with CAP_CHECKPOINT_RESTORE (as root)');
  if (answered === 'ENOSYS') return no(tried, 'a kernel with clone3, not hidden by a seccomp filter');
  return no(tried, 'a kernel whose clone3 knows set_tid');
}

const NAMESPACES = {
  pid: sched.CLONE_NEWPID,
  mnt: sched.CLONE_NEWNS,
  net: sched.CLONE_NEWNET,
  ipc: sched.CLONE_NEWIPC,
  uts: sched.CLONE_NEWUTS,
  user: sched.CLONE_NEWUSER,
  time: sched.CLONE_NEWTIME,
  cgroup: sched.CLONE_NEWCGROUP,
};

/**
 * Asks for a child in a new namespace of each kind, with a process id that is taken: its namespaces are made, then its
 * id is refused with EEXIST (copy_process() in kernel/fork.c), and nothing is left.
 */
export function namespaces(): Answer {
  const there = list('/proc/self/ns');
  const kinds = Object.entries(NAMESPACES);
  const absent = kinds.filter(([kind]) => !there.includes(kind)).map(([kind]) => kind);
  const refused = kinds
    .filter(([kind]) => !absent.includes(kind))
    .map(([kind, flag]) => [kind, tryClone(flag, kind === 'pid' ? [1, process.pid] : [process.pid])] as const)
    .filter(([, answered]) => answered !== 'EEXIST');
  const parts: string[] = [];
  if (absent.length > 0) parts.push(`not in this kernel: ${absent.join(', ')}`);
  for (const answered of new Set(refused.map(([, each]) => each))) {
    const which = refused.filter(([, each]) => each === answered).map(([kind]) => kind);
    parts.push(`clone3 into a new one answers ${answered}: ${which.join(', ')}`);
  }
  if (parts.length === 0) return yes(`clone3 can make new ones: ${Object.keys(NAMESPACES).join(', ')}`);
  const remedy = 'run as root; see user.max_*_namespaces; a kernel with CONFIG_NAMESPACES and CONFIG_TIME_NS';
  return absent.length + refused.length === kinds.length
    ? no(parts.join('; '), remedy)
    : partly(parts.join('; '), remedy);
}

/** @returns the name of the errno; a child that was made against all expectation is ended */
function tryClone(flags: number, set_tid: readonly number[]): string {
  try {
    const { pid } = clone3({ flags: flags + sched.CLONE_VM, exit_signal: 0, pdeath_sig: SIGKILL, set_tid });
    kill({ pid, sig: SIGKILL });
    wait4({ pid, wstatus: 0, options: __WALL, rusage: 0 });
    return 'a child';
  } catch (error) {
    if (error instanceof SyscallError) return error.errnoName;
    throw error;
  }
}

/** A cgroup below the root of the cgroup2 mount with cgroup.freeze in it: the root itself has none. */
export function cgroupFreezer(): Answer {
  const mount = cgroup2Mount(readMountinfo('self'))?.mountPoint;
  if (mount === undefined) return no('no cgroup2 is mounted', 'mount -t cgroup2 none /sys/fs/cgroup');
  const own = /^0::(\/.*)$/m.exec(read('/proc/self/cgroup').text ?? '')?.[1] ?? '/';
  const candidates = [own, ...list(mount).map((name) => `/${name}`)].map((path) => `${mount}${path}/cgroup.freeze`);
  const found = candidates.find((path) => allows(path, 'exist'));
  if (found !== undefined) {
    if (allows(found, 'write')) return yes(found);
    return partly(`${found} exists but may not be written`, 'run as root');
  }
  const reason = `${mount} is mounted, but has no cgroup below its root to look into`;
  return unknown(reason, allows(mount, 'write') ? 'make a cgroup in it (tideover makes its own)' : 'run as root');
}

export function kcmpFiles(): Answer {
  const pid = process.pid;
  const result = kcmp.attempt({ pid1: pid, pid2: pid, type: KCMP_FILE, idx1: 0, idx2: 0 });
  if (result === 0) return yes('kcmp finds that standard input is standard input');
  if (errnoName(-result) === 'EBADF') return yes('kcmp looks for descriptors (standard input is closed)');
  return no(`kcmp: ${errnoName(-result)}`, 'a kernel with CONFIG_KCMP=y, not hidden by a seccomp filter');
}

/** PR_SET_MM_MAP_SIZE sets nothing: it tells the size of the struct. */
export function setMmMap(): Answer {
  const size = new Region(4096);
  const request = { option: PR_SET_MM, arg2: PR_SET_MM_MAP_SIZE, arg3: size.address, arg4: 0, arg5: 0 };
  const result = prctl.attempt(request);
  const told = size.view.getUint32(0, true);
  size[Symbol.dispose]();
  if (result < 0) return no(`prctl(PR_SET_MM): ${errnoName(-result)}`, 'a kernel with CONFIG_CHECKPOINT_RESTORE=y');
  const reason = `prctl_mm_map has ${told} bytes`;
  return told === prctl_mm_map.size ? yes(reason) : partly(reason, `report this: ${prctl_mm_map.size} were expected`);
}

/** EEXIST where the call exists, because this process has a vdso already. */
export function mapVdso(): Answer {
  const result = arch_prctl.attempt({ code: ARCH_MAP_VDSO_64, addr: 0 });
  const tried = `arch_prctl(ARCH_MAP_VDSO_64): ${result < 0 ? errnoName(-result) : 'mapped'}`;
  if (result >= 0 || errnoName(-result) === 'EEXIST') return yes(tried);
  return no(tried, 'a kernel with CONFIG_CHECKPOINT_RESTORE=y (without it the vdso is moved by mremap)');
}

export function timerIds(): Answer {
  const request = { arg2: PR_TIMER_CREATE_RESTORE_IDS_GET, arg3: 0, arg4: 0, arg5: 0 };
  const result = prctl.attempt({ option: PR_TIMER_CREATE_RESTORE_IDS, ...request });
  if (result >= 0) return yes('prctl(PR_TIMER_CREATE_RESTORE_IDS) exists');
  const reason = `prctl(PR_TIMER_CREATE_RESTORE_IDS): ${errnoName(-result)}`;
  return no(reason, 'none needed: timers are made and deleted until the id is reached');
}

/** On a socket of our own that is never connected. */
export function tcpRepair(): Answer {
  const fd = socket({ domain: AF_INET, type: SOCK_STREAM | SOCK_CLOEXEC, protocol: 0 });
  const set = (value: number) => {
    const optval = new Uint8Array(Int32Array.of(value).buffer);
    return setsockopt.attempt({ sockfd: fd, level: IPPROTO_TCP, optname: TCP_REPAIR, optval, optlen: 4 });
  };
  const result = set(TCP_REPAIR_ON);
  if (result === 0) set(TCP_REPAIR_OFF);
  close({ fd });
  if (result === 0) return yes('a socket can be put into repair mode');
  const tried = `setsockopt(TCP_REPAIR): ${errnoName(-result)}`;
  if (errnoName(-result) === 'EPERM') return no(tried, 'run with CAP_NET_ADMIN (as root)');
  return no(tried, 'a kernel with TCP_REPAIR');
}

/** Parameters at NULL: EFAULT from a kernel that would have made a ring. */
export function ioUring(): Answer {
  const answered = errnoName(-io_uring_setup.attempt({ entries: 1, params: 0 }));
  const tried = `io_uring_setup with parameters at NULL: ${answered}`;
  if (answered === 'EFAULT') return yes(tried);
  const remedy = 'see kernel.io_uring_disabled and CONFIG_IO_URING; only programs that use io_uring need it';
  return no(tried, remedy);
}
