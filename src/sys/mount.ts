/** File systems as a whole: mount(2), umount(2), sync(2). */
import * as abi from '../abi/mount.ts';
import { cstring, flags, hex, input, syscall } from './syscall.ts';

/**
 * @param data bytes with a NUL at the end, or 0
 * @throws SyscallError EBUSY (a file is open for writing, on MS_RDONLY), EPERM, EINVAL
 */
export const mount = syscall('mount', 165, {
  source: cstring,
  target: cstring,
  filesystemtype: cstring,
  mountflags: flags(abi, /^MS_/),
  data: input,
});

/** @throws SyscallError EBUSY (a file is open), EINVAL (nothing is mounted there), EPERM */
export const umount2 = syscall('umount2', 166, { target: cstring, flags: hex });

/** Writes out all file systems and waits for it. */
export const sync = syscall('sync', 162, {});
