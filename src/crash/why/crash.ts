/** Where the kernel stopped: the task, its call chain, and the instruction at which the processor gave up. */
import { UnsupportedError } from '../../errors.ts';
import { disassembler } from '../kernel/disassemble.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { type Scene, variableText } from './scene.ts';
import type { CallFrame, CrashSite, Fault } from './verdict.ts';

/** How a fault of the processor comes into the kernel: arch/x86/include/asm/idtentry.h. Others interrupt, and are no fault. */
const EXCEPTION = /^asm_exc_(?!nmi|debug|page_fault_async)/;
/** What ends a kernel on purpose. */
const PANIC = /^(?:v?panic|nmi_panic|(?:__)?crash_kexec)$/;
/** Of the longest instruction. */
const MAX_INSTRUCTION = 15;

/** Undefined for a kernel that did not crash. */
export async function findCrash(scene: Scene): Promise<CrashSite | undefined> {
  const { kernel } = scene;
  const task = kernel.gaps.try('the task that crashed', () => kernel.panicTask);
  if (task === undefined) return undefined;
  const frames = scene.frames(task);
  const index = faultOf(frames);
  const frame = index === undefined ? undefined : scene.stack(task).frames[index];
  const fault =
    index === undefined || frame === undefined
      ? undefined
      : await describe(scene, frames[index]!, frames[index - 1], frame.registers ?? {}, task.address);
  return { task, cpu: task.cpu, frames, end: scene.stack(task).end, fault };
}

/**
 * The frame that a fault interrupted. A capture kernel that is started out of an oops has the registers of the fault, so that the
 * stack begins there.
 */
function faultOf(frames: readonly CallFrame[]): number | undefined {
  const within = frames.findIndex(({ interrupted }, i) => interrupted && EXCEPTION.test(frames[i - 1]?.symbol ?? ''));
  if (within >= 0) return within;
  const isFirst = frames[0]?.interrupted === true && !frames.some(({ symbol }) => PANIC.test(symbol));
  return isFirst ? 0 : undefined;
}

async function describe(
  scene: Scene,
  at: CallFrame,
  above: CallFrame | undefined,
  registers: Readonly<Record<string, bigint>>,
  task: bigint,
): Promise<Fault> {
  const { kernel } = scene;
  const code = kernel.gaps.try('faulting instruction', () => readCode(kernel, at.pc));
  const instruction = code === undefined ? undefined : await disassembleOne(code, at.pc);
  return {
    at,
    instruction: instruction && withNames(kernel, instruction),
    bytes: instruction?.bytes,
    entry: above?.symbol,
    address: kernel.gaps.try('address of the page fault', () => pageFaultAddress(scene, task)),
    registers,
  };
}

/** Up to an instruction, fewer bytes at the end of what is there. */
function readCode({ memory }: Kernel, pc: bigint): Uint8Array {
  const left = 4096 - Number(pc & 0xfffn);
  const first = memory.read(pc, Math.min(MAX_INSTRUCTION, left));
  if (left >= MAX_INSTRUCTION) return first;
  const more = new Uint8Array(MAX_INSTRUCTION - left);
  return memory.space.read(pc + BigInt(left), more) === undefined ? Buffer.concat([first, more]) : first;
}

async function disassembleOne(code: Uint8Array, pc: bigint) {
  try {
    const disassemble = await disassembler();
    for (const instruction of disassemble(code, pc)) return instruction.valid ? instruction : undefined;
  } catch (error) {
    // The one file for guests has no disassembler.
    if (!(error instanceof UnsupportedError)) throw error;
  }
  return undefined;
}

function withNames({ symbols }: Kernel, { text, target }: { text: string; target: bigint | undefined }): string {
  const name = target === undefined ? undefined : variableText(symbols.lookup(target));
  return name === undefined ? text : `${text} <${name}>`;
}

/** X86_TRAP_PF: arch/x86/include/asm/trapnr.h */
const X86_TRAP_PF = 14n;

/** What the task was left with, or the report of the fault ends with: arch/x86/kernel/dumpstack.c, __die_body() */
function pageFaultAddress({ kernel: { memory, types }, log }: Scene, task: bigint): bigint | undefined {
  const field = (name: string) => memory.u64(task + types.offset('task_struct', `thread.${name}`));
  if (field('trap_nr') === X86_TRAP_PF) return field('cr2');
  const reported = log.findLast(({ text }) => /^CR2: [0-9a-f]{16}$/.test(text));
  return reported === undefined ? undefined : BigInt(`0x${reported.text.slice('CR2: '.length)}`);
}
