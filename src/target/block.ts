/** Block devices that are written to as they are. What is on one is lost then, so it must be nothing, or what this has written before. */
import { closeSync, constants, openSync } from 'node:fs';
import { archivedFolder } from '../crash/archive.ts';
import { contentOf, readHead } from './identity.ts';

/** @throws Error that says why the device is not to be written to; the system's errors: EBUSY where it is mounted, swap or part of another */
export function openBlock(
  device: string,
  access: 'read' | 'write',
): { readonly fd: number; readonly held: string | undefined } {
  // Of a block device O_EXCL without O_CREAT means that nobody else has it: open(2).
  const fd = openSync(device, (access === 'read' ? constants.O_RDONLY : constants.O_RDWR) | constants.O_EXCL);
  try {
    const head = readHead(fd);
    const held = archivedFolder(head);
    // A file system may leave the first bytes as they were.
    if (contentOf(head) !== undefined || (held === undefined && head.some((byte) => byte !== 0))) {
      throw new Error('it holds something, a file system or a partition table');
    }
    return { fd, held };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
