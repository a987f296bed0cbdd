/** Threads that wait until a child has executed a program or ended: vfork(2). They cannot be stopped, and their child must not be. */
import { UnsupportedError } from '../errors.ts';
import { sleep } from '../sys/process.ts';
import { threadsOf } from './freeze.ts';
import { inVfork } from './invfork.ts';

/** Milliseconds between two looks. */
const PAUSE = 2;

/**
 * Waits while processes run, so that none of them stands still meanwhile.
 *
 * @param tree lists the processes @param timeout in milliseconds @throws UnsupportedError where it takes longer
 */
export function afterVfork(tree: () => number[], timeout: number): void {
  const deadline = performance.now() + timeout;
  for (;;) {
    const waiting = tree().flatMap((pid) => waitingThreads(pid).map((tid) => ({ pid, tid })))[0];
    if (waiting === undefined) return;
    if (performance.now() > deadline) {
      throw new UnsupportedError({
        pid: waiting.pid,
        what: `thread ${waiting.tid}`,
        why: `it waits in vfork(2) for a child, and has for more than ${timeout / 1000} s`,
        remedy: 'try again when the child has executed its program, or with a longer --timeout',
      });
    }
    sleep(PAUSE * 1e6);
  }
}

function waitingThreads(pid: number): number[] {
  try {
    return threadsOf(pid).filter((tid) => inVfork(pid, tid));
  } catch {
    // It ended.
    return [];
  }
}
