/**
 * The first system call within a stopped process, before it has any memory of ours, and the last one. A few instructions
 * are laid behind the end of its vdso, where its last page has nothing but zeros, and taken away afterwards:
 *
 *     call:  syscall                     what we want
 *            rt_sigprocmask(SET, mask)   the signal mask, all registers and
 *            mov r.., value              the place that the thread had
 *            jmp  *place
 *
 * If this process is killed at whatever moment, the thread finds its way back by itself.
 */
import { AT_FDCWD, O_CLOEXEC, O_RDWR } from '../abi/fcntl.ts';
import { SIG_SETMASK } from '../abi/signal.ts';
import { viewOf } from '../abi/struct.ts';
import { NR } from '../abi/unistd.ts';
import { assemble } from '../asm/assemble.ts';
import { farJump } from '../asm/farjump.ts';
import { mov, syscall } from '../asm/instructions.ts';
import { eax, edi, edx, r8, r9, r10, r11, rax, rcx, rdi, rdx, rsi } from '../asm/operands.ts';
import { UnsupportedError } from '../errors.ts';
import { close, openat, pread64, pwrite64 } from '../sys/files.ts';
import { resumable } from './registers.ts';
import { type Registers, readRegisters, type Tracee, writeRegisters } from './tracee.ts';

/** Of the code and what it refers to, in bytes. */
const ROOM = 256;

export class Doorstep {
  readonly #memory: number;
  readonly #address: number;

  /** @param vdso where that of the process is @throws UnsupportedError (a process without vdso, or with one that fills its pages) */
  constructor(pid: number, vdso: { readonly end: number } | undefined) {
    const refuse = (why: string) => new UnsupportedError({ what: 'vdso', pid, why, remedy: 'leave this process out' });
    if (vdso === undefined) throw refuse('the process has none, and system calls begin there');
    this.#address = vdso.end - ROOM;
    this.#memory = openat({ dirfd: AT_FDCWD, pathname: `/proc/${pid}/mem`, flags: O_RDWR | O_CLOEXEC, mode: 0 });
    const tail = new Uint8Array(ROOM);
    pread64({ fd: this.#memory, buf: tail, count: tail.length, offset: this.#address });
    if (tail.some((byte) => byte !== 0) && !isLeft(tail)) {
      close({ fd: this.#memory });
      throw refuse('it has no room at its end');
    }
  }

  /**
   * Performs a system call in a thread that stands where it was found, and leaves it there.
   *
   * @returns the result, or -errno
   */
  call(tracee: Tracee, nr: number, ...args: number[]): number {
    this.begin(tracee, nr, ...args);
    this.cross(tracee);
    return this.end(tracee);
  }

  /** The three parts of call(): between them the thread runs, and other processes are given their calls. */
  begin(tracee: Tracee, nr: number, ...args: number[]): void {
    this.#write(code(this.#address, resumable(tracee.registers), tracee.sigmask));
    const registers = tracee.registers.clone();
    registers.set('rax', nr);
    // Else the kernel takes the call for the one that the stop interrupted, and starts that again.
    registers.set('orig_rax', -1);
    registers.set('rip', this.#address);
    for (const [i, name] of ARGUMENTS.entries()) registers.set(name, args[i] ?? 0);
    writeRegisters(tracee.tid, registers);
    tracee.blockSignals();
    tracee.beginSyscall();
  }

  cross(tracee: Tracee): void {
    tracee.crossSyscall();
  }

  end(tracee: Tracee): number {
    tracee.endSyscall();
    const result = readRegisters(tracee.tid).number('rax');
    tracee.putBack();
    this.#write(new Uint8Array(ROOM));
    return result;
  }

  [Symbol.dispose](): void {
    close({ fd: this.#memory });
  }

  #write(bytes: Uint8Array): void {
    const args = { fd: this.#memory, buf: bytes, count: bytes.length, offset: this.#address };
    if (pwrite64(args) !== bytes.length) throw pwrite64.error(args, -14);
  }
}

/** Of a system call, in order: syscall(2), architecture calling conventions. */
const ARGUMENTS = ['rdi', 'rsi', 'rdx', 'r10', 'r8', 'r9'] as const;

/** What the code has to be given, and where in it: each an operand of 64 bits. */
const operands = ['mask', 'rax', 'rdi', 'rsi', 'rdx', 'r10', 'r8', 'r9', 'rcx', 'r11', 'rip'] as const;
let template: { bytes: Uint8Array; at: Record<(typeof operands)[number], number> } | undefined;

/** The code is assembled once, with marks for its operands. */
function makeTemplate() {
  const mark = (name: (typeof operands)[number]) => 0x7e1d_0fee_a000_0000n + BigInt(operands.indexOf(name));
  const { bytes } = assemble(
    syscall(),
    mov(eax, NR.rt_sigprocmask),
    mov(edi, SIG_SETMASK),
    mov(rsi, mark('mask')),
    mov(edx, 0),
    mov(r10, 8),
    syscall(),
    mov(rax, mark('rax')),
    mov(rdi, mark('rdi')),
    mov(rsi, mark('rsi')),
    mov(rdx, mark('rdx')),
    mov(r10, mark('r10')),
    mov(r8, mark('r8')),
    mov(r9, mark('r9')),
    mov(rcx, mark('rcx')),
    mov(r11, mark('r11')),
    ...farJump(mark('rip')),
  );
  const view = Buffer.from(bytes);
  const place = (name: (typeof operands)[number]) => {
    const value = Buffer.alloc(8);
    value.writeBigUInt64LE(mark(name));
    return view.indexOf(value);
  };
  const at = Object.fromEntries(operands.map((name) => [name, place(name)])) as Record<
    (typeof operands)[number],
    number
  >;
  return { bytes, at };
}

/** Whether it is code of ours, of whoever was killed before it was taken away. No thread is within it: it was stopped outside of the vdso. */
function isLeft(tail: Uint8Array): boolean {
  template ??= makeTemplate();
  const { bytes, at } = template;
  return Buffer.compare(tail.subarray(0, at.mask), bytes.subarray(0, at.mask)) === 0;
}

function code(address: number, back: Registers, mask: bigint): Uint8Array {
  template ??= makeTemplate();
  const all = new Uint8Array(ROOM);
  all.set(template.bytes);
  const view = viewOf(all);
  const maskAt = ROOM - 8;
  view.setBigUint64(template.at.mask, BigInt(address + maskAt), true);
  for (const name of operands) if (name !== 'mask') view.setBigUint64(template.at[name], back.get(name), true);
  view.setBigUint64(maskAt, mask, true);
  return all;
}
