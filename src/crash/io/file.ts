/** Dumps in files, of Node. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { Reader } from './reader.ts';

/** What comes next of a pipe or a file, as much as there is room for. @returns less only at the end */
export function readNext(fd: number, into: Uint8Array): number {
  let done = 0;
  while (done < into.length) {
    try {
      const count = readSync(fd, into, done, into.length - done, null);
      if (count === 0) break;
      done += count;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      pause();
    }
  }
  return done;
}

/** A pipe that somebody made non-blocking is asked again a little later. */
export function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
}

/**
 * @param nextData see Reader; of a descriptor. lseek(2) with SEEK_DATA is not among Node's functions, so who has it gives it.
 * @throws the system's error, with its errno's name as `code`
 */
export function openFile(path: string, nextData?: (fd: number, position: number) => number): Reader {
  const fd = openSync(path, 'r');
  let size: number;
  try {
    const stat = fstatSync(fd);
    size = stat.isFile() ? stat.size : Number.POSITIVE_INFINITY;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return {
    name: path,
    size,
    read(position, into) {
      let done = 0;
      while (done < into.length) {
        const count = tryRead(fd, into, done, position + done);
        if (count === 0) break;
        done += count;
      }
      return done;
    },
    ...(nextData !== undefined && { nextData: (position: number) => nextData(fd, position) }),
    close: () => closeSync(fd),
  };
}

/** /proc/vmcore and /proc/kcore answer with an error where memory cannot be read, a disk where it is damaged. */
function tryRead(fd: number, into: Uint8Array, from: number, position: number): number {
  try {
    // Node takes a number only below 2^53; beyond it those that are given are exact too: multiples of the page size.
    const at = Number.isSafeInteger(position) ? position : BigInt(position);
    return readSync(fd, into, from, into.length - from, at);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EIO' || code === 'EFAULT') return 0;
    throw error;
  }
}
