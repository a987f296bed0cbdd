/** How images get onto a disk: with their blocks given beforehand, and made to last by one call for all of them. */

import { Errno } from '../abi/errno.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../abi/fcntl.ts';
import type { DirectoryOptions } from '../image/directory.ts';
import type { Writers } from '../image/partial.ts';
import { fallocate, pwrite64 } from '../sys/files.ts';
import { syncFileSystem } from '../sys/folder.ts';
import { readStat } from '../sys/stat.ts';
import { isGone } from './gone.ts';

/** By process id and the time of its start: another process that has the number now is not the writer. */
export const writers: Writers = {
  get self() {
    return `${process.pid}.${readStat(process.pid).starttime}`;
  },
  lives(writer) {
    const [pid, starttime] = writer.split('.').map(Number);
    try {
      const now = readStat(pid!);
      return now.state !== 'Z' && (starttime === undefined || now.starttime === starttime);
    } catch (error) {
      if (isGone(error)) return false;
      throw error;
    }
  },
};

export const saveToDisk: Pick<DirectoryOptions, 'syncfs' | 'fallocate' | 'occupy' | 'writers'> = {
  writers,
  syncfs: syncFileSystem,

  /** Says at once that there is no room. Not every file system can do it; there, writing says it. */
  fallocate(fd, len) {
    const args = { fd, mode: FALLOC_FL_KEEP_SIZE, offset: 0, len };
    const result = fallocate.attempt(args);
    if (result < 0 && result !== -Errno.EOPNOTSUPP) throw fallocate.error(args, result);
  },

  /**
   * By zeros. Getting memory for a page of a file takes longer than filling it, and ten times as long in a virtual machine that
   * gives back to its host what is free. In a tmpfs fallocate(2) has got it, but touched none of it.
   */
  occupy(fd, size) {
    for (let at = 0; at < size; ) {
      const count = Math.min(ZEROS, size - at);
      at += pwrite64({ fd, buf: zeros().subarray(0, count), count, offset: at });
    }
  },
};

const ZEROS = 256 << 10;
let made: Uint8Array | undefined;

function zeros(): Uint8Array {
  made ??= new Uint8Array(ZEROS);
  return made;
}

/** Gives a part of a file back to its disk: it reads as zeros. @throws SyscallError EOPNOTSUPP where the file system cannot */
export function punchHole(fd: number, offset: number, len: number): void {
  fallocate({ fd, mode: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len });
}
