/**
 * One thread of another process, stopped and put back as if nothing had happened: ptrace(2) by PTRACE_SEIZE, which sends no
 * signal. If this process is killed meanwhile, the kernel lets its tracees go on where their registers point; so
 * code of ours that runs in one ends by going back there (doorstep.ts, src/asm/batch.ts).
 */
import { Errno } from '../abi/errno.ts';
import * as abi from '../abi/ptrace.ts';
import { SIGTRAP, siginfo } from '../abi/signal.ts';
import { viewOf } from '../abi/struct.ts';
import { NR } from '../abi/unistd.ts';
import type { WaitStatus } from '../abi/wait.ts';
import { SyscallError, TideoverError, UnsupportedError } from '../errors.ts';
import { sleep, tgkill } from '../sys/process.ts';
import {
  cont,
  detach,
  getRegset,
  getRseqConfiguration,
  getSiginfo,
  getSigmask,
  interrupt,
  PATIENCE,
  ptrace,
  seize,
  setRegset,
  setSigmask,
  waitTracee,
} from '../sys/ptrace.ts';
import { Region } from '../sys/region.ts';
import { readStatus, type Status } from '../sys/stat.ts';

const { offsets, size: REGS_SIZE } = abi.user_regs_struct;
export type RegisterName = keyof typeof offsets;

/** A user_regs_struct, its registers by name. */
export class Registers {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array = new Uint8Array(REGS_SIZE)) {
    this.bytes = bytes;
    this.#view = viewOf(bytes);
  }

  /** Of a thread that runs 32-bit code: the kernel gives the registers of that, and none by the names here. */
  get areOf32Bits(): boolean {
    return this.bytes.length !== REGS_SIZE;
  }

  get(name: RegisterName): bigint {
    return this.#view.getBigUint64(offsets[name], true);
  }

  /** As a signed number, for results, addresses and small values. */
  number(name: RegisterName): number {
    return this.#view.getInt32(offsets[name] + 4, true) * 2 ** 32 + this.#view.getUint32(offsets[name], true);
  }

  set(name: RegisterName, value: bigint | number): void {
    if (typeof value === 'bigint') this.#view.setBigUint64(offsets[name], BigInt.asUintN(64, value), true);
    else {
      this.#view.setUint32(offsets[name], value >>> 0, true);
      this.#view.setInt32(offsets[name] + 4, Math.floor(value / 2 ** 32), true);
    }
  }

  /** Puts all 64 bits of one into other bytes. */
  copy(name: RegisterName, to: DataView, at: number): void {
    to.setUint32(at, this.#view.getUint32(offsets[name], true), true);
    to.setUint32(at + 4, this.#view.getUint32(offsets[name] + 4, true), true);
  }

  clone(): Registers {
    return new Registers(this.bytes.slice());
  }
}

/** Where register sets lie while ptrace(2) reads and fills them; AMX makes the largest, 11 KiB. */
let buffer: Region | undefined;
const ROOM = 16384;

export function readRegisters(tid: number): Registers {
  buffer ??= new Region(ROOM);
  const size = getRegset(tid, abi.NT_PRSTATUS, buffer.address, REGS_SIZE);
  return new Registers(buffer.bytes.slice(0, size));
}

/** One of them, as Registers.number() gives it. */
export function readRegister(tid: number, name: RegisterName): number {
  buffer ??= new Region(ROOM);
  getRegset(tid, abi.NT_PRSTATUS, buffer.address, REGS_SIZE);
  return buffer.view.getInt32(offsets[name] + 4, true) * 2 ** 32 + buffer.view.getUint32(offsets[name], true);
}

/** Registers to be changed and written at once: the same ones each time, with what others have. */
export function registersLike({ bytes }: Registers): Registers {
  buffer ??= new Region(ROOM);
  changed ??= new Registers(buffer.bytes.subarray(0, REGS_SIZE));
  changed.bytes.set(bytes);
  return changed;
}

let changed: Registers | undefined;

export function writeRegisters(tid: number, registers: Registers): void {
  buffer ??= new Region(ROOM);
  buffer.bytes.set(registers.bytes);
  setRegset(tid, abi.NT_PRSTATUS, buffer.address, REGS_SIZE);
}

/** The whole xsave area, in its standard form. */
export function readXstate(tid: number): Uint8Array {
  buffer ??= new Region(ROOM);
  const size = getRegset(tid, abi.NT_X86_XSTATE, buffer.address, ROOM);
  return buffer.bytes.slice(0, size);
}

export function writeXstate(tid: number, area: Uint8Array): void {
  buffer ??= new Region(ROOM);
  buffer.bytes.set(area);
  setRegset(tid, abi.NT_X86_XSTATE, buffer.address, area.length);
}

/**
 * Calls that a stop ends with EINTR, unlike others, although no handler has run: signal(7), "Interruption of system calls and
 * library functions by stop signals".
 */
const ENDED_BY_STOP: ReadonlySet<number> = new Set([
  ...[NR.epoll_wait, NR.epoll_pwait, NR.epoll_pwait2, NR.semop, NR.semtimedop, NR.rt_sigtimedwait],
  ...[NR.io_getevents, NR.io_pgetevents, NR.io_uring_enter, NR.msgrcv, NR.msgsnd],
]);
const EINTR = -4;
/** The call is made again, unless a signal comes that has a handler: include/linux/errno.h of the kernel. */
const ERESTARTNOHAND = -514;

/** Has the kernel make a call again that only our stop has ended. */
function madeAgain(registers: Registers): Registers {
  if (registers.areOf32Bits) return registers;
  if (registers.number('rax') === EINTR && ENDED_BY_STOP.has(registers.number('orig_rax'))) {
    registers.set('rax', ERESTARTNOHAND);
  }
  return registers;
}

type Stopped = WaitStatus & { kind: 'stopped' };

/** A thread that ended while it was to be stopped. */
export class TraceeGone extends TideoverError {
  readonly code = 'gone';

  constructor(tid: number) {
    super(`thread ${tid} ended while it was being stopped`);
  }
}

export class Tracee {
  readonly pid: number;
  readonly tid: number;
  /** As it was found; what it goes on with. */
  registers: Registers;
  /** As it was found; what it goes on with. */
  sigmask: bigint;
  /** The signal that stopped the process before we came (SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU), or 0. */
  readonly stopSignal: number;
  /** Signals that came while code of ours ran, as siginfo. */
  readonly deferred: Uint8Array[] = [];
  #released = false;
  #status: Status | undefined;
  #xstate: Uint8Array | undefined;
  #rseq: ReturnType<typeof getRseqConfiguration> | undefined;

  private constructor(pid: number, tid: number, stopSignal: number, like?: Tracee) {
    this.pid = pid;
    this.tid = tid;
    this.stopSignal = stopSignal;
    this.registers = like?.registers.clone() ?? madeAgain(readRegisters(tid));
    this.sigmask = like?.sigmask ?? getSigmask(tid);
  }

  /** Asks a thread to stop; `stopped` waits for it. @throws SyscallError ESRCH (gone), EPERM (no access, or traced) */
  static attach(tid: number): void {
    seize(tid, abi.PTRACE_O_TRACESYSGOOD);
    interrupt(tid);
  }

  /**
   * Waits until an attached thread has stopped. A signal that it was about to get is delivered first, so that
   * its handler's frame is part of the state.
   *
   * @param timeout in milliseconds
   * @param meanwhile is called now and then as long as it does not stop
   * @throws TraceeGone, UnsupportedError (it does not stop: it waits in the kernel, as in vfork)
   */
  static stopped(pid: number, tid: number, timeout: number, meanwhile?: () => void): Tracee {
    for (;;) {
      const status = meanwhile === undefined ? waitTracee(tid, timeout) : waitDoing(tid, timeout, meanwhile);
      if (status === undefined) throw doesNotStop(pid, tid, timeout);
      if (status.kind !== 'stopped') throw new TraceeGone(tid);
      if (status.event === abi.PTRACE_EVENT_STOP) {
        return new Tracee(pid, tid, status.signal === SIGTRAP ? 0 : status.signal);
      }
      cont(tid, status.signal);
    }
  }

  /** Lets it go on for some nanoseconds and stops it again: as it is then. @throws what stopped() does */
  aMomentLater(moment: number, timeout: number): Tracee {
    cont(this.tid);
    sleep(moment);
    interrupt(this.tid);
    return Tracee.stopped(this.pid, this.tid, timeout);
  }

  /** A tracee that is stopped already: a child that CLONE_PTRACE gave us. */
  static stoppedChild(pid: number, tid: number): Tracee {
    expectStop(tid, (status) => status.event === abi.PTRACE_EVENT_STOP);
    return new Tracee(pid, tid, 0);
  }

  /** A thread that one of ours has just made, and that is known to be stopped: nothing has run in it. */
  static cloned(maker: Tracee, tid: number): Tracee {
    return new Tracee(maker.pid, tid, 0, maker);
  }

  /** A tracee that is known to be stopped. */
  static found(pid: number, tid: number): Tracee {
    return new Tracee(pid, tid, 0);
  }

  /** What /proc says of it, as it was when it was asked for first. */
  get status(): Status {
    this.#status ??= readStatus(`${this.pid}/task/${this.tid}`);
    return this.#status;
  }

  /** Its xsave area, as it was when it was asked for first. */
  get xstate(): Uint8Array {
    this.#xstate ??= readXstate(this.tid);
    return this.#xstate;
  }

  /** Where it registered rseq(2), as it was when it was asked for first. */
  get rseq(): ReturnType<typeof getRseqConfiguration> {
    this.#rseq ??= getRseqConfiguration(this.tid);
    return this.#rseq;
  }

  unblockSignals(): void {
    setSigmask(this.tid, 0n);
  }

  /** Blocks signals, so that none is handled by code of the process while code of ours runs in it. @param but one that is not */
  blockSignals(but = 0): void {
    setSigmask(this.tid, but === 0 ? ALL : ALL & ~(1n << BigInt(but - 1)));
  }

  /**
   * Goes to a system call, for which the registers are set; crossSyscall() lets the kernel perform it, endSyscall() waits until it
   * has. Not by PTRACE_SINGLESTEP, whose trap resets a SIGTRAP that the process ignores.
   */
  beginSyscall(): void {
    goToSyscall(this.tid);
  }

  crossSyscall(): void {
    this.endSyscall();
    goToSyscall(this.tid);
  }

  endSyscall(): void {
    this.expect((status) => status.signal === SYSCALL_STOP, goToSyscall);
  }

  /**
   * Waits for one stop while code of ours runs in the thread. A signal that cannot be blocked (SIGSTOP) and comes between is kept
   * for later.
   *
   * @param again how the thread goes on after another stop
   */
  expect(wanted: (status: Stopped) => boolean, again: (tid: number) => void = cont): void {
    const others = (status: Stopped) => {
      if (status.event !== 0) return false;
      const info = new Uint8Array(siginfo.size);
      getSiginfo(this.tid, info);
      this.deferred.push(info);
      again(this.tid);
      return true;
    };
    expectStop(this.tid, wanted, () => again(this.tid), others);
  }

  /** Puts mask and registers back, in this order: code of ours takes a thread without tracer back by itself. */
  putBack(): void {
    setSigmask(this.tid, this.sigmask);
    // Nothing has run in such a thread, and with these registers it would lose what the 64-bit ones have more.
    if (!this.registers.areOf32Bits) writeRegisters(this.tid, this.registers);
  }

  /** Puts registers and signal mask back and lets go. */
  release(): void {
    if (this.#released) return;
    this.putBack();
    this.letGo();
  }

  /** Lets go of the thread as it is. */
  letGo(): void {
    this.#released = true;
    for (const info of this.deferred.splice(0)) {
      tgkill({ tgid: this.pid, tid: this.tid, sig: siginfo.read(info).si_signo });
    }
    detach(this.tid);
  }

  /** It is killed and reaped, or nobody's business any more. */
  forget(): void {
    this.#released = true;
  }

  get released(): boolean {
    return this.#released;
  }
}

/** With PTRACE_O_TRACESYSGOOD, ptrace(2). */
export const SYSCALL_STOP = SIGTRAP | 0x80;

export function goToSyscall(tid: number): void {
  ptrace({ request: abi.PTRACE_SYSCALL, pid: tid, addr: 0, data: 0 });
}

const ALL = 0xffff_ffff_ffff_ffffn;

/**
 * Waits for one stop of a running tracee. Stops that an earlier PTRACE_INTERRUPT or a group-stop left behind are gone past.
 *
 * @param again how the tracee is made to go on after one of those
 * @param other takes a stop that is neither, and lets the tracee go on; or says that it does not
 * @throws TraceeGone; UnsupportedError on a stop that nothing explains, and where none comes
 */
export function expectStop(
  tid: number,
  wanted: (status: Stopped) => boolean,
  again: () => void = () => cont(tid),
  other: (status: Stopped) => boolean = () => false,
): Stopped {
  for (;;) {
    const status = waitTracee(tid);
    if (status === undefined) throw neverEnds(tid);
    if (status.kind !== 'stopped') throw new TraceeGone(tid);
    if (wanted(status)) return status;
    if (other(status)) continue;
    if (status.event !== abi.PTRACE_EVENT_STOP) {
      throw new UnsupportedError({
        what: `thread ${tid}`,
        why: `code that tideover runs in it got signal ${status.signal} (event ${status.event})`,
        remedy: 'try again; if it happens again, report it with the program',
      });
    }
    again();
  }
}

/** Waits until a tracee that was killed, or is to end by itself, has done so. @param stop what to do when it stops on its way */
export function expectEnd(tid: number, stop: (status: Stopped) => void = () => undefined): void {
  for (;;) {
    const status = waitTracee(tid);
    if (status === undefined) throw neverEnds(tid);
    if (status.kind !== 'stopped') return;
    stop(status);
  }
}

/**
 * Waits until killed tracees have ended, in whatever order they do: the last thread of the init of a PID namespace waits in the kernel
 * until all others there are reaped, also those of its own process.
 *
 * @returns those that do not
 */
export function reapEach(tids: readonly number[]): number[] {
  let left = [...tids];
  const until = performance.now() + PATIENCE;
  for (let pause = 0; left.length > 0 && performance.now() < until; ) {
    const still = left.filter((tid) => !hasEnded(tid, pause));
    // Nobody has to be waited for as long as there is somebody to be reaped.
    pause = still.length < left.length ? 0 : 1;
    left = still;
  }
  return left;
}

/** @param timeout in milliseconds */
function hasEnded(tid: number, timeout: number): boolean {
  try {
    const status = waitTracee(tid, timeout);
    return status !== undefined && status.kind !== 'stopped';
  } catch (error) {
    // It is no tracee or child of ours any more.
    if (error instanceof SyscallError && error.errno === Errno.ECHILD) return true;
    throw error;
  }
}

export function neverEnds(tid: number): UnsupportedError {
  return new UnsupportedError({
    what: `thread ${tid}`,
    why: `what tideover does in it does not come to an end (see /proc/${tid}/stack)`,
    remedy: 'try again; if it happens again, report it with the program',
  });
}

/** Sets PTRACE_O_* of a stopped tracee. */
export function setOptions(tid: number, options: number): void {
  ptrace({ request: abi.PTRACE_SETOPTIONS, pid: tid, addr: 0, data: options });
}

/** waitTracee(), with something to be done as long as there is nothing. */
function waitDoing(tid: number, timeout: number, meanwhile: () => void): ReturnType<typeof waitTracee> {
  for (const until = performance.now() + timeout; ; meanwhile()) {
    const status = waitTracee(tid, Math.min(timeout, MOMENT));
    if (status !== undefined || performance.now() > until) return status;
  }
}

/** In milliseconds: what stops does so sooner. */
const MOMENT = 20;

function doesNotStop(pid: number, tid: number, timeout: number): UnsupportedError {
  return new UnsupportedError({
    what: `thread ${tid}`,
    pid,
    why: `it did not stop within ${timeout / 1000} s: it waits in the kernel for something that cannot be interrupted (see /proc/${tid}/stack)`,
    remedy: 'try again when that is done, or with a longer --timeout',
  });
}
