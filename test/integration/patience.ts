/** Waiting for what comes for certain: nothing but a hang takes longer than PATIENCE, however slow the machine is. */
import { rmdirSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

/** In milliseconds; a test file has twice as long. */
export const PATIENCE = 300_000;

/**
 * Waits until something is so.
 *
 * @param what is said where it does not become so
 */
export async function until(condition: () => boolean, what: string | (() => string)): Promise<void> {
  const deadline = performance.now() + PATIENCE;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(typeof what === 'string' ? what : what());
    await setTimeout(5);
  }
}

/** Removes control groups, the inner ones first: one has its processes until the last of them has come to its very end. */
export async function removeGroups(folders: readonly string[]): Promise<void> {
  for (const folder of folders) await until(() => isRemoved(folder), `${folder} has processes`);
}

function isRemoved(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EBUSY') return false;
    if (code === 'ENOENT') return true;
    throw error;
  }
}
