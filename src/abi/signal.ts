/** Signals: arch/x86/include/uapi/asm/signal.h, include/uapi/asm-generic/siginfo.h and signal-defs.h */
import { array, bytes, i32, struct, u16, u32, u64, u64n } from './struct.ts';

export const SIGHUP = 1;
export const SIGINT = 2;
export const SIGQUIT = 3;
export const SIGILL = 4;
export const SIGTRAP = 5;
export const SIGABRT = 6;
export const SIGBUS = 7;
export const SIGFPE = 8;
export const SIGKILL = 9;
export const SIGUSR1 = 10;
export const SIGSEGV = 11;
export const SIGUSR2 = 12;
export const SIGPIPE = 13;
export const SIGALRM = 14;
export const SIGTERM = 15;
export const SIGSTKFLT = 16;
export const SIGCHLD = 17;
export const SIGCONT = 18;
export const SIGSTOP = 19;
export const SIGTSTP = 20;
export const SIGTTIN = 21;
export const SIGTTOU = 22;
export const SIGURG = 23;
export const SIGXCPU = 24;
export const SIGXFSZ = 25;
export const SIGVTALRM = 26;
export const SIGPROF = 27;
export const SIGWINCH = 28;
export const SIGIO = 29;
export const SIGPWR = 30;
export const SIGSYS = 31;
/** The first real-time signal as the kernel counts; libraries keep some of them for themselves. */
export const SIGRTMIN = 32;
/** Number of signals; a set of them is 64 bits, signal n being bit n - 1. */
export const _NSIG = 64;

/** Handlers that are not addresses. */
export const SIG_DFL = 0;
export const SIG_IGN = 1;

export const SIG_BLOCK = 0;
export const SIG_UNBLOCK = 1;
export const SIG_SETMASK = 2;

export const SA_NOCLDSTOP = 0x1;
export const SA_NOCLDWAIT = 0x2;
export const SA_SIGINFO = 0x4;
export const SA_RESTORER = 0x4000000;
export const SA_ONSTACK = 0x8000000;
export const SA_RESTART = 0x10000000;
export const SA_NODEFER = 0x40000000;
export const SA_RESETHAND = 0x80000000;

/** The kernel's struct of rt_sigaction(2), which is not that of the C library. */
export const sigaction = struct('sigaction', 32, { sa_handler: u64n, sa_flags: u64n, sa_restorer: u64n, sa_mask: u64 });

export const SS_ONSTACK = 0x1;
export const SS_DISABLE = 0x2;
export const SS_AUTODISARM = 0x80000000;
/** sigaltstack(2)'s stack_t. */
export const stack_t = struct('stack_t', 24, { ss_sp: u64n, ss_flags: i32, ss_size: u64n });

/** siginfo_t: the fields that all signals have; what follows depends on si_signo and si_code. */
export const siginfo = struct('siginfo', 128, {
  si_signo: i32,
  si_errno: i32,
  si_code: i32,
  __pad0: i32,
  _sifields: bytes(112),
});

/** siginfo_t of SIGCHLD, and so of waitid(2). */
export const siginfo_sigchld = struct('siginfo_sigchld', 32, {
  si_signo: i32,
  si_errno: i32,
  si_code: i32,
  __pad0: i32,
  si_pid: i32,
  si_uid: u32,
  si_status: i32,
  __pad1: i32,
});

/** si_code: who sent it. */
export const SI_USER = 0;
export const SI_KERNEL = 128;
export const SI_QUEUE = -1;
export const SI_TIMER = -2;
export const SI_MESGQ = -3;
export const SI_ASYNCIO = -4;
export const SI_SIGIO = -5;
export const SI_TKILL = -6;
/** si_code of SIGCHLD. */
export const CLD_EXITED = 1;
export const CLD_KILLED = 2;
export const CLD_DUMPED = 3;
export const CLD_TRAPPED = 4;
export const CLD_STOPPED = 5;
export const CLD_CONTINUED = 6;

/** How timer_create(2) tells: SIGEV_SIGNAL 0, SIGEV_NONE 1, SIGEV_THREAD 2, and this bit for one thread. */
export const SIGEV_THREAD_ID = 4;
export const sigevent = struct('sigevent', 64, {
  sigev_value: u64,
  sigev_signo: i32,
  sigev_notify: i32,
  sigev_notify_thread_id: i32,
  __pad: array(i32, 11),
});

/** uc_flags: an xsave area is there; ss is to be restored, strictly. */
export const UC_FP_XSTATE = 0x1;
export const UC_SIGCONTEXT_SS = 0x2;
export const UC_STRICT_RESTORE_SS = 0x4;

/**
 * What rt_sigreturn(2) goes back to: struct ucontext of asm-generic/ucontext.h with the sigcontext_64 of
 * arch/x86/include/uapi/asm/sigcontext.h in it.
 */
export const ucontext = struct('ucontext', 304, {
  uc_flags: u64n,
  uc_link: u64n,
  uc_stack: stack_t,
  ...{ r8: u64, r9: u64, r10: u64, r11: u64, r12: u64, r13: u64, r14: u64, r15: u64 },
  ...{ rdi: u64, rsi: u64, rbp: u64, rbx: u64, rdx: u64, rax: u64, rcx: u64, rsp: u64, rip: u64, eflags: u64 },
  ...{ cs: u16, gs: u16, fs: u16, ss: u16 },
  err: u64,
  trapno: u64,
  oldmask: u64,
  cr2: u64,
  /** Address of the xsave area, a multiple of 64. */
  fpstate: u64n,
  reserved1: array(u64, 8),
  uc_sigmask: u64,
});

/** What the kernel finds in the xsave area of a signal frame: struct _fpx_sw_bytes, at byte 464, and a word behind the area. */
export const FP_XSTATE_MAGIC1 = 0x46505853;
export const FP_XSTATE_MAGIC2 = 0x46505845;
export const SW_BYTES_AT = 464;
export const fpx_sw_bytes = struct('_fpx_sw_bytes', 48, {
  magic1: u32,
  extended_size: u32,
  xfeatures: u64,
  xstate_size: u32,
  padding: array(u32, 7),
});
