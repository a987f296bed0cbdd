/**
 * The init of a workload: process 1 of its PID namespace, a program of a page that is never changed, so that a kernel knows it again.
 * It starts the command, passes signals on, reaps, and ends with the command; the kernel ends the rest of the namespace then
 * (pid_namespaces(7)).
 *
 *     argv    name, path of the command, the command's argv[0], argv[1], ...
 *     fd 0    the command's input               fd 3    master of the command's terminal, or nothing
 *     fd 1    its output; what a terminal's     fd 4    its slave: kept open, so that the master is never hung up
 *     fd 2    master says goes to 1             others  closed
 *
 * It needs no memory but the stack it is given, and has no state but the descriptor of its signals.
 */
import { ET_EXEC, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_LOAD } from '../abi/elf.ts';
import { elfHeadersSize, writeElfHeaders } from '../abi/elfheaders.ts';
import { F_GETFD, O_CLOEXEC } from '../abi/fcntl.ts';
import { POLLIN, pollfd } from '../abi/poll.ts';
import { SIG_SETMASK, SIGCHLD, SIGKILL } from '../abi/signal.ts';
import { TIOCSCTTY } from '../abi/termios.ts';
import { NR } from '../abi/unistd.ts';
import { __WALL, WNOHANG } from '../abi/wait.ts';
import { assemble, type Item } from './assemble.ts';
import {
  and,
  cmp,
  dec,
  inc,
  je,
  jmp,
  jne,
  jnz,
  js,
  jz,
  lea,
  mov,
  shr,
  sub,
  syscall,
  test,
  xor,
} from './instructions.ts';
import {
  byte,
  dword,
  eax,
  ebx,
  ecx,
  edi,
  edx,
  esi,
  type Gpr,
  type Label,
  label,
  mem,
  qword,
  r8,
  r8d,
  r9,
  r9d,
  r10,
  r10d,
  r12,
  r12d,
  r13,
  r13d,
  r14,
  r14d,
  r15,
  rax,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
} from './operands.ts';

/** Descriptors of a terminal. */
export const INIT_MASTER = 3;
export const INIT_SLAVE = 4;

/** The init's status where the command cannot be executed, as a shell's. */
export const NOT_EXECUTED = 127;
/** Where it cannot be forked. */
const NOT_FORKED = 126;
/** A command that was ended by a signal gives this and its number. */
export const BY_SIGNAL = 128;

/** SFD_CLOEXEC of include/uapi/linux/signalfd.h. */
const SFD_CLOEXEC = O_CLOEXEC;
/** _NSIG of arch/x86/include/uapi/asm/signal.h, and bytes of a mask of them. */
const SIGNALS = 64;
const MASK_SIZE = 8;
const SIGINFO_SIZE = 128;

/** On the stack, from rsp. */
const SIGINFO = 0;
const ALL = 128;
/** A struct sigaction for SIG_DFL, and an empty mask. */
const ZEROS = 136;
const STATUS = 168;
const POLL = 176;
const BUFFER = 192;
const BUFFER_SIZE = 4096;
const FRAME = BUFFER + BUFFER_SIZE;

const SIGNAL_REVENTS = POLL + pollfd.offsets.revents;
const MASTER_POLL = POLL + pollfd.size;
const MASTER_REVENTS = MASTER_POLL + pollfd.offsets.revents;

/** Where the program is, far from where the kernel puts anything. */
const ADDRESS = 0x400000;
const PAGE = 4096;

let made: Uint8Array | undefined;

/** The program: an ELF file. */
export function initProgram(): Uint8Array {
  if (made !== undefined) return made;
  const head = elfHeadersSize(2);
  const { bytes } = assemble(code());
  const size = BigInt(head + bytes.length);
  const whole = { p_offset: 0n, p_vaddr: BigInt(ADDRESS), p_paddr: BigInt(ADDRESS), p_align: BigInt(PAGE) };
  const segments = [
    { p_type: PT_LOAD, p_flags: PF_R | PF_X, ...whole, p_filesz: size, p_memsz: size },
    { p_type: PT_GNU_STACK, p_flags: PF_R | PF_W, p_align: 16n },
  ];
  made = Buffer.concat([writeElfHeaders({ type: ET_EXEC, entry: BigInt(ADDRESS + head), segments }), bytes]);
  return made;
}

// --- the code: r12 descriptor of signals, r13 the command's process, r14 descriptors to poll, r15 argc and what follows it ---------

function code(): Item[] {
  const [child, failed, next, noOutput, reap, ended] = (
    ['child', 'failed', 'next', 'no_output', 'reap', 'ended'] as const
  ).map((name) => label(name)) as [Label, Label, Label, Label, Label, Label];
  const noTerminal = label('no_terminal');
  return [
    mov(r15, rsp),
    sub(rsp, FRAME),
    // Also what is sent before the command is there waits. The kernel ignores what an init has no handler for, unless it is blocked.
    mov(qword({ base: rsp, disp: ALL }), -1),
    call(NR.rt_sigprocmask, SIG_SETMASK, at(ALL), 0, MASK_SIZE),
    // Before a descriptor of ours can have the number.
    mov(r14d, 1),
    call(NR.fcntl, INIT_MASTER, F_GETFD),
    ...[test(eax, eax), js(noTerminal), inc(r14d), noTerminal],
    call(NR.signalfd4, -1, at(ALL), MASK_SIZE, SFD_CLOEXEC),
    mov(r12, rax),
    call(NR.fork),
    ...[test(eax, eax), jz(child), js(failed)],
    mov(r13, rax),
    watch(POLL, r12d),
    ...[mov(eax, INIT_MASTER), watch(MASTER_POLL, eax)],

    next,
    call(NR.poll, at(POLL), r14, -1),
    ...[test(eax, eax), js(next)],
    ...[test(byte({ base: rsp, disp: MASTER_REVENTS }), 0xff), jz(noOutput), copyOutput(), noOutput],
    ...[test(byte({ base: rsp, disp: SIGNAL_REVENTS }), POLLIN), jz(next)],
    call(NR.read, r12, at(SIGINFO), SIGINFO_SIZE),
    ...[mov(esi, dword({ base: rsp, disp: SIGINFO })), cmp(esi, SIGCHLD), je(reap)],
    call(NR.kill, r13, rsi),
    jmp(next),

    // One SIGCHLD may stand for many.
    reap,
    call(NR.wait4, -1, at(STATUS), WNOHANG | __WALL, 0),
    ...[test(eax, eax), js(next), jz(next)],
    ...[cmp(eax, r13d), jne(reap)],
    jmp(ended),

    endWithCommand(ended),
    becomeCommand(child),
    failed,
    call(NR.exit_group, NOT_FORKED),
  ];
}

/** Moves what the terminal has to say into the output. One that says no more is not asked any more. */
function copyOutput(): Item[] {
  const [closed, done] = [label('closed'), label('done')];
  return [
    call(NR.read, INIT_MASTER, at(BUFFER), BUFFER_SIZE),
    ...[test(eax, eax), js(closed), jz(closed)],
    call(NR.write, 1, at(BUFFER), rax),
    jmp(done),
    closed,
    mov(r14d, 1),
    mov(byte({ base: rsp, disp: MASTER_REVENTS }), 0),
    done,
  ];
}

/** The others of the namespace end, then what they have written is all there is. */
function endWithCommand(ended: Label): Item[] {
  const [drain, drained, exited, exit] = [label('drain'), label('drained'), label('exited'), label('exit')];
  return [
    ended,
    // Without a namespace of its own everybody would be meant.
    ...[call(NR.getpid), cmp(eax, 1), jne(drain)],
    call(NR.kill, -1, SIGKILL),
    drain,
    ...[cmp(r14d, 2), jne(drained)],
    call(NR.poll, at(MASTER_POLL), 1, 0),
    ...[test(eax, eax), js(drained), jz(drained)],
    copyOutput(),
    jmp(drain),
    drained,
    ...[mov(eax, dword({ base: rsp, disp: STATUS })), mov(ecx, eax), and(ecx, 0x7f), jz(exited)],
    ...[lea(edi, mem({ base: rcx, disp: BY_SIGNAL })), jmp(exit)],
    exited,
    ...[shr(eax, 8), and(eax, 0xff), mov(edi, eax)],
    exit,
    ...[mov(eax, NR.exit_group), syscall()],
  ];
}

function becomeCommand(child: Label): Item[] {
  const [noTerminal, reset] = [label('child_without_terminal'), label('reset')];
  return [
    child,
    call(NR.setsid),
    ...[cmp(r14d, 2), jne(noTerminal)],
    call(NR.ioctl, INIT_SLAVE, TIOCSCTTY, 0),
    ...[0, 1, 2].map((fd) => call(NR.dup2, INIT_SLAVE, fd)),
    ...[INIT_MASTER, INIT_SLAVE].map((fd) => call(NR.close, fd)),
    noTerminal,
    // What whoever started us ignores the command does not.
    [0, 8, 16, 24].map((more) => mov(qword({ base: rsp, disp: ZEROS + more }), 0)),
    mov(ebx, SIGNALS),
    reset,
    ...[mov(edi, ebx), call(NR.rt_sigaction, undefined, at(ZEROS), 0, MASK_SIZE), dec(ebx), jnz(reset)],
    call(NR.rt_sigprocmask, SIG_SETMASK, at(ZEROS), 0, MASK_SIZE),
    // argv[1], &argv[2], &argv[argc + 1]
    mov(rdi, qword({ base: r15, disp: 16 })),
    lea(rsi, mem({ base: r15, disp: 24 })),
    mov(rax, qword({ base: r15 })),
    lea(rdx, mem({ base: r15, index: rax, scale: 8, disp: 16 })),
    call(NR.execve),
    call(NR.exit_group, NOT_EXECUTED),
  ];
}

/** Asks for what can be read. @param poll where its struct pollfd is */
function watch(poll: number, fd: Gpr<32>): Item[] {
  return [
    mov(dword({ base: rsp, disp: poll }), fd),
    // events, and no revents
    mov(dword({ base: rsp, disp: poll + pollfd.offsets.events }), POLLIN),
  ];
}

/** An address on the stack. */
interface OnStack {
  readonly disp: number;
}

const at = (disp: number): OnStack => ({ disp });

/** In the kernel's order: psABI, appendix A.2. */
const registers = [
  { wide: rdi, narrow: edi },
  { wide: rsi, narrow: esi },
  { wide: rdx, narrow: edx },
  { wide: r10, narrow: r10d },
  { wide: r8, narrow: r8d },
  { wide: r9, narrow: r9d },
] as const;

/** A system call; an argument is a number, a register, an address on the stack, or undefined where it is there already. */
function call(nr: number, ...args: readonly (number | Gpr<64> | OnStack | undefined)[]): Item[] {
  return [
    args.map((value, i): Item[] => {
      const { wide, narrow } = registers[i]!;
      if (value === undefined || value === wide) return [];
      if (typeof value !== 'number')
        return ['disp' in value ? lea(wide, mem({ base: rsp, ...value })) : mov(wide, value)];
      if (value === 0) return [xor(narrow, narrow)];
      return [value < 0 ? mov(wide, value) : mov(narrow, value)];
    }),
    mov(eax, nr),
    syscall(),
  ];
}
