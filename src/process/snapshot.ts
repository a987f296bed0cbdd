/**
 * A copy of a stopped process's memory that costs its page tables alone: a fork, whose pages the kernel copies when one of
 * both writes. The process goes on, and the copy is read meanwhile. 1 GiB: 24 ms.
 *
 *     the process --vfork--> helper --fork--> copy        the copy's parent is gone at once, so that it belongs to init
 *         waits for it       ends             sleeps      or to a subreaper; it has no descriptors, and a session of its own
 *
 * The process cannot meet it: not as a child (wait4(2) of __WALL would find one even without an exit signal, and one that the
 * process never waits for would stay as a zombie), not by a signal. All of it is one piece of code that goes on without us, so
 * that nothing is left when this process is killed in between: the copy ends after some seconds when nobody traces it, and
 * with its tracer when somebody does.
 */
import { writeFileSync } from 'node:fs';
import { CLOSE_RANGE_UNSHARE } from '../abi/fcntl.ts';
import { PTRACE_O_EXITKILL } from '../abi/ptrace.ts';
import { CLONE_FILES, CLONE_FS, CLONE_VFORK, CLONE_VM } from '../abi/sched.ts';
import { SIGKILL } from '../abi/signal.ts';
import { timespec } from '../abi/time.ts';
import { NR } from '../abi/unistd.ts';
import { __WALL } from '../abi/wait.ts';
import { assemble } from '../asm/assemble.ts';
import { endBySignal } from '../asm/batch.ts';
import { cmp, jae, jmp, jz, mov, syscall, test } from '../asm/instructions.ts';
import { eax, edi, edx, esi, label, qword, r8, r10, r12, rax, rbx, rdi, rsi } from '../asm/operands.ts';
import { SyscallError } from '../errors.ts';
import { kill } from '../sys/process.ts';
import { interrupt, seize, waitTracee } from '../sys/ptrace.ts';
import type { Remote } from './remote.ts';

/** How long a copy waits for somebody to trace it, in seconds. */
const PATIENCE = 10;
/** Bytes of the answer: the id of the copy, or -errno. */
const ANSWER = 8;

/** clone(2) with flags, without an exit signal, on no other stack. */
const clone = (flags: number) => [
  mov(eax, NR.clone),
  mov(edi, flags),
  mov(esi, 0),
  mov(edx, 0),
  mov(r10, 0),
  mov(r8, 0),
  syscall(),
];

/** Gets the address of the answer in rbx, and that of how long to wait in r12. */
function makeCode(): Uint8Array {
  const [helper, copy, failed, end] = [label('helper'), label('copy'), label('failed'), label('end')];
  return assemble(
    clone(CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS),
    test(rax, rax),
    jz(helper),
    cmp(rax, -4095),
    jae(failed),
    mov(rdi, rax),
    mov(eax, NR.wait4),
    mov(esi, 0),
    mov(edx, __WALL),
    mov(r10, 0),
    syscall(),
    jmp(end),
    failed,
    mov(qword({ base: rbx }), rax),
    jmp(end),
    helper,
    mov(eax, NR.close_range),
    mov(edi, 0),
    mov(esi, 0x7fff_ffff),
    mov(edx, CLOSE_RANGE_UNSHARE),
    syscall(),
    mov(eax, NR.setsid),
    syscall(),
    clone(CLONE_FILES),
    test(rax, rax),
    jz(copy),
    mov(qword({ base: rbx }), rax),
    mov(eax, NR.exit),
    mov(edi, 0),
    syscall(),
    copy,
    mov(eax, NR.nanosleep),
    mov(rdi, r12),
    mov(rsi, 0),
    syscall(),
    mov(eax, NR.exit_group),
    mov(edi, 0),
    syscall(),
    end,
    endBySignal(),
  ).bytes;
}

let code: Uint8Array | undefined;

export class Snapshot {
  readonly pid: number;

  /**
   * @returns undefined where the process cannot fork: a limit of processes or memory, a filter on system calls
   */
  static of(remote: Remote): Snapshot | undefined {
    code ??= makeCode();
    const wait = remote.put(timespec.write({ tv_sec: PATIENCE, tv_nsec: 0 }));
    const answer = remote.room(ANSWER);
    remote.execute(remote.put(code), answer.address, wait);
    const pid = new DataView(answer.bytes.buffer, answer.bytes.byteOffset, ANSWER).getInt32(0, true);
    if (pid <= 0) return undefined;
    try {
      seize(pid, PTRACE_O_EXITKILL);
      interrupt(pid);
      const stopped = waitTracee(pid, 1000 * PATIENCE);
      if (stopped?.kind !== 'stopped') return undefined;
    } catch (error) {
      if (error instanceof SyscallError) return undefined;
      throw error;
    }
    return new Snapshot(pid);
  }

  private constructor(pid: number) {
    this.pid = pid;
    try {
      // Where memory runs out by what is copied, this one is to go and not the process.
      writeFileSync(`/proc/${pid}/oom_score_adj`, '1000');
    } catch {
      // It is one that may not be killed first then.
    }
  }

  /** Ends it and waits for that. */
  [Symbol.dispose](): void {
    kill.attempt({ pid: this.pid, sig: SIGKILL });
    try {
      while (waitTracee(this.pid)?.kind === 'stopped');
    } catch {
      // It is gone already.
    }
  }
}
