/** How processes end that were made: zombies in the way they did, and all of them where restoring fails. */
import { PR_GET_CHILD_SUBREAPER, PR_SET_CHILD_SUBREAPER } from '../abi/prctl.ts';
import { SIGCHLD } from '../abi/signal.ts';
import { timespec } from '../abi/time.ts';
import { NR } from '../abi/unistd.ts';
import { FormatError, PartialError } from '../errors.ts';
import { fileName, images } from '../image/types.ts';
import { prctl } from '../sys/process.ts';
import { cont } from '../sys/ptrace.ts';
import { threadsOf } from './freeze.ts';
import type { Made } from './made.ts';
import type { Remote } from './remote.ts';
import { expectEnd, reapEach } from './tracee.ts';

/** Lets those end that had ended, in the way they did. */
export function makeZombies(made: readonly Made[]): void {
  for (const { task, pid, leader } of made) {
    if (!task.isZombie) continue;
    const code = task.threads[0]!.core.tc!.exit_code;
    const signal = code & 0x7f;
    if (signal === 0) leader.call(NR.exit_group, (code >> 8) & 0xff);
    else leader.call(NR.kill, task.pid, signal);
    // Signals are blocked in it as in all; its last one is let through.
    leader.tracee.unblockSignals();
    leader.start();
    expectEnd(pid, (status) => {
      if (status.event === 0 && status.signal !== signal) throw doesNotKill(task.pid, code);
      cont(pid, status.event === 0 ? signal : 0);
    });
    leader.tracee.forget();
    const parent = made.find((each) => each.task.pid === task.ppid);
    if (parent !== undefined) dropChildSignal(parent.leader);
  }
}

/** Code that goes on behind its last signal comes to the end of the batch. */
function doesNotKill(pid: number, code: number): FormatError {
  const file = fileName(images.CORE, pid);
  return new FormatError({ file, field: 'tc.exit_code', expected: 'what a process ends by', found: `${code}` });
}

/** Takes the SIGCHLD back that a process got for a zombie; had it waited, the image has it. */
export function dropChildSignal(remote: Remote): void {
  const set = new Uint8Array(8);
  new DataView(set.buffer).setBigUint64(0, 1n << BigInt(SIGCHLD - 1), true);
  remote.attempt(NR.rt_sigtimedwait, remote.put(set), 0, remote.put(new Uint8Array(timespec.size)), set.length);
  remote.run();
}

/**
 * Has orphans of what is made become children of this process, so that ids are free again when what was made is taken away.
 *
 * @returns has it as it was
 */
export function reapOrphans(): () => void {
  const before = new Uint8Array(4);
  prctl({ option: PR_GET_CHILD_SUBREAPER, arg2: before, arg3: 0, arg4: 0, arg5: 0 });
  const set = (on: number) => prctl({ option: PR_SET_CHILD_SUBREAPER, arg2: on, arg3: 0, arg4: 0, arg5: 0 });
  set(1);
  return () => void set(before[0]!);
}

/**
 * Kills what was made and waits for it, so that nothing is left.
 *
 * @param cause why
 * @throws PartialError with the processes that stay all the same
 */
export function killMade(made: readonly Made[], cause: unknown): void {
  const threads = made.map(({ pid }) => {
    try {
      const all = threadsOf(pid);
      process.kill(pid, 'SIGKILL');
      return all;
    } catch {
      // It is gone already.
      return [pid];
    }
  });
  // As their tracer, and then as their parent, which is gone: see reapOrphans().
  const left = [...reapEach(threads.flat().reverse()), ...reapEach(made.map(({ pid }) => pid))];
  if (left.length === 0) return;
  const state = `${left.join(', ')} of the restored tree cannot be ended, and goes when the kernel lets it`;
  throw new PartialError('restore', state, { cause });
}
