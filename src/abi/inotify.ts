/** Watches of files: include/uapi/linux/inotify.h */
import { O_CLOEXEC, O_NONBLOCK } from './fcntl.ts';

export const IN_CLOEXEC = O_CLOEXEC;
export const IN_NONBLOCK = O_NONBLOCK;
/** The file watched is gone: its last name, and its last descriptor. */
export const IN_DELETE_SELF = 0x400;
/** Of a symbolic link itself. */
export const IN_DONT_FOLLOW = 0x2000000;
