/**
 * Unwinds a kernel stack by ORC, as arch/x86/kernel/unwind_orc.c does.
 *
 * Some functions have no entries: __crash_kexec(), in which the registers of the CPU that panicked were saved, is one. From
 * there the stack is looked through upwards for the first return address from which ORC reaches a known end.
 */
import { user_regs_struct } from '../../abi/ptrace.ts';
import { viewOf } from '../../abi/struct.ts';
import { HoleError } from '../../errors.ts';
import type { VirtualMemory } from './memory.ts';
import type { Orc, OrcEntry, OrcRegister } from './orc.ts';

/** What unwinding begins with, and what an interrupted frame has. */
export interface Registers {
  readonly ip: bigint;
  readonly sp: bigint;
  readonly bp: bigint;
  readonly others?: Partial<Record<OrcRegister, bigint>>;
  /** All of them by the names of user_regs_struct, where they were saved as a whole. */
  readonly all?: Readonly<Record<string, bigint>>;
}

export interface Frame {
  readonly pc: bigint;
  /** Stack pointer in this frame. */
  readonly sp: bigint;
  /** `pc` is the next instruction of code that was interrupted; otherwise it is where a call returns to. */
  readonly interrupted: boolean;
  /** Of code that was interrupted, as the processor and the kernel saved them. */
  readonly registers?: Readonly<Record<string, bigint>>;
  /** Found by looking through the stack, above what could not be unwound. */
  readonly rescued?: true;
}

/**
 * - `user`: where the task entered the kernel from user space
 * - `end`: where the stack of a kernel thread, of an idle task or of boot begins
 * - `unknown`: it goes on, and how is not known; `why` says what is missing
 */
export type StackEnd = 'user' | 'end' | 'unknown';

export interface Stack {
  readonly frames: readonly Frame[];
  readonly end: StackEnd;
  readonly why?: string;
  /** Registers in user space. */
  readonly user?: Registers;
}

/** Frames of a stack of 16 KB, if each were as small as can be, would be a thousand. */
const MAX_FRAMES = 1024;
/** Stacks that one may lead over: task, IRQ, NMI, debug, machine check, double fault. */
const MAX_SWITCHES = 16;
/** Words that are looked through: a whole stack. */
const MAX_SCAN = 2048;

/** struct pt_regs begins as user_regs_struct does: arch/x86/include/asm/ptrace.h */
const PT_REGS_SIZE = user_regs_struct.offsets.fs_base;

/** Code without entries is taken to keep a frame pointer, as the kernel takes it (orc_fp_entry). */
const framePointer: OrcEntry = {
  type: 'call',
  spRegister: 'bp',
  spOffset: 16,
  bpRegister: 'prev-sp',
  bpOffset: -16,
  signal: false,
};

export class Unwinder {
  readonly #memory: VirtualMemory;
  readonly #orc: Orc;
  readonly #isText: (pc: bigint) => boolean;
  readonly #isKernelText: (pc: bigint) => boolean;

  constructor(
    memory: VirtualMemory,
    orc: Orc,
    text: { isText(pc: bigint): boolean; isKernelText(pc: bigint): boolean },
  ) {
    this.#memory = memory;
    this.#orc = orc;
    this.#isText = (pc) => text.isText(pc);
    this.#isKernelText = (pc) => text.isKernelText(pc);
  }

  /** @param interrupted whether `ip` is the next instruction, or where a call returns to */
  unwind(start: Registers, interrupted: boolean): Stack {
    const first = this.#follow(start, interrupted);
    if (first.end !== 'unknown') return first;
    const last = first.frames.at(-1) ?? { sp: start.sp };
    const rescued = this.#rescue(last.sp, start.bp);
    if (rescued === undefined) return first;
    const frames = rescued.frames.map((frame) => ({ ...frame, rescued: true as const }));
    return { ...rescued, frames: [...first.frames, ...frames] };
  }

  #follow(start: Registers, startInterrupted: boolean): Stack {
    const frames: Frame[] = [];
    let { ip: pc, sp, bp } = start;
    let others = start.others ?? {};
    let interrupted = startInterrupted;
    let saved = start.all;
    let switches = 0;
    const stop = (why: string): Stack => ({ frames, end: 'unknown', why });
    try {
      while (frames.length < MAX_FRAMES) {
        if (pc === 0n) return { frames, end: 'end' };
        frames.push({ pc, sp, interrupted, ...(saved !== undefined && { registers: saved }) });
        saved = undefined;
        const entry = this.#entry(pc, interrupted);
        if (entry === undefined) return stop(`no unwind entry for 0x${pc.toString(16)}`);
        if (entry.type === 'end') return { frames, end: 'end' };
        if (entry.type === 'undefined') return stop(`0x${pc.toString(16)} is in code that cannot be unwound`);
        const before = sp;
        const from = this.#base(entry, { ip: pc, sp, bp, others });
        if (from === undefined) return stop(`register ${entry.spRegister} is not known at 0x${pc.toString(16)}`);
        if (entry.type === 'call') {
          const previous = from;
          bp = this.#previousBp(entry, previous, bp);
          pc = this.#memory.u64(previous - 8n);
          [sp, others, interrupted] = [previous, {}, false];
        } else if (entry.type === 'regs') {
          const registers = readRegisters(this.#memory.read(from, PT_REGS_SIZE));
          if (registers.user) return { frames, end: 'user', user: registers };
          ({ ip: pc, sp, bp } = registers);
          [others, interrupted, saved] = [registers.others ?? {}, true, registers.all];
        } else {
          // Only ip, cs, flags, sp and ss, as the processor pushed them.
          const [ip, cs, previous] = [0n, 8n, 24n].map((at) => this.#memory.u64(from + at)) as [bigint, bigint, bigint];
          bp = this.#previousBp(entry, from, bp);
          if ((cs & 3n) !== 0n) return { frames, end: 'user', user: { ip, sp: previous, bp } };
          [pc, sp, others, interrupted] = [ip, previous, {}, true];
        }
        // Within one stack it only goes up.
        if (sp <= before && ++switches > MAX_SWITCHES) return stop('the stack leads in a circle');
      }
      return stop(`more than ${MAX_FRAMES} frames`);
    } catch (error) {
      if (error instanceof HoleError) return stop(error.message);
      throw error;
    }
  }

  #entry(pc: bigint, interrupted: boolean): OrcEntry | undefined {
    // A call may be the last instruction of a function that does not return.
    const at = interrupted ? pc : pc - 1n;
    const found = this.#orc.find(at);
    if (found !== undefined) return found;
    // Nothing but code of the kernel calls these: code that it made while it ran, such as BPF programs and trampolines.
    return isKernelHalf(at) && !this.#isKernelText(at) ? framePointer : undefined;
  }

  /** What the entry counts its offsets from. */
  #base({ spRegister, spOffset }: OrcEntry, { sp, bp, others }: Registers): bigint | undefined {
    const offset = BigInt(spOffset);
    switch (spRegister) {
      case 'sp':
        return sp + offset;
      case 'bp':
        return bp + offset;
      case 'sp-indirect':
        return this.#memory.u64(sp) + offset;
      case 'bp-indirect':
        return this.#memory.u64(bp + offset);
      case undefined:
      case 'prev-sp':
        return undefined;
      default: {
        const value = others?.[spRegister];
        return value === undefined ? undefined : value + offset;
      }
    }
  }

  #previousBp({ bpRegister, bpOffset }: OrcEntry, previousSp: bigint, bp: bigint): bigint {
    if (bpRegister === 'prev-sp') return this.#memory.u64(previousSp + BigInt(bpOffset));
    if (bpRegister === 'bp') return this.#memory.u64(bp + BigInt(bpOffset));
    return bp;
  }

  #rescue(from: bigint, bp: bigint): Stack | undefined {
    const start = (from + 7n) & ~7n;
    for (let i = 0; i < MAX_SCAN; i++) {
      const slot = start + BigInt(i * 8);
      const pc = this.#memory.space.u64(slot);
      if (typeof pc !== 'bigint') return undefined;
      if (!this.#isText(pc) || !this.#followsCall(pc)) continue;
      const stack = this.#follow({ ip: pc, sp: slot + 8n, bp }, false);
      if (stack.end !== 'unknown' && stack.frames.length > 1) return stack;
    }
    return undefined;
  }

  /** Whether the instruction before an address may be a call: e8 and 32 bits, or ff /2 in any of its forms. */
  #followsCall(pc: bigint): boolean {
    const bytes = new Uint8Array(7);
    if (this.#memory.space.read(pc - 7n, bytes) !== undefined) return false;
    if (bytes[2] === 0xe8) return true;
    for (let at = 0; at <= 5; at++) if (bytes[at] === 0xff && (bytes[at + 1]! & 0x38) === 0x10) return true;
    return false;
  }
}

/** From struct pt_regs, or the pr_reg of a note. `user`: the task was in user space. */
export function readRegisters(bytes: Uint8Array): Registers & { readonly user: boolean } {
  const view = viewOf(bytes);
  const get = (name: keyof typeof user_regs_struct.offsets) => view.getBigUint64(user_regs_struct.offsets[name], true);
  const names = Object.keys(user_regs_struct.offsets) as (keyof typeof user_regs_struct.offsets)[];
  return {
    ip: get('rip'),
    sp: get('rsp'),
    bp: get('rbp'),
    others: { ax: get('rax'), dx: get('rdx'), di: get('rdi'), r10: get('r10'), r13: get('r13') },
    all: Object.fromEntries(
      names.filter((name) => user_regs_struct.offsets[name] < PT_REGS_SIZE).map((name) => [name, get(name)]),
    ),
    user: (get('cs') & 3n) !== 0n,
  };
}

function isKernelHalf(address: bigint): boolean {
  return address >> 63n === 1n;
}
