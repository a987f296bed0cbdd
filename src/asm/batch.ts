/**
 * Many system calls in one go: records in memory, and a runner in machine code that performs them one after the other,
 * in this process or in another one, where a stop costs far more than a call: batches of 1, 10, 100 and 1000 calls take 23,
 * 20, 40 and 144 us, single-stepping 28 us for each call.
 *
 *      record, 64 bytes                                    registers
 *     +------+-------+-----------------------+-----+       rbx  the record to be performed
 *     |  nr  | flags | arg[0] ...     arg[5] | ret |       r12  how many are left, this one included
 *     +------+-------+-----------------------+-----+       r13  the first record
 *      0      4       8                       56
 *
 * The same declaration gives the runner its offsets, the writer and the reader. Everything is relative to the first
 * record: a batch runs at any address. The runner needs no stack.
 */

import { array, i64n, struct, u8, u16, u32, viewOf } from '../abi/struct.ts';
import { NR } from '../abi/unistd.ts';
import { assemble, type Item } from './assemble.ts';
import { add, cmp, dec, int3, jae, jmp, jz, mov, pop, push, ret, syscall, test } from './instructions.ts';
import {
  byte,
  dword,
  eax,
  edi,
  edx,
  esi,
  label,
  qword,
  r8,
  r9,
  r10,
  r12,
  r13,
  r14d,
  r15,
  rax,
  rbx,
  rdi,
  rdx,
  rsi,
  rsp,
} from './operands.ts';

export const batch_record = struct('batch_record', 64, {
  nr: u32,
  flags: u8,
  /** Bit n: arg[n] is the offset of an earlier record from the first one, and stands for its result. */
  results: u8,
  __pad: u16,
  /** Signed, as a descriptor of -1 is one. */
  arg: array(i64n, 6),
  ret: i64n,
});

/** flags: a result from -4095 to -1 ends the batch. */
const STOP_ON_ERROR = 1;

/** ret of a record that was not performed: no system call returns it. */
const NOT_RUN_LOW = 0;
const NOT_RUN_HIGH = 0x8000_0000 | 0;

const SIZE = batch_record.size;
const { nr: NR_AT, flags: FLAGS, results: RESULTS, arg: ARG, ret: RET } = batch_record.offsets;

// --- the runner ----------------------------------------------------------------------------------------------------

/** In the order of the record: the kernel's convention, psABI appendix A.2. */
const argumentRegisters = [rdi, rsi, rdx, r10, r8, r9];

/** From the first record in rbx, r12 of them; falls through to what follows it when done or stopped by an error. */
export function performRecords(): Item[] {
  const [next, perform, advance, end] = [label('next'), label('perform'), label('advance'), label('end')];
  return [
    mov(r13, rbx),
    next,
    test(r12, r12),
    jz(end),
    mov(eax, dword({ base: rbx, disp: NR_AT })),
    argumentRegisters.map((register, i) => mov(register, qword({ base: rbx, disp: ARG + 8 * i }))),
    test(byte({ base: rbx, disp: RESULTS }), 0xff),
    jz(perform),
    argumentRegisters.map((register, i) => takeResult(register, i)),
    perform,
    syscall(),
    mov(qword({ base: rbx, disp: RET }), rax),
    test(byte({ base: rbx, disp: FLAGS }), STOP_ON_ERROR),
    jz(advance),
    cmp(rax, -4095),
    jae(end),
    advance,
    add(rbx, SIZE),
    dec(r12),
    jmp(next),
    end,
  ];
}

function takeResult(register: (typeof argumentRegisters)[number], i: number): Item[] {
  const own = label(`own${i}`);
  return [
    test(byte({ base: rbx, disp: RESULTS }), 1 << i),
    jz(own),
    mov(register, qword({ base: r13, index: register, disp: RET })),
    own,
  ];
}

/**
 * Ends a batch in a tracee by a breakpoint: one stop with SIGTRAP, which must not be ignored there (the kernel would reset it
 * to SIG_DFL), and which kills a process that has lost its tracer.
 */
export function endByTrap(): Item[] {
  const again = label('again');
  return [again, int3(), jmp(again)];
}

/**
 * Ends a batch by tgkill(2) of the thread itself with the signal in r14. A tracer sees a stop with this signal, even if it is
 * ignored. A thread that has lost its tracer, before the stop or in it, goes back by rt_sigreturn(2) to where it was, with the
 * registers and the signal mask of the frame in r15: the address of the frame's ucontext (struct rt_sigframe
 * without pretcode). So the signal is to be one that does nothing untraced: SIGURG, SIGWINCH or SIGCHLD, whichever has no
 * handler, unblocked. SIGSTOP is certain to stop, but without tracer lasts until SIGCONT.
 */
export function endBySignal(): Item[] {
  return [
    mov(eax, NR.getpid),
    syscall(),
    mov(edi, eax),
    mov(eax, NR.gettid),
    syscall(),
    mov(esi, eax),
    mov(edx, r14d),
    mov(eax, NR.tgkill),
    syscall(),
    mov(rsp, r15),
    mov(eax, NR.rt_sigreturn),
    syscall(),
  ];
}

/**
 * The runner for a tracee: set rip to its first byte, rbx to the first record and r12 to their number, and what `end` needs.
 *
 * @param end what happens after the last record: endByTrap() or endBySignal()
 */
export function remoteRunner(end: readonly Item[]): Uint8Array {
  return assemble(performRecords(), end).bytes;
}

/** The runner for this process: a C function (first record, number of records) that returns how many were left. */
export function localRunner(): Uint8Array {
  return assemble(
    push(rbx),
    push(r12),
    push(r13),
    mov(rbx, rdi),
    mov(r12, rsi),
    performRecords(),
    mov(rax, r12),
    pop(r13),
    pop(r12),
    pop(rbx),
    ret(),
  ).bytes;
}

// --- the records ---------------------------------------------------------------------------------------------------

const TWO32 = 0x1_0000_0000;

/** Writes records into a buffer and reads their results there. Whoever runs them copies the buffer there and back. */
export class Batch {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #capacity: number;
  #length = 0;

  /** @param bytes room for the records, 64 bytes each */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = viewOf(bytes);
    this.#capacity = Math.floor(bytes.length / SIZE);
  }

  /** Number of records. */
  get length(): number {
    return this.#length;
  }

  /** The records' bytes, from the first. */
  get used(): Uint8Array {
    return this.bytes.subarray(0, this.#length * SIZE);
  }

  clear(): void {
    this.#length = 0;
  }

  /**
   * Adds a call, whatever it returns. Arguments are whole numbers within 2^53; negative ones are sign-extended.
   *
   * @param nr number of the system call @returns the record's index @throws RangeError where the buffer is full
   */
  add(nr: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): number {
    return this.#add(0, nr, a, b, c, d, e, f);
  }

  /** Adds a call that ends the batch when it fails. */
  addOrStop(nr: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): number {
    return this.#add(STOP_ON_ERROR, nr, a, b, c, d, e, f);
  }

  /** Makes the result of an earlier record an argument of a later one: a new descriptor, an address. */
  passResult(from: number, to: number, argument: number): void {
    if (!(from >= 0 && from < to && to < this.#length && argument >= 0 && argument < 6)) {
      throw new RangeError(`record ${to} of ${this.#length} cannot take result ${from} as argument ${argument}`);
    }
    const at = to * SIZE;
    this.bytes[at + RESULTS]! |= 1 << argument;
    this.#set64(at + ARG + 8 * argument, from * SIZE);
  }

  /** Whether the record was performed. */
  done(index: number): boolean {
    const at = this.#at(index) + RET;
    // Signed, so that V8 has them as small integers, whatever is returned.
    return this.#view.getInt32(at, true) !== NOT_RUN_LOW || this.#view.getInt32(at + 4, true) !== NOT_RUN_HIGH;
  }

  /** What the call returned, -errno where it failed. Exact within 2^53. */
  result(index: number): number {
    const at = this.#at(index) + RET;
    return this.#view.getInt32(at + 4, true) * TWO32 + this.#view.getUint32(at, true);
  }

  #add(flags: number, nr: number, a: number, b: number, c: number, d: number, e: number, f: number): number {
    const index = this.#length;
    if (index >= this.#capacity) throw new RangeError(`a batch of ${this.#capacity} calls is full`);
    const at = index * SIZE;
    const view = this.#view;
    view.setUint32(at + NR_AT, nr, true);
    view.setUint32(at + FLAGS, flags, true);
    this.#set64(at + ARG, a);
    this.#set64(at + ARG + 8, b);
    this.#set64(at + ARG + 16, c);
    this.#set64(at + ARG + 24, d);
    this.#set64(at + ARG + 32, e);
    this.#set64(at + ARG + 40, f);
    view.setInt32(at + RET, NOT_RUN_LOW, true);
    view.setInt32(at + RET + 4, NOT_RUN_HIGH, true);
    this.#length = index + 1;
    return index;
  }

  #set64(at: number, value: number): void {
    if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not a whole number within 2^53`);
    this.#view.setUint32(at, value >>> 0, true);
    this.#view.setUint32(at + 4, Math.floor(value / TWO32), true);
  }

  #at(index: number): number {
    if (!(index >= 0 && index < this.#length)) throw new RangeError(`no record ${index} in a batch of ${this.#length}`);
    return index * SIZE;
  }
}
