/** Limits and use of resources: include/uapi/linux/resource.h and asm-generic/resource.h */
import { struct, u64 } from './struct.ts';

export const RLIMIT_CPU = 0;
export const RLIMIT_FSIZE = 1;
export const RLIMIT_DATA = 2;
export const RLIMIT_STACK = 3;
export const RLIMIT_CORE = 4;
export const RLIMIT_RSS = 5;
export const RLIMIT_NPROC = 6;
export const RLIMIT_NOFILE = 7;
export const RLIMIT_MEMLOCK = 8;
export const RLIMIT_AS = 9;
export const RLIMIT_LOCKS = 10;
export const RLIMIT_SIGPENDING = 11;
export const RLIMIT_MSGQUEUE = 12;
export const RLIMIT_NICE = 13;
export const RLIMIT_RTPRIO = 14;
export const RLIMIT_RTTIME = 15;

export const RLIM64_INFINITY = 0xffffffffffffffffn;

export const rlimit64 = struct('rlimit64', 16, { rlim_cur: u64, rlim_max: u64 });

/** For getpriority(2): a thread. */
export const PRIO_PROCESS = 0;
