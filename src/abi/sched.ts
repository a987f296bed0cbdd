/** Making processes, and scheduling: include/uapi/linux/sched.h and sched/types.h */
import { i32, struct, u32, u64n } from './struct.ts';

export const CLONE_VM = 0x100;
export const CLONE_FS = 0x200;
export const CLONE_FILES = 0x400;
export const CLONE_SIGHAND = 0x800;
export const CLONE_PIDFD = 0x1000;
export const CLONE_PTRACE = 0x2000;
export const CLONE_VFORK = 0x4000;
export const CLONE_PARENT = 0x8000;
export const CLONE_THREAD = 0x10000;
export const CLONE_NEWNS = 0x20000;
export const CLONE_SYSVSEM = 0x40000;
export const CLONE_SETTLS = 0x80000;
export const CLONE_PARENT_SETTID = 0x100000;
export const CLONE_CHILD_CLEARTID = 0x200000;
export const CLONE_UNTRACED = 0x800000;
export const CLONE_CHILD_SETTID = 0x1000000;
export const CLONE_NEWCGROUP = 0x2000000;
export const CLONE_NEWUTS = 0x4000000;
export const CLONE_NEWIPC = 0x8000000;
export const CLONE_NEWUSER = 0x10000000;
export const CLONE_NEWPID = 0x20000000;
export const CLONE_NEWNET = 0x40000000;
export const CLONE_IO = 0x80000000;
/** clone3(2) only: above the 32 bits of clone(2)'s flags, and of JavaScript's `|`. Flags with these are added. */
export const CLONE_CLEAR_SIGHAND = 0x100000000;
export const CLONE_INTO_CGROUP = 0x200000000;
/** For unshare(2), setns(2) and clone3(2): it lies in the bits of clone(2)'s exit signal. */
export const CLONE_NEWTIME = 0x80;

/** Fields are added at its end; the size that goes with it says how many there are. */
export const clone_args = struct('clone_args', 88, {
  flags: u64n,
  /** Address of an int, for CLONE_PIDFD. */
  pidfd: u64n,
  child_tid: u64n,
  parent_tid: u64n,
  exit_signal: u64n,
  stack: u64n,
  stack_size: u64n,
  tls: u64n,
  /** Address of an array of ids, innermost pid namespace first. */
  set_tid: u64n,
  /** Number of elements of `set_tid`. */
  set_tid_size: u64n,
  cgroup: u64n,
});

export const SCHED_NORMAL = 0;
export const SCHED_FIFO = 1;
export const SCHED_RR = 2;
export const SCHED_BATCH = 3;
export const SCHED_IDLE = 5;
export const SCHED_DEADLINE = 6;
export const SCHED_EXT = 7;
export const SCHED_RESET_ON_FORK = 0x40000000;
/** The same in sched_attr.sched_flags. */
export const SCHED_FLAG_RESET_ON_FORK = 0x1;

export const sched_attr = struct('sched_attr', 56, {
  size: u32,
  sched_policy: u32,
  sched_flags: u64n,
  sched_nice: i32,
  sched_priority: u32,
  sched_runtime: u64n,
  sched_deadline: u64n,
  sched_period: u64n,
  sched_util_min: u32,
  sched_util_max: u32,
});
