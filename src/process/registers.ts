/** Registers of a thread: in the image, and in the frame that takes it back to where it was. */
import { FUTEX_CMD_MASK, FUTEX_WAIT, FUTEX_WAIT_BITSET } from '../abi/futex.ts';
import {
  FP_XSTATE_MAGIC1,
  FP_XSTATE_MAGIC2,
  fpx_sw_bytes,
  SW_BYTES_AT,
  UC_FP_XSTATE,
  UC_SIGCONTEXT_SS,
  UC_STRICT_RESTORE_SS,
  ucontext,
} from '../abi/signal.ts';
import { viewOf } from '../abi/struct.ts';
import { NR } from '../abi/unistd.ts';
import { UnsupportedError } from '../errors.ts';
import type { thread_info_x86, user_x86_regs_entry } from '../image/messages/machine.ts';
import type { Value } from '../image/proto.ts';
import { areaOf, fpregsOf } from '../image/xsave.ts';
import type { Mirrored } from '../sys/process_vm.ts';
import type { Remote } from './remote.ts';
import { type RegisterName, Registers, readXstate, type Tracee, writeXstate } from './tracee.ts';
import { xsaveLayout } from './xstate.ts';

type ThreadInfo = Value<typeof thread_info_x86>;
type Gpregs = Value<typeof user_x86_regs_entry>;

/** The image's names of registers, in its order. */
const names: readonly (readonly [field: Exclude<keyof Gpregs, 'mode' | symbol>, register: RegisterName])[] = [
  ['r15', 'r15'],
  ['r14', 'r14'],
  ['r13', 'r13'],
  ['r12', 'r12'],
  ['bp', 'rbp'],
  ['bx', 'rbx'],
  ['r11', 'r11'],
  ['r10', 'r10'],
  ['r9', 'r9'],
  ['r8', 'r8'],
  ['ax', 'rax'],
  ['cx', 'rcx'],
  ['dx', 'rdx'],
  ['si', 'rsi'],
  ['di', 'rdi'],
  ['orig_ax', 'orig_rax'],
  ['ip', 'rip'],
  ['cs', 'cs'],
  ['flags', 'eflags'],
  ['sp', 'rsp'],
  ['ss', 'ss'],
  ['fs_base', 'fs_base'],
  ['gs_base', 'gs_base'],
  ['ds', 'ds'],
  ['es', 'es'],
  ['fs', 'fs'],
  ['gs', 'gs'],
];

/** What a system call left in rax that was interrupted: include/linux/errno.h of the kernel, never seen by programs. */
const ERESTARTSYS = -512;
const ERESTARTNOINTR = -513;
const ERESTARTNOHAND = -514;
const ERESTART_RESTARTBLOCK = -516;
const SIZEOF_SYSCALL = 2;

/**
 * Registers that go on without the kernel's help: a thread that was stopped within a system call makes it again. orig_rax says
 * that, and which: as in CRIU's images.
 *
 * nanosleep(2) has left in its second argument what there was to sleep, where the program gave it one.
 */
export function resumable(found: Registers): Registers {
  const registers = found.clone();
  const call = registers.number('orig_rax');
  registers.set('orig_rax', -1);
  if (call >= 0) {
    const result = registers.number('rax');
    if (
      result === ERESTARTSYS ||
      result === ERESTARTNOINTR ||
      result === ERESTARTNOHAND ||
      result === ERESTART_RESTARTBLOCK
    ) {
      registers.set('rax', call);
      registers.set('orig_rax', call);
      registers.set('rip', registers.number('rip') - SIZEOF_SYSCALL);
    }
    if (result === ERESTART_RESTARTBLOCK) {
      if (call === NR.nanosleep && registers.get('rsi') !== 0n) registers.set('rdi', registers.get('rsi'));
      if (call === NR.clock_nanosleep && registers.get('r10') !== 0n) registers.set('rdx', registers.get('r10'));
    }
  }
  return registers;
}

/** What a signal's handler always ends: signal(7), "Interruption of system calls and library functions by signal handlers". */
const ENDED_BY_HANDLERS: readonly number[] = [
  ...[NR.pause, NR.rt_sigsuspend, NR.select, NR.pselect6, NR.poll, NR.ppoll, NR.nanosleep, NR.clock_nanosleep],
];
/** What none ends. */
const ENDED_BY_NONE: readonly number[] = [NR.clone, NR.clone3, NR.fork, NR.vfork];

/**
 * The other way round: as if the thread had been interrupted in its system call just now. So a signal that comes before it has
 * made the call again ends it, where it would have ended it: else the handler runs, and then pause(2) waits for ever.
 *
 * @param code what stands at the registers' rip
 */
export function interrupted(registers: Registers, code: Uint8Array): void {
  const call = registers.number('orig_rax');
  const again = call >= 0 && registers.number('rax') === call && code[0] === 0x0f && code[1] === 0x05;
  // Locks with priority inheritance are never ended.
  const lock = call === NR.futex && ![FUTEX_WAIT, FUTEX_WAIT_BITSET].includes(registers.number('rsi') & FUTEX_CMD_MASK);
  if (!again || lock || ENDED_BY_NONE.includes(call)) {
    registers.set('orig_rax', -1);
    return;
  }
  registers.set('rax', ENDED_BY_HANDLERS.includes(call) ? ERESTARTNOHAND : ERESTARTSYS);
  registers.set('rip', registers.number('rip') + SIZEOF_SYSCALL);
}

/**
 * @param registers those to go on with: resumable() ones
 * @param clearTidAddress what set_tid_address(2) was given
 */
export function saveRegisters(tracee: Tracee, registers: Registers, clearTidAddress: number): ThreadInfo {
  const area = tracee.xstate;
  const gpregs = { mode: 'NATIVE' } as Gpregs;
  for (const [field, register] of names) gpregs[field] = registers.get(register);
  return {
    clear_tid_addr: BigInt(clearTidAddress),
    gpregs,
    fpregs: fpregsOf(area, xsaveLayout(area.length, enabled(area))),
    tls: [],
  };
}

/** Components that the kernel keeps for programs: it puts XCR0 where a signal frame would say so. */
function enabled(area: Uint8Array): bigint {
  return viewOf(area).getBigUint64(SW_BYTES_AT, true);
}

/** The general registers of the image. */
export function restoreGeneral({ gpregs }: ThreadInfo): Registers {
  const registers = new Registers();
  for (const [field, register] of names) registers.set(register, gpregs[field]);
  return registers;
}

let model: Uint8Array | undefined;

/** Sets the extended state of a stopped thread. @throws UnsupportedError where this processor has no place for it */
export function restoreXstate(tid: number, { gpregs, fpregs }: ThreadInfo): void {
  if (gpregs.mode === 'COMPAT') {
    throw new UnsupportedError({ what: `thread ${tid}`, why: 'it runs 32-bit code', remedy: 'restore it with CRIU' });
  }
  // What a new thread has tells where the components are, for all of them.
  model ??= readXstate(tid);
  const area = areaOf(fpregs, xsaveLayout(model.length, enabled(model)), `core-${tid}.img`);
  area.set(model.subarray(SW_BYTES_AT, SW_BYTES_AT + 8), SW_BYTES_AT);
  writeXstate(tid, area);
}

/**
 * Writes the frame by which a thread that loses its tracer goes back to where it was (src/asm/batch.ts), with registers and
 * signal mask as they were found.
 *
 * @returns what is to be copied over
 */
export function writeFrame(remote: Remote): Mirrored {
  const { tracee, frame } = remote;
  const registers = resumable(tracee.registers);
  const area = tracee.xstate;
  const fpstate = Math.ceil(ucontext.size / 64) * 64;
  const view = viewOf(frame.bytes);
  frame.bytes.set(FRAME);
  view.setBigUint64(ucontext.offsets.fpstate, BigInt(frame.address + fpstate), true);
  view.setBigUint64(ucontext.offsets.uc_sigmask, tracee.sigmask, true);
  for (const name of GENERAL) registers.copy(name, view, ucontext.offsets[name]);
  for (const name of SEGMENTS) view.setUint16(ucontext.offsets[name], registers.number(name), true);
  frame.bytes.set(area, fpstate);
  frame.bytes.set(softwareBytes(view.getBigUint64(fpstate + SW_BYTES_AT, true), area.length), fpstate + SW_BYTES_AT);
  view.setUint32(fpstate + area.length, FP_XSTATE_MAGIC2, true);
  return remote.frameRange(fpstate + area.length + 4);
}

let software: { readonly xfeatures: bigint; readonly size: number; readonly bytes: Uint8Array } | undefined;

/** What a frame says of an xsave area, as a rule the same for all threads. */
function softwareBytes(xfeatures: bigint, size: number): Uint8Array {
  if (software?.xfeatures !== xfeatures || software.size !== size) {
    const fields = { magic1: FP_XSTATE_MAGIC1, extended_size: size + 4, xfeatures, xstate_size: size };
    software = { xfeatures, size, bytes: fpx_sw_bytes.write(fields) };
  }
  return software.bytes;
}

/** What is the same in all. */
const FRAME = ucontext.write({
  uc_flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
  // A flag that sigaltstack(2) refuses leaves the alternate stack as it is.
  uc_stack: { ss_sp: 0, ss_flags: 0x7f, ss_size: 0 },
});

const GENERAL = [
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rdi', 'rsi', 'rbp', 'rbx'] as const),
  ...(['rdx', 'rax', 'rcx', 'rsp', 'rip', 'eflags'] as const),
];
const SEGMENTS = ['cs', 'ss', 'fs', 'gs'] as const;
