/**
 * What is said of a crash: one sentence, what supports it, and what else was wrong. It is made of values alone, so that it can be
 * printed when the dump is closed. Every statement names its evidence: where in the dump it stands.
 */
import type { Task } from '../kernel/tasks.ts';
import type { StackEnd } from '../kernel/unwind.ts';
import type { WaitGraph } from './waits.ts';

/** What a finding is about. */
export type FindingKind =
  /** Of what a kernel dies. */
  | 'requested'
  | 'panic'
  | 'oops'
  | 'bug'
  | 'warning'
  | 'nmi'
  | 'machine-check'
  | 'init-died'
  | 'no-root'
  | 'running'
  /** What is wrong with who runs and who waits. */
  | 'soft-lockup'
  | 'hard-lockup'
  | 'rcu-stall'
  | 'hung-task'
  | 'deadlock'
  | 'blocked'
  /** What is wrong with memory. */
  | 'oom'
  | 'leak'
  | 'stack-overflow'
  | 'list-corruption'
  | 'slab-corruption'
  /** What may have to do with it. */
  | 'taint';

/** Where a statement comes from: an address and what stands there, a task, or a line of the log. */
export type Evidence =
  | { readonly kind: 'address'; readonly address: bigint; readonly what: string }
  | { readonly kind: 'task'; readonly task: Task; readonly what: string }
  | { readonly kind: 'log'; readonly time: bigint; readonly text: string };

export interface Finding {
  readonly kind: FindingKind;
  /**
   * - `cause`: the kernel stopped because of it
   * - `related`: something that was wrong then, or had been; it may have led there
   * - `note`: worth knowing
   */
  readonly weight: 'cause' | 'related' | 'note';
  /** A sentence. */
  readonly text: string;
  /** More sentences. */
  readonly details: readonly string[];
  readonly evidence: readonly Evidence[];
}

export interface CallFrame {
  readonly pc: bigint;
  /** Empty where it has no name. */
  readonly symbol: string;
  /** Bytes from where the function begins. */
  readonly offset: number;
  readonly module: string | undefined;
  /** Code that was interrupted there, by a fault or by a device. */
  readonly interrupted: boolean;
}

/** The instruction at which the processor gave up, or the code that called panic(). */
export interface Fault {
  readonly at: CallFrame;
  /** In AT&T syntax; undefined where the code is not in the dump or no disassembler is installed. */
  readonly instruction: string | undefined;
  /** Of the instruction: also with the names of what it refers to. */
  readonly bytes: Uint8Array | undefined;
  /** `asm_exc_page_fault`, ...: how it came into the kernel; undefined where the dump has only the registers. */
  readonly entry: string | undefined;
  /** What could not be accessed, of a page fault. */
  readonly address: bigint | undefined;
  /** By name, as struct pt_regs has them: rip, rsp, rax, ... */
  readonly registers: Readonly<Record<string, bigint>>;
}

/** Where the kernel stopped. */
export interface CrashSite {
  readonly task: Task;
  readonly cpu: number;
  readonly frames: readonly CallFrame[];
  readonly end: StackEnd;
  /** Undefined for a panic that code of the kernel called for. */
  readonly fault: Fault | undefined;
}

/** By which the same crash is known again, on another boot and with other addresses. */
export interface Signature {
  /** 16 hexadecimal digits. */
  readonly hash: string;
  /** What it was made of: what happened, then names of functions, the innermost first. */
  readonly parts: readonly string[];
}

export interface Verdict {
  /** A sentence: what happened, where. */
  readonly headline: string;
  /** What weighs most comes first. The first is the cause, if one is known. */
  readonly findings: readonly Finding[];
  readonly crash: CrashSite | undefined;
  /** Tasks that wait for locks, and who holds them. */
  readonly waits: WaitGraph;
  readonly signature: Signature | undefined;
  /** `P` and so on: letters of the taint flags. */
  readonly taint: string;
  /** Names of modules whose code is in the crashed stack, and of those that tainted the kernel. */
  readonly modules: readonly string[];
}
