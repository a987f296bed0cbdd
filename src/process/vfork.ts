/** Threads that wait until a child has executed a program or ended: vfork(2). They cannot be stopped, and their child must not be. */
import { CLONE_VFORK, clone_args } from '../abi/sched.ts';
import { NR } from '../abi/unistd.ts';
import { UnsupportedError } from '../errors.ts';
import { readProcText } from '../sys/proc.ts';
import { sleep } from '../sys/process.ts';
import { readMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { threadsOf } from './freeze.ts';

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

let scratch: Region | undefined;

/** By the call in which it is blocked, and for clone(2) its flags. */
function inVfork(pid: number, tid: number): boolean {
  const [call, first] = readProcText(`/proc/${pid}/task/${tid}/syscall`).trim().split(' ').map(Number);
  if (call === NR.vfork) return true;
  if (call === NR.clone) return (first! & CLONE_VFORK) !== 0;
  if (call !== NR.clone3) return false;
  scratch ??= new Region(4096);
  if (readMemory(pid, first!, scratch.address, clone_args.size) < 8) return false;
  return (Number(scratch.view.getBigUint64(clone_args.offsets.flags, true)) & CLONE_VFORK) !== 0;
}
