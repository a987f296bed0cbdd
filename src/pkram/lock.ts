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
  try {
    lock(fd, alone, path);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

/** Locks what is open, as openLocked() does. @param name for messages @throws UnsupportedError where another one has it */
export function lock(fd: number, alone: boolean, name: string): void {
  const args = { fd, operation: (alone ? LOCK_EX : LOCK_SH) | LOCK_NB };
  const got = flock.attempt(args);
  if (got === 0) return;
  if (got !== -Errno.EAGAIN) throw flock.error(args, got);
  throw new UnsupportedError({
    what: `preserved memory in ${name}`,
    why: IN_USE,
    remedy: 'wait until the other process is done with it, or end it',
  });
}

/** Gives the lock of a descriptor up, which stays open. */
export function unlock(fd: number): void {
  flock({ fd, operation: LOCK_UN });
}
