/** Watching files: inotify(7). */
import * as abi from '../abi/inotify.ts';
import { cstring, flags, hex, int, syscall } from './syscall.ts';

/** @returns a descriptor */
export const inotify_init1 = syscall('inotify_init1', 294, { flags: flags(abi, /^IN_(CLOEXEC|NONBLOCK)$/) });
/** @returns the watch, a number that the kernel counts up */
export const inotify_add_watch = syscall('inotify_add_watch', 254, { fd: int, pathname: cstring, mask: hex });
export const inotify_rm_watch = syscall('inotify_rm_watch', 255, { fd: int, wd: int });
