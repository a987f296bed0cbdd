/** Waiting for the root of a restored tree, which is a child of this process that Node knows nothing of. */
import { setTimeout } from 'node:timers/promises';
import { __WALL, WNOHANG } from '../abi/wait.ts';
import { wait4 } from '../sys/process.ts';

/** @returns when the process has ended and is reaped, or the signal is aborted */
export async function untilEnd(pid: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    if (wait4.attempt({ pid, wstatus: 0, options: __WALL | WNOHANG, rusage: 0 }) !== 0) return;
    await setTimeout(50);
  }
}
