/** How images get onto a disk: with their blocks given beforehand, and made to last by one call for all of them. */

import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../abi/fcntl.ts';
import type { DirectoryOptions } from '../image/directory.ts';
import { close, fallocate, openat, syncfs } from '../sys/files.ts';

export const saveToDisk: Pick<DirectoryOptions, 'syncfs' | 'fallocate'> = {
  /** 1400 small files: 24 ms, against 496 with fsync(2) of each. */
  syncfs(directory) {
    const flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    const fd = openat({ dirfd: AT_FDCWD, pathname: directory, flags, mode: 0 });
    try {
      syncfs({ fd });
    } finally {
      close({ fd });
    }
  },

  /** Says at once that there is no room. Not every file system can do it; there, writing says it. */
  fallocate(fd, len) {
    const args = { fd, mode: FALLOC_FL_KEEP_SIZE, offset: 0, len };
    const result = fallocate.attempt(args);
    if (result < 0 && result !== -Errno.EOPNOTSUPP) throw fallocate.error(args, result);
  },
};

/** Gives a part of a file back to its disk: it reads as zeros. @throws SyscallError EOPNOTSUPP where the file system cannot */
export function punchHole(fd: number, offset: number, len: number): void {
  fallocate({ fd, mode: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len });
}
