/** Dumps in files, of Node. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { Reader } from './reader.ts';

/** @throws the system's error, with its errno's name as `code` */
export function openFile(path: string): Reader {
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
        const count = readSync(fd, into, done, into.length - done, position + done);
        if (count === 0) break;
        done += count;
      }
      return done;
    },
    close: () => closeSync(fd),
  };
}
