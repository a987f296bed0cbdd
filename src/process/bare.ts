/**
 * A process that has nothing but scratch memory: a child that shares our memory until it executes a program without content.
 */
import { ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD } from '../abi/elf.ts';
import { writeElfHeaders } from '../abi/elfheaders.ts';
import { AT_EMPTY_PATH } from '../abi/fcntl.ts';
import {
  PTRACE_EVENT_EXEC,
  PTRACE_EVENT_STOP,
  PTRACE_O_EXITKILL,
  PTRACE_O_TRACEEXEC,
  PTRACE_O_TRACESYSGOOD,
} from '../abi/ptrace.ts';
import { bytesOf } from '../abi/text.ts';
import { NR } from '../abi/unistd.ts';
import { SyscallError } from '../errors.ts';
import { pausedAt } from '../sys/clone.ts';
import { close, write } from '../sys/files.ts';
import { memfd_create } from '../sys/memory.ts';
import { interrupt, seize } from '../sys/ptrace.ts';
import { Region } from '../sys/region.ts';
import { expectStop, goToSyscall, readRegisters, SYSCALL_STOP, Tracee, writeRegisters } from './tracee.ts';

/**
 * Makes a child of ours that has nothing but scratch memory, and stops there. It dies with us.
 *
 * @param clone makes a child that pauses; it has the descriptors that we have then
 * @param name its argv[0]
 */
export function makeScratch(clone: () => number, hole: { address: number; size: number }, name = ''): Tracee {
  const program = programOf(hole);
  const pid = clone();
  try {
    seize(pid, PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD);
    interrupt(pid);
    expectStop(pid, ({ event }) => event === PTRACE_EVENT_STOP);
    execute(pid, program, name);
    return Tracee.found(pid, pid);
  } catch (error) {
    process.kill(pid, 'SIGKILL');
    throw error;
  }
}

/** Makes a paused child of ours execute a program. @throws SyscallError */
function execute(pid: number, program: number, name: string): void {
  const strings = new Region(4096);
  // argv: a pointer and NULL; envp: that NULL.
  const [argv, envp, path, text] = [0, 8, 64, 128].map((at) => strings.address + at) as [
    number,
    number,
    number,
    number,
  ];
  strings.view.setBigUint64(0, BigInt(text), true);
  strings.bytes.set(bytesOf(name), 128);
  try {
    const registers = readRegisters(pid);
    registers.set('rax', NR.execveat);
    registers.set('orig_rax', -1);
    registers.set('rip', pausedAt());
    registers.set('rdi', program);
    registers.set('rsi', path);
    registers.set('rdx', argv);
    registers.set('r10', envp);
    registers.set('r8', AT_EMPTY_PATH);
    writeRegisters(pid, registers);
    const again = () => goToSyscall(pid);
    again();
    expectStop(pid, ({ signal }) => signal === SYSCALL_STOP, again);
    again();
    const { event } = expectStop(
      pid,
      (each) => each.event === PTRACE_EVENT_EXEC || each.signal === SYSCALL_STOP,
      again,
    );
    if (event === PTRACE_EVENT_EXEC) return;
    const result = readRegisters(pid).number('rax');
    throw new SyscallError('execveat', `execveat(memfd, AT_EMPTY_PATH) in process ${pid}`, -result);
  } finally {
    strings[Symbol.dispose]();
  }
}

/** The one that was made last stays: most processes have room at the same place. */
let last: { readonly address: number; readonly size: number; readonly fd: number } | undefined;

/** @returns its descriptor, which is closed on exec */
function programOf({ address, size }: { address: number; size: number }): number {
  if (last?.address === address && last.size === size) return last.fd;
  const fd = makeProgram({ address, size });
  if (last !== undefined) close({ fd: last.fd });
  last = { address, size, fd };
  return fd;
}

/** An ELF program of one segment without content: memory that can be read, written and executed, and belongs to no file. */
function makeProgram({ address, size }: { address: number; size: number }): number {
  const fd = memfd_create({ name: 'tideover', flags: 1 });
  const memory = { p_vaddr: BigInt(address), p_paddr: BigInt(address), p_memsz: BigInt(size), p_align: 4096n };
  const segments = [{ p_type: PT_LOAD, p_flags: PF_R | PF_W | PF_X, ...memory }];
  const bytes = writeElfHeaders({ type: ET_EXEC, entry: BigInt(address), segments });
  write({ fd, buf: bytes, count: bytes.length });
  return fd;
}
