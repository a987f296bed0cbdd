/** Signals of a process and of its threads: actions, pending ones, alternate stacks. Masks go with the registers. */

import { PTRACE_PEEKSIGINFO_SHARED } from '../abi/ptrace.ts';
import * as abi from '../abi/signal.ts';
import { viewOf } from '../abi/struct.ts';
import { NR } from '../abi/unistd.ts';
import type { sa_entry, siginfo_entry, thread_sas_entry } from '../image/messages/task.ts';
import type { Value } from '../image/proto.ts';
import { peekSiginfo } from '../sys/ptrace.ts';
import { Region } from '../sys/region.ts';
import type { Remote } from './remote.ts';
import type { Tracee } from './tracee.ts';

type Action = Value<typeof sa_entry>;
type Siginfo = Value<typeof siginfo_entry>;
type AlternateStack = Value<typeof thread_sas_entry>;

const SIZEOF_SIGSET = 8;

/** Every signal whose action can be set, in the order of task_core_entry.sigactions. */
const settable = Array.from({ length: abi._NSIG }, (_, i) => i + 1).filter(
  (signal) => signal !== abi.SIGKILL && signal !== abi.SIGSTOP,
);

/** Asks for the actions. @returns what reads the answers once the batch has run */
export function saveActions(remote: Remote): () => Action[] {
  const { size } = abi.sigaction;
  const { address, bytes } = remote.room(size * settable.length);
  for (const [i, signal] of settable.entries()) {
    remote.call(NR.rt_sigaction, signal, 0, address + i * size, SIZEOF_SIGSET);
  }
  return () => {
    const view = viewOf(bytes);
    return settable.map((_, i) => actionAt(view, i * size));
  };
}

export function restoreActions(remote: Remote, actions: readonly Action[]): void {
  const { size, offsets } = abi.sigaction;
  const { address, bytes } = remote.room(size * actions.length);
  const view = viewOf(bytes);
  for (const [i, { sigaction, flags, restorer, mask }] of actions.entries()) {
    const at = i * size;
    view.setBigUint64(at + offsets.sa_handler, sigaction, true);
    view.setBigUint64(at + offsets.sa_flags, flags, true);
    view.setBigUint64(at + offsets.sa_restorer, restorer, true);
    view.setBigUint64(at + offsets.sa_mask, mask, true);
    remote.call(NR.rt_sigaction, settable[i]!, address + at, 0, SIZEOF_SIGSET);
  }
}

/** What most signals have: SIG_DFL, and nothing else. */
const DEFAULT: Action = { sigaction: 0n, flags: 0n, restorer: 0n, mask: 0n };

/** All 64 bits of each field: handlers may be any number that the program chose. */
function actionAt(view: DataView, at: number): Action {
  let bits = 0;
  for (let i = 0; i < abi.sigaction.size; i += 4) bits |= view.getInt32(at + i, true);
  if (bits === 0) return DEFAULT;
  const { sa_handler, sa_flags, sa_restorer, sa_mask } = abi.sigaction.offsets;
  return {
    sigaction: view.getBigUint64(at + sa_handler, true),
    flags: view.getBigUint64(at + sa_flags, true),
    restorer: view.getBigUint64(at + sa_restorer, true),
    mask: view.getBigUint64(at + sa_mask, true),
  };
}

/** Asks for the alternate stack of the thread. */
export function saveAlternateStack(remote: Remote): () => AlternateStack {
  const { address, bytes } = remote.room(abi.stack_t.size);
  remote.call(NR.sigaltstack, 0, address);
  return () => {
    const { ss_sp, ss_flags, ss_size } = abi.stack_t.read(bytes);
    return { ss_sp: BigInt(ss_sp), ss_size: BigInt(ss_size), ss_flags: ss_flags >>> 0 };
  };
}

export function restoreAlternateStack(remote: Remote, { ss_sp, ss_size, ss_flags }: AlternateStack): void {
  // SS_ONSTACK is what the stack pointer says, and not to be set.
  const flags = (ss_flags & ~abi.SS_ONSTACK) | 0;
  const stack = abi.stack_t.write({ ss_sp: Number(ss_sp), ss_size: Number(ss_size), ss_flags: flags });
  remote.call(NR.sigaltstack, remote.put(stack), 0);
}

/**
 * Signals that wait for a thread, or with `shared` for the process, with all that came with them. Of those that stop a process
 * none is kept for one that is stopped: it goes on by SIGCONT alone, which takes them away. signal(7)
 */
export function savePending(tracee: Tracee, shared: boolean): Siginfo[] {
  const found = shared ? [] : tracee.deferred.map((siginfo) => ({ siginfo }));
  found.push(...peekAll(tracee.tid, shared));
  if (tracee.stopSignal === 0) return found;
  return found.filter(({ siginfo }) => !STOPS.has(abi.siginfo.read(siginfo).si_signo));
}

const STOPS: ReadonlySet<number> = new Set([abi.SIGSTOP, abi.SIGTSTP, abi.SIGTTIN, abi.SIGTTOU]);

function peekAll(tid: number, shared: boolean): Siginfo[] {
  const flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0;
  const found: Siginfo[] = [];
  queue ??= new Region(AT_ONCE * abi.siginfo.size);
  for (;;) {
    const count = peekSiginfo(tid, { off: found.length, flags, nr: AT_ONCE }, queue.address);
    for (let i = 0; i < count; i++) {
      found.push({ siginfo: queue.bytes.slice(i * abi.siginfo.size, (i + 1) * abi.siginfo.size) });
    }
    if (count < AT_ONCE) return found;
  }
}

const AT_ONCE = 32;
let queue: Region | undefined;

/**
 * Puts signals back into the queues. They are sent by the thread to itself: only so may a siginfo say that it comes
 * from the kernel or from kill(2).
 */
export function restorePending(
  remote: Remote,
  pid: number,
  tid: number,
  signals: readonly Siginfo[],
  shared: boolean,
): void {
  for (const { siginfo } of signals) {
    const { si_signo } = abi.siginfo.read(siginfo);
    remote.reserve(1, 2 * abi.siginfo.size);
    const info = remote.put(siginfo);
    if (shared) remote.call(NR.rt_sigqueueinfo, pid, si_signo, info);
    else remote.call(NR.rt_tgsigqueueinfo, pid, tid, si_signo, info);
  }
}
