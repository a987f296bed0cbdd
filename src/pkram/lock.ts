/** One user of a medium at a time, by flock(2): the lock goes with the one who holds it, however he ends. */
import * as fs from 'node:fs';
import { Errno } from '../abi/errno.ts';
import { LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN } from '../abi/fcntl.ts';
import { UnsupportedError } from '../errors.ts';
import { flock } from '../sys/files.ts';

/** Why a medium cannot be opened that another process has. */
export const IN_USE = 'another process has it open';

/**
 * Opens a file or device with its lock.
 *
 * @param how as open(2) of Node has it
 * @param alone or beside others who only read
 * @returns a descriptor
 * @throws UnsupportedError where another one has it
 */
export function openLocked(path: string, how: string | number, alone: boolean): number {
  const fd = fs.openSync(path, how, 0o600);
  const lock = { fd, operation: (alone ? LOCK_EX : LOCK_SH) | LOCK_NB };
  const got = flock.attempt(lock);
  if (got === 0) return fd;
  fs.closeSync(fd);
  if (got !== -Errno.EAGAIN) throw flock.error(lock, got);
  throw new UnsupportedError({
    what: `preserved memory in ${path}`,
    why: IN_USE,
    remedy: 'wait until the other process is done with it, or end it',
  });
}

/** Gives the lock of a descriptor up, which stays open. */
export function unlock(fd: number): void {
  flock({ fd, operation: LOCK_UN });
}
