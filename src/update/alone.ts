/** One at a time changes the kernel, takes that back, or has trees go on: what one of them removes another may count on. */
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Errno } from '../abi/errno.ts';
import { LOCK_EX, LOCK_NB } from '../abi/fcntl.ts';
import { UnsupportedError } from '../errors.ts';
import { flock } from '../sys/files.ts';

/** Locked by whoever is at it. */
export const LOCK = '/run/tideover/update.lock';
/** In ms: one that was killed takes a moment to end. */
const PATIENCE = 20_000;

/**
 * Waits a moment for whoever else is at it, by flock(2): the lock goes with the one who holds it, however he ends.
 *
 * @param what for messages
 * @returns to be disposed of when it is done
 * @throws UnsupportedError where another one goes on with it
 */
export async function takeAlone(what: string, patience = PATIENCE): Promise<Disposable> {
  mkdirSync(dirname(LOCK), { recursive: true, mode: 0o700 });
  const fd = openSync(LOCK, 'a', 0o600);
  const lock = { fd, operation: LOCK_EX | LOCK_NB };
  try {
    for (const until = performance.now() + patience; ; await sleep(50)) {
      const got = flock.attempt(lock);
      if (got === 0) return { [Symbol.dispose]: () => closeSync(fd) };
      if (got !== -Errno.EAGAIN) throw flock.error(lock, got);
      if (performance.now() < until) continue;
      const why = 'another tideover update is under way';
      throw new UnsupportedError({ what, why, remedy: 'wait until it has ended, or end it' });
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
