import { closeSync, fsyncSync, openSync } from 'node:fs';

/**
 * Has what was made, renamed or removed in a directory be on the disk. fsync(2): "Calling fsync() does not necessarily ensure that the
 * entry in the directory containing the file has also reached disk. For that an explicit fsync() on a file descriptor for the directory
 * is also needed." By NFS it is there when the server has answered (RFC 1813, 4.8), and a directory need not be opened for it: Linux 7.2
 * cannot where a server has no delegations for directories (nfs-ganesha 4).
 *
 * @throws the system's errors
 */
export function syncFolder(path: string): void {
  let folder: number;
  try {
    folder = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EREMOTEIO') return;
    throw error;
  }
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
