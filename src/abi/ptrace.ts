/** Tracing: include/uapi/linux/ptrace.h, the register set types of linux/elf.h, and user_regs_struct of asm/user_64.h */
import { array, i32, i64n, struct, u8, u16, u32, u64, u64n } from './struct.ts';

export const PTRACE_CONT = 7;
export const PTRACE_KILL = 8;
export const PTRACE_SINGLESTEP = 9;
export const PTRACE_DETACH = 17;
export const PTRACE_SYSCALL = 24;
export const PTRACE_SETOPTIONS = 0x4200;
export const PTRACE_GETEVENTMSG = 0x4201;
export const PTRACE_GETSIGINFO = 0x4202;
export const PTRACE_SETSIGINFO = 0x4203;
export const PTRACE_GETREGSET = 0x4204;
export const PTRACE_SETREGSET = 0x4205;
export const PTRACE_SEIZE = 0x4206;
export const PTRACE_INTERRUPT = 0x4207;
export const PTRACE_LISTEN = 0x4208;
export const PTRACE_PEEKSIGINFO = 0x4209;
export const PTRACE_GETSIGMASK = 0x420a;
export const PTRACE_SETSIGMASK = 0x420b;
export const PTRACE_SECCOMP_GET_FILTER = 0x420c;
export const PTRACE_SECCOMP_GET_METADATA = 0x420d;
export const PTRACE_GET_SYSCALL_INFO = 0x420e;
/** Linux 5.13. */
export const PTRACE_GET_RSEQ_CONFIGURATION = 0x420f;
/** Linux 6.4. */
export const PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210;
export const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211;

/** Events: bits 16 and up of a stopped tracee's wait status. */
export const PTRACE_EVENT_FORK = 1;
export const PTRACE_EVENT_VFORK = 2;
export const PTRACE_EVENT_CLONE = 3;
export const PTRACE_EVENT_EXEC = 4;
export const PTRACE_EVENT_VFORK_DONE = 5;
export const PTRACE_EVENT_EXIT = 6;
export const PTRACE_EVENT_SECCOMP = 7;
export const PTRACE_EVENT_STOP = 128;

export const PTRACE_O_TRACESYSGOOD = 0x1;
export const PTRACE_O_TRACEFORK = 0x2;
export const PTRACE_O_TRACEVFORK = 0x4;
export const PTRACE_O_TRACECLONE = 0x8;
export const PTRACE_O_TRACEEXEC = 0x10;
export const PTRACE_O_TRACEVFORKDONE = 0x20;
export const PTRACE_O_TRACEEXIT = 0x40;
export const PTRACE_O_TRACESECCOMP = 0x80;
export const PTRACE_O_EXITKILL = 0x100000;
export const PTRACE_O_SUSPEND_SECCOMP = 0x200000;

/** Queue of the whole process instead of that of the thread. */
export const PTRACE_PEEKSIGINFO_SHARED = 0x1;

/** Register sets, as PTRACE_GETREGSET and the notes of core files name them. */
export const NT_PRSTATUS = 0x1;
export const NT_PRFPREG = 0x2;
/** Bitmap of the input and output ports that are allowed; a thread without has no such set. */
export const NT_386_IOPERM = 0x201;
export const NT_X86_XSTATE = 0x202;
export const NT_X86_SHSTK = 0x204;

export const ptrace_peeksiginfo_args = struct('ptrace_peeksiginfo_args', 16, { off: u64n, flags: u32, nr: i32 });

export const PTRACE_SYSCALL_INFO_NONE = 0;
export const PTRACE_SYSCALL_INFO_ENTRY = 1;
export const PTRACE_SYSCALL_INFO_EXIT = 2;
export const PTRACE_SYSCALL_INFO_SECCOMP = 3;

/** The head, and the union's `entry`, which the union's `seccomp` begins with too. */
export const ptrace_syscall_info_entry = struct('ptrace_syscall_info_entry', 80, {
  op: u8,
  reserved: u8,
  flags: u16,
  arch: u32,
  instruction_pointer: u64n,
  stack_pointer: u64n,
  nr: u64,
  args: array(u64, 6),
});

/** The head, and the union's `exit`. */
export const ptrace_syscall_info_exit = struct('ptrace_syscall_info_exit', 40, {
  op: u8,
  reserved: u8,
  flags: u16,
  arch: u32,
  instruction_pointer: u64n,
  stack_pointer: u64n,
  rval: i64n,
  is_error: u8,
});

export const ptrace_rseq_configuration = struct('ptrace_rseq_configuration', 24, {
  rseq_abi_pointer: u64n,
  rseq_abi_size: u32,
  signature: u32,
  flags: u32,
  pad: u32,
});

/** PR_SET_SYSCALL_USER_DISPATCH; `mode` is 0 where it is off. */
export const ptrace_sud_config = struct('ptrace_sud_config', 32, { mode: u64, selector: u64, offset: u64, len: u64 });

/** What NT_PRSTATUS hands out on x86-64. */
export const user_regs_struct = struct('user_regs_struct', 216, {
  r15: u64,
  r14: u64,
  r13: u64,
  r12: u64,
  rbp: u64,
  rbx: u64,
  r11: u64,
  r10: u64,
  r9: u64,
  r8: u64,
  rax: u64,
  rcx: u64,
  rdx: u64,
  rsi: u64,
  rdi: u64,
  orig_rax: u64,
  rip: u64,
  cs: u64,
  eflags: u64,
  rsp: u64,
  ss: u64,
  fs_base: u64,
  gs_base: u64,
  ds: u64,
  es: u64,
  fs: u64,
  gs: u64,
});
