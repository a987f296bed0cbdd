/**
 * Tracing another process: ptrace(2).
 *
 * A tracee belongs to the thread that attached: every call here must come from that one (others get ESRCH), and when it
 * ends, its tracees go on or, with PTRACE_O_EXITKILL, die. A child of node:child_process must not be traced across a turn of
 * the event loop: libuv waits for its children and takes their stops for ends.
 */
import { Errno } from '../abi/errno.ts';
import * as abi from '../abi/ptrace.ts';
import { iovec } from '../abi/uio.ts';
import { __WALL, type WaitStatus, WNOHANG, waitStatus } from '../abi/wait.ts';
import { interruptAfter } from './deadline.ts';
import { wait4 } from './process.ts';
import { Region } from './region.ts';
import { type Address, int, oneOf, syscall, word } from './syscall.ts';

/**
 * `addr` and `data` mean what the request says.
 *
 * @throws SyscallError ESRCH (gone, not stopped, or another's tracee), EPERM (no access, or traced already), EIO (unknown
 *   request, bad register contents)
 */
export const ptrace = syscall('ptrace', 101, {
  request: oneOf(abi, /^PTRACE_(?!EVENT_|O_|PEEKSIGINFO_SHARED|SYSCALL_INFO_)/),
  pid: int,
  addr: word,
  data: word,
});

/** Attaches without stopping. @param options PTRACE_O_* */
export function seize(tid: number, options = 0): void {
  ptrace({ request: abi.PTRACE_SEIZE, pid: tid, addr: 0, data: options });
}

/** Asks a seized tracee to stop; the stop is reported as PTRACE_EVENT_STOP, if no other one comes first. */
export function interrupt(tid: number): void {
  ptrace({ request: abi.PTRACE_INTERRUPT, pid: tid, addr: 0, data: 0 });
}

/** Lets a stopped tracee go on. @param signal to deliver, or 0 */
export function cont(tid: number, signal = 0): void {
  ptrace({ request: abi.PTRACE_CONT, pid: tid, addr: 0, data: signal });
}

/** Lets a stopped tracee perform one instruction. */
export function singlestep(tid: number, signal = 0): void {
  ptrace({ request: abi.PTRACE_SINGLESTEP, pid: tid, addr: 0, data: signal });
}

/** Leaves a tracee in its group-stop, as it would be without a tracer. */
export function listen(tid: number): void {
  ptrace({ request: abi.PTRACE_LISTEN, pid: tid, addr: 0, data: 0 });
}

/** Lets go of a stopped tracee for good. @param signal to deliver, or 0 */
export function detach(tid: number, signal = 0): void {
  ptrace({ request: abi.PTRACE_DETACH, pid: tid, addr: 0, data: signal });
}

/** How long a tracee may take to report something if nothing else is said, in ms: whatever it does, it then hangs. */
export const PATIENCE = 300_000;
/**
 * Waits for what a tracee reports next.
 *
 * @param timeout in milliseconds
 * @returns undefined when the time was over first
 * @throws SyscallError ECHILD (not a tracee or child)
 */
export function waitTracee(tid: number, timeout = PATIENCE): WaitStatus | undefined {
  const { address, view } = room();
  const args = { pid: tid, wstatus: address + STATUS, options: __WALL | WNOHANG, rusage: 0 };
  let result = wait4.attempt(args);
  // A pidfd does not signal stops of tracees, so that there is nothing to poll(2), and wait4(2) knows no time limit.
  if (result === 0 && timeout > 0) {
    const started = performance.now();
    interruptAfter(timeout);
    try {
      do result = wait4.attempt({ ...args, options: __WALL });
      while (result === -Errno.EINTR && performance.now() - started < timeout);
    } finally {
      interruptAfter(0);
    }
  }
  if (result > 0) return waitStatus(view.getInt32(STATUS, true));
  if (result < 0 && result !== -Errno.EINTR) throw wait4.error(args, result);
  return undefined;
}

/**
 * Reads a register set into memory at `into`, an address here (of a Region).
 *
 * @param type NT_PRSTATUS (a user_regs_struct), NT_X86_XSTATE, ...
 * @param size room in bytes @returns bytes of the set
 */
export function getRegset(tid: number, type: number, into: Address, size: number): number {
  return regset(abi.PTRACE_GETREGSET, tid, type, into, size);
}

/** Writes a register set from memory at `from`, an address here. @returns bytes taken */
export function setRegset(tid: number, type: number, from: Address, size: number): number {
  return regset(abi.PTRACE_SETREGSET, tid, type, from, size);
}

/** Blocked signals, signal n being bit n - 1. */
export function getSigmask(tid: number): bigint {
  const { address, view } = room();
  ptrace({ request: abi.PTRACE_GETSIGMASK, pid: tid, addr: MASK_SIZE, data: address + MASK });
  return view.getBigUint64(MASK, true);
}

export function setSigmask(tid: number, blocked: bigint): void {
  const { address, view } = room();
  view.setBigUint64(MASK, blocked, true);
  ptrace({ request: abi.PTRACE_SETSIGMASK, pid: tid, addr: MASK_SIZE, data: address + MASK });
}

/** The siginfo of the signal that a tracee stopped for, 128 bytes. @throws SyscallError EINVAL (stopped by none) */
export function getSiginfo(tid: number, into: Uint8Array | Address): void {
  ptrace({ request: abi.PTRACE_GETSIGINFO, pid: tid, addr: 0, data: into });
}

/**
 * Reads pending signals without taking them.
 *
 * @param from `off`: how many to leave out; `flags`: PTRACE_PEEKSIGINFO_SHARED or 0; `nr`: how many at most
 * @param into room for `nr` siginfos of 128 bytes
 * @returns how many there are, 0 behind the last one
 */
export function peekSiginfo(
  tid: number,
  from: { readonly off: number; readonly flags: number; readonly nr: number },
  into: Uint8Array | Address,
): number {
  const addr = abi.ptrace_peeksiginfo_args.write(from);
  return ptrace({ request: abi.PTRACE_PEEKSIGINFO, pid: tid, addr, data: into });
}

/** Where and how a thread registered rseq(2); a pointer of 0 says that it did not. @throws SyscallError EIO (not built in) */
export function getRseqConfiguration(tid: number): ReturnType<typeof abi.ptrace_rseq_configuration.read> {
  const { address, bytes } = room();
  const { size } = abi.ptrace_rseq_configuration;
  ptrace({ request: abi.PTRACE_GET_RSEQ_CONFIGURATION, pid: tid, addr: size, data: address + RSEQ });
  return abi.ptrace_rseq_configuration.read(bytes, RSEQ);
}

/** Where small arguments and answers lie, of which a process with many threads has thousands: nothing is copied to it and back. */
let small: Region | undefined;
const [VECTOR, STATUS, MASK, RSEQ] = [0, 16, 24, 32];
const MASK_SIZE = 8;

function room(): Region {
  small ??= new Region(4096);
  return small;
}

function regset(request: number, tid: number, type: number, at: Address, size: number): number {
  const { address, view } = room();
  const { iov_base, iov_len } = iovec.offsets;
  view.setBigUint64(VECTOR + iov_base, BigInt(at), true);
  view.setUint32(VECTOR + iov_len, size, true);
  view.setUint32(VECTOR + iov_len + 4, 0, true);
  ptrace({ request, pid: tid, addr: type, data: address + VECTOR });
  return view.getUint32(VECTOR + iov_len, true);
}
