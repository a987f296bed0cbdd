/**
 * Making a process: clone3(2).
 *
 * A child of a JavaScript program cannot go on where its parent does: it has one thread where there were ten, or
 * with CLONE_VM shares the very stack. So the child touches no stack at all: it waits in pause(2), in a page of code of its
 * own, until it is traced and given other registers, or killed.
 */
import * as sched from '../abi/sched.ts';
import { SyscallError } from '../errors.ts';
import { getpid, getppid, signal } from './process.ts';
import { mapCode, Region } from './region.ts';
import { type Address, flags } from './syscall.ts';

export interface CloneArguments {
  /** CLONE_*. With CLONE_VM nothing is copied, the child sees this process's memory, and it must not outlive it. */
  readonly flags: number;
  /** What the parent gets when the child ends: SIGCHLD, or 0 for nothing (then wait with __WALL). */
  readonly exit_signal: number;
  /**
   * What the child gets when the thread that made it ends (PR_SET_PDEATHSIG): SIGKILL for one that nobody else could end.
   * Executing a program does not take it away.
   */
  readonly pdeath_sig?: number;
  /** Process id in each pid namespace, innermost first. Needs CAP_CHECKPOINT_RESTORE in them. */
  readonly set_tid?: readonly number[];
  /** Descriptor of a cgroup v2 folder, with CLONE_INTO_CGROUP. */
  readonly cgroup?: number;
}

/**
 * clone3(&args, size) in rdi and rsi, the child's pdeath_sig in edx, its parent's process id in r8d. No stack, no registers that the
 * parent needs. The child pauses for ever, or ends where its parent did before it could ask to be told: its parent is
 * then another one. A parent outside of its pid namespace is 0 to it.
 */
const CODE = Uint8Array.of(
  ...[0xb8, 0xb3, 0x01, 0x00, 0x00], // mov eax, 435 (clone3)
  ...[0x0f, 0x05], // syscall
  ...[0x48, 0x85, 0xc0], // test rax, rax
  ...[0x74, 0x01], // jz child
  0xc3, // ret
  ...[0x89, 0xd6], // child: mov esi, edx
  ...[0xbf, 0x01, 0x00, 0x00, 0x00], // mov edi, 1 (PR_SET_PDEATHSIG)
  ...[0xb8, 0x9d, 0x00, 0x00, 0x00], // mov eax, 157 (prctl)
  ...[0x0f, 0x05], // syscall
  ...[0xb8, 0x6e, 0x00, 0x00, 0x00], // mov eax, 110 (getppid)
  ...[0x0f, 0x05], // syscall
  ...[0x85, 0xc0], // test eax, eax
  ...[0x74, 0x0c], // jz wait
  ...[0x44, 0x39, 0xc0], // cmp eax, r8d
  ...[0x74, 0x07], // je wait
  ...[0xb8, 0x3c, 0x00, 0x00, 0x00], // mov eax, 60 (exit)
  ...[0x0f, 0x05], // syscall
  ...[0xb8, 0x22, 0x00, 0x00, 0x00], // wait: mov eax, 34 (pause)
  ...[0x0f, 0x05], // syscall
  ...[0xeb, 0xf7], // jmp wait
);
const PAUSE_SYSCALL = 55;

const ARGUMENTS = 0;
const SET_TID = 128;
const SET_TID_MAX = 32; // MAX_PID_NS_LEVEL of include/linux/pid_namespace.h
const PIDFD = 256;

interface Stub {
  readonly address: Address;
  readonly call: (...args: (number | bigint)[]) => number;
  readonly region: Region;
}
let stub: Stub | undefined;

/**
 * Makes a child that pauses.
 *
 * @returns its id, and with CLONE_PIDFD its descriptor
 * @throws SyscallError EEXIST (an id of set_tid is taken, also by a zombie), EPERM (set_tid or a namespace without the
 *   privilege), EINVAL (flags that do not go together), EAGAIN (limit of processes), ENOSYS (no clone3)
 */
export function clone3(args: CloneArguments): { pid: number; pidfd: number | undefined } {
  const { call, region } = loadStub();
  const ids = args.set_tid ?? [];
  if (ids.length > SET_TID_MAX) throw new RangeError(`${ids.length} process ids for one process`);
  for (const [i, id] of ids.entries()) region.view.setInt32(SET_TID + 4 * i, id, true);
  sched.clone_args.write(
    {
      flags: args.flags,
      exit_signal: args.exit_signal,
      pidfd: (args.flags & sched.CLONE_PIDFD) === 0 ? 0 : region.address + PIDFD,
      set_tid: ids.length === 0 ? 0 : region.address + SET_TID,
      set_tid_size: ids.length,
      cgroup: args.cgroup ?? 0,
    },
    region.bytes,
    ARGUMENTS,
  );
  const parent = (args.flags & sched.CLONE_PARENT) === 0 ? getpid({}) : getppid({});
  const pid = call(region.address + ARGUMENTS, sched.clone_args.size, args.pdeath_sig ?? 0, 0, parent);
  if (pid < 0) throw new SyscallError('clone3', shown(args), -pid);
  return { pid, pidfd: (args.flags & sched.CLONE_PIDFD) === 0 ? undefined : region.view.getInt32(PIDFD, true) };
}

/**
 * Address of the `syscall` instruction in which a child of clone3 pauses. With CLONE_VM a tracer that sets its registers
 * makes it perform any other call there, execveat(2) above all. Right after clone3 it may still be on its way there.
 */
export function pausedAt(): Address {
  return loadStub().address + PAUSE_SYSCALL;
}

function loadStub(): Stub {
  stub ??= { ...mapCode(CODE, 5), region: new Region(4096) };
  return stub;
}

const cloneFlags = flags(sched, /^CLONE_/);

function shown(args: CloneArguments): string {
  const parts = [`flags=${cloneFlags.show(args.flags)}`, `exit_signal=${signal.show(args.exit_signal)}`];
  if (args.set_tid !== undefined) parts.push(`set_tid=[${args.set_tid.join(', ')}]`);
  if (args.cgroup !== undefined) parts.push(`cgroup=${args.cgroup}`);
  return `clone3(${parts.join(', ')})`;
}
