/** Directories: what was made, renamed or removed in one is on the disk. */
import { closeSync, fsyncSync, openSync } from 'node:fs';

/** fsync(2) of a directory: "Calling fsync() does not necessarily ensure that the entry in the directory has also reached disk." */
export function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
