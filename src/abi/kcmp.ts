/** Do two processes share a kernel object: include/uapi/linux/kcmp.h */
import { struct, u32 } from './struct.ts';

export const KCMP_FILE = 0;
export const KCMP_VM = 1;
export const KCMP_FILES = 2;
export const KCMP_FS = 3;
export const KCMP_SIGHAND = 4;
export const KCMP_IO = 5;
export const KCMP_SYSVSEM = 6;
export const KCMP_EPOLL_TFD = 7;

/** Which file of an epoll: `efd` is the epoll, `tfd` the descriptor it was added under, `toff` counts its namesakes. */
export const kcmp_epoll_slot = struct('kcmp_epoll_slot', 12, { efd: u32, tfd: u32, toff: u32 });
