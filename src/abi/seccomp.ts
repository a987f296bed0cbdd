/** Filters on system calls: include/uapi/linux/seccomp.h, and struct sock_fprog of linux/filter.h */
import { struct, u16, u32, u64n } from './struct.ts';

export const SECCOMP_MODE_STRICT = 1;
export const SECCOMP_MODE_FILTER = 2;
export const SECCOMP_SET_MODE_FILTER = 1;
/** In the upper half of what a filter returns: the call goes to whoever listens. */
export const SECCOMP_RET_USER_NOTIF = 0x7fc0_0000;
export const SECCOMP_RET_ACTION_FULL = 0xffff_0000;

/** A program: the number of its instructions, of 8 bytes each, and where they are. */
export const sock_fprog = struct('sock_fprog', 16, { len: u16, __pad1: u16, __pad2: u32, filter: u64n });
