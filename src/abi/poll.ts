/** Waiting for descriptors: include/uapi/asm-generic/poll.h, and FIONREAD of asm-generic/ioctls.h */
import { i16, i32, struct } from './struct.ts';

export const POLLIN = 0x1;
export const POLLOUT = 0x4;
export const POLLERR = 0x8;
export const POLLHUP = 0x10;

export const pollfd = struct('pollfd', 8, { fd: i32, events: i16, revents: i16 });

/** How many bytes can be read at once. */
export const FIONREAD = 0x541b;
