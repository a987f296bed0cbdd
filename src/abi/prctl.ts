/** Operations on a process by itself: include/uapi/linux/prctl.h and arch/x86/include/uapi/asm/prctl.h */
import { struct, u32, u64n } from './struct.ts';

export const PR_SET_PDEATHSIG = 1;
export const PR_GET_PDEATHSIG = 2;
export const PR_GET_DUMPABLE = 3;
export const PR_SET_DUMPABLE = 4;
export const PR_GET_KEEPCAPS = 7;
export const PR_SET_KEEPCAPS = 8;
export const PR_SET_NAME = 15;
export const PR_GET_NAME = 16;
export const PR_GET_SECCOMP = 21;
export const PR_SET_SECCOMP = 22;
export const PR_CAPBSET_READ = 23;
export const PR_CAPBSET_DROP = 24;
export const PR_GET_TSC = 25;
export const PR_SET_TSC = 26;
export const PR_GET_SECUREBITS = 27;
export const PR_SET_SECUREBITS = 28;
export const PR_SET_TIMERSLACK = 29;
export const PR_GET_TIMERSLACK = 30;
export const PR_MCE_KILL = 33;
export const PR_MCE_KILL_GET = 34;
export const PR_MCE_KILL_SET = 1;
export const PR_MCE_KILL_DEFAULT = 2;
export const PR_TSC_ENABLE = 1;
export const PR_SET_MM = 35;
export const PR_SET_PTRACER = 1499557217;
export const PR_SET_CHILD_SUBREAPER = 36;
export const PR_GET_CHILD_SUBREAPER = 37;
export const PR_SET_NO_NEW_PRIVS = 38;
export const PR_GET_NO_NEW_PRIVS = 39;
export const PR_GET_TID_ADDRESS = 40;
export const PR_SET_THP_DISABLE = 41;
export const PR_GET_THP_DISABLE = 42;
export const PR_CAP_AMBIENT = 47;
/** Speculation of the processor, by thread: what can be controlled, and how it is. */
export const PR_GET_SPECULATION_CTRL = 52;
export const PR_SET_SPECULATION_CTRL = 53;
export const PR_SPEC_STORE_BYPASS = 0;
export const PR_SPEC_INDIRECT_BRANCH = 1;
export const PR_SPEC_L1D_FLUSH = 2;
export const PR_SPEC_PRCTL = 1;
export const PR_SPEC_ENABLE = 2;
export const PR_SPEC_DISABLE = 4;
export const PR_SPEC_FORCE_DISABLE = 8;
export const PR_SPEC_DISABLE_NOEXEC = 16;
export const PR_SET_IO_FLUSHER = 57;
export const PR_GET_IO_FLUSHER = 58;
export const PR_SET_SYSCALL_USER_DISPATCH = 59;
export const PR_SCHED_CORE = 62;
export const PR_SCHED_CORE_GET = 0;
export const PR_SET_MDWE = 65;
export const PR_GET_MDWE = 66;
/** Names an anonymous mapping: prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, addr, len, name). */
export const PR_SET_VMA = 0x53564d41;
export const PR_SET_VMA_ANON_NAME = 0;
/** Kernel samepage merging for the whole process, Linux 6.4. */
export const PR_SET_MEMORY_MERGE = 67;
export const PR_GET_MEMORY_MERGE = 68;
/** timer_create(2) takes the id that its caller asks for, Linux 6.15. */
export const PR_TIMER_CREATE_RESTORE_IDS = 77;
export const PR_TIMER_CREATE_RESTORE_IDS_OFF = 0;
export const PR_TIMER_CREATE_RESTORE_IDS_ON = 1;
export const PR_TIMER_CREATE_RESTORE_IDS_GET = 2;

/** Operations of PR_SET_MM. */
export const PR_SET_MM_EXE_FILE = 13;
export const PR_SET_MM_MAP = 14;
export const PR_SET_MM_MAP_SIZE = 15;
/** Operations of PR_CAP_AMBIENT. */
export const PR_CAP_AMBIENT_IS_SET = 1;
export const PR_CAP_AMBIENT_RAISE = 2;
export const PR_CAP_AMBIENT_LOWER = 3;
export const PR_CAP_AMBIENT_CLEAR_ALL = 4;

/** What PR_SET_MM_MAP sets in one step; all of it is checked before any of it is set. */
export const prctl_mm_map = struct('prctl_mm_map', 104, {
  start_code: u64n,
  end_code: u64n,
  start_data: u64n,
  end_data: u64n,
  start_brk: u64n,
  brk: u64n,
  start_stack: u64n,
  arg_start: u64n,
  arg_end: u64n,
  env_start: u64n,
  env_end: u64n,
  /** Address of the auxiliary vector. */
  auxv: u64n,
  /** In bytes. */
  auxv_size: u32,
  /** Descriptor of the executable; 2^32-1 leaves it as it is. */
  exe_fd: u32,
});

/** Codes of arch_prctl(2). */
export const ARCH_SET_GS = 0x1001;
export const ARCH_SET_FS = 0x1002;
export const ARCH_GET_FS = 0x1003;
export const ARCH_GET_GS = 0x1004;
/** Whether the cpuid instruction works or raises SIGSEGV. */
export const ARCH_GET_CPUID = 0x1011;
export const ARCH_SET_CPUID = 0x1012;
/** Maps the vdso at an address of the caller's choice, with CONFIG_CHECKPOINT_RESTORE. */
export const ARCH_MAP_VDSO_64 = 0x2003;
/** Shadow stacks, Linux 6.6. */
export const ARCH_SHSTK_ENABLE = 0x5001;
export const ARCH_SHSTK_DISABLE = 0x5002;
export const ARCH_SHSTK_LOCK = 0x5003;
export const ARCH_SHSTK_UNLOCK = 0x5004;
export const ARCH_SHSTK_STATUS = 0x5005;
