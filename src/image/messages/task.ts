/** Processes and threads. */
import { bool, bytes, enumeration, i32, message, repeated, required, s32, string, u32, u64, u64n } from '../proto.ts';
import { thread_info_x86 } from './machine.ts';

/** task_core_entry.task_state. */
export const TASK_ALIVE = 1;
export const TASK_DEAD = 2;
export const TASK_STOPPED = 3;
export const TASK_ZOMBIE = 6;

/** One resource limit; the place in task_rlimits_entry is its RLIMIT_ number. 2^64 - 1 is RLIM_INFINITY. */
export const rlimit_entry = message('rlimit_entry', {
  cur: [1, u64, required],
  max: [2, u64, required],
});

/** Credentials of a thread. Capability sets are two words each, low word first. */
export const creds_entry = message('creds_entry', {
  uid: [1, u32, required],
  gid: [2, u32, required],
  euid: [3, u32, required],
  egid: [4, u32, required],
  suid: [5, u32, required],
  sgid: [6, u32, required],
  fsuid: [7, u32, required],
  fsgid: [8, u32, required],
  cap_inh: [9, u32, repeated],
  cap_prm: [10, u32, repeated],
  cap_eff: [11, u32, repeated],
  cap_bnd: [12, u32, repeated],
  secbits: [13, u32, required],
  groups: [14, u32, repeated],
  lsm_profile: [15, string],
  lsm_sockcreate: [16, string],
  apparmor_data: [17, bytes],
  no_new_privs: [18, u32],
  cap_amb: [19, u32, repeated],
});

/** One struct sigaction; the place in task_core_entry.sigactions is the signal number less one, without SIGKILL and SIGSTOP. */
export const sa_entry = message('sa_entry', {
  sigaction: [1, u64, required],
  flags: [2, u64, required],
  restorer: [3, u64, required],
  mask: [4, u64, required],
  compat_sigaction: [5, bool],
  mask_extended: [6, u64],
});

/** One pending signal: the kernel's siginfo_t, 128 bytes. */
export const siginfo_entry = message('siginfo_entry', {
  siginfo: [1, bytes, required],
});

export const signal_queue_entry = message('signal_queue_entry', {
  signals: [1, siginfo_entry, repeated],
});

/** setitimer(2): interval and what is left, in seconds and microseconds. */
export const itimer_entry = message('itimer_entry', {
  isec: [1, u64n, required],
  iusec: [2, u64n, required],
  vsec: [3, u64n, required],
  vusec: [4, u64n, required],
});

/** timer_create(2): interval and what is left, in seconds and nanoseconds. */
export const posix_timer_entry = message('posix_timer_entry', {
  it_id: [1, u32, required],
  clock_id: [2, u32, required],
  si_signo: [3, u32, required],
  it_sigev_notify: [4, u32, required],
  sival_ptr: [5, u64, required],
  overrun: [6, u32, required],
  isec: [7, u64n, required],
  insec: [8, u64n, required],
  vsec: [9, u64n, required],
  vnsec: [10, u64n, required],
  notify_thread_id: [11, i32],
});

export const task_timers_entry = message('task_timers_entry', {
  real: [1, itimer_entry, required],
  virt: [2, itimer_entry, required],
  prof: [3, itimer_entry, required],
  posix: [4, posix_timer_entry, repeated],
});

/** Restartable sequences (rseq(2)) of a thread; rseq_cs_pointer is set when it stood in a critical section. */
export const rseq_entry = message('rseq_entry', {
  rseq_abi_pointer: [1, u64n, required],
  rseq_abi_size: [2, u32, required],
  signature: [3, u32, required],
  rseq_cs_pointer: [4, u64],
});

export const seccomp_mode = enumeration('seccomp_mode', {
  disabled: 0,
  strict: 1,
  filter: 2,
});

export const task_rlimits_entry = message('task_rlimits_entry', {
  rlimits: [1, rlimit_entry, repeated],
});

/** What all threads of a process share and no other image holds. In the leader's core image only. */
export const task_core_entry = message('task_core_entry', {
  task_state: [1, u32, required],
  exit_code: [2, u32, required],
  personality: [3, u32, required],
  flags: [4, u32, required],
  blk_sigset: [5, u64, required],
  comm: [6, string, required],
  timers: [7, task_timers_entry],
  rlimits: [8, task_rlimits_entry],
  cg_set: [9, u32],
  signals_s: [10, signal_queue_entry],
  old_seccomp_mode: [11, seccomp_mode],
  old_seccomp_filter: [12, u32],
  loginuid: [13, u32],
  oom_score_adj: [14, i32],
  sigactions: [15, sa_entry, repeated],
  child_subreaper: [18, bool],
  blk_sigset_extended: [20, u64],
  stop_signo: [21, u32],
  membarrier_registration_mask: [22, u32],
  // Not of CRIU, which leaves fields out that it does not know.
  /** What the parent gets when the process ends, where that is not SIGCHLD. */
  exit_signal: [1000, u32],
  /** /proc/PID/coredump_filter. */
  coredump_filter: [1001, u32],
  /** Lines of /proc/PID/cgroup, without the number of the hierarchy. */
  cgroups: [1002, string, repeated],
  /** The leader of its session was gone. */
  session_left: [1003, bool],
});

/** Which kernel objects a process uses: processes with the same number share one. */
export const task_kobj_ids_entry = message('task_kobj_ids_entry', {
  vm_id: [1, u32, required],
  files_id: [2, u32, required],
  fs_id: [3, u32, required],
  sighand_id: [4, u32, required],
  pid_ns_id: [5, u32],
  net_ns_id: [6, u32],
  ipc_ns_id: [7, u32],
  uts_ns_id: [8, u32],
  mnt_ns_id: [9, u32],
  user_ns_id: [10, u32],
  cgroup_ns_id: [11, u32],
  time_ns_id: [12, u32],
});

/** sigaltstack(2). */
export const thread_sas_entry = message('thread_sas_entry', {
  ss_sp: [1, u64, required],
  ss_size: [2, u64, required],
  ss_flags: [3, u32, required],
});

/** What CRIU does not keep of a thread. Fields that are not there are as those of any process are. */
export const thread_attributes_entry = message('thread_attributes_entry', {
  /** In nanoseconds. */
  timer_slack: [1, u64n],
  /** ioprio_get(2). */
  ioprio: [2, u32],
  /** Processors on which it may run, bit n for number n. */
  affinity: [3, bytes],
  /** In nanoseconds: of SCHED_DEADLINE; the first one also of an ordinary thread that has a slice of its own. */
  sched_runtime: [4, u64n],
  sched_deadline: [5, u64n],
  sched_period: [6, u64n],
  /** PR_MCE_KILL_GET. */
  mce_kill: [7, u32],
  /** PR_GET_TSC. */
  tsc: [8, u32],
  /** ARCH_GET_CPUID. */
  cpuid: [9, u32],
  /** PR_GET_SPECULATION_CTRL, by its number. */
  speculation: [10, i32, repeated],
  /** get_mempolicy(2): the mode with its flags, and the nodes, bit n for number n. */
  mempolicy: [11, u32],
  nodes: [12, bytes],
  /** Of the time that an interrupted system call waits for, what is left: in nanoseconds. */
  call_left: [13, u64n],
});

/** What a thread has of its own. */
export const thread_core_entry = message('thread_core_entry', {
  futex_rla: [1, u64, required],
  futex_rla_len: [2, u32, required],
  sched_nice: [3, s32],
  sched_policy: [4, u32],
  sched_prio: [5, u32],
  blk_sigset: [6, u64],
  sas: [7, thread_sas_entry],
  pdeath_sig: [8, u32],
  signals_p: [9, signal_queue_entry],
  creds: [10, creds_entry],
  seccomp_mode: [11, seccomp_mode],
  seccomp_filter: [12, u32],
  comm: [13, string],
  blk_sigset_extended: [14, u64],
  rseq_entry: [15, rseq_entry],
  cg_set: [16, u32],
  // Not of CRIU.
  attributes: [1000, thread_attributes_entry],
});

export const core_march = enumeration('core_march', {
  UNKNOWN: 0,
  X86_64: 1,
  ARM: 2,
  AARCH64: 3,
  PPC64: 4,
  S390: 5,
  MIPS: 6,
  LOONGARCH64: 7,
  RISCV64: 8,
});

/** A thread. The other machines' registers (fields 6, 8 to 13) stay among the unknown fields. */
export const core_entry = message('core_entry', {
  mtype: [1, core_march, required],
  thread_info: [2, thread_info_x86],
  tc: [3, task_core_entry],
  ids: [4, task_kobj_ids_entry],
  thread_core: [5, thread_core_entry],
});

/** A process. `threads` has its thread ids, the leader's first. */
export const pstree_entry = message('pstree_entry', {
  pid: [1, u32, required],
  ppid: [2, u32, required],
  pgid: [3, u32, required],
  sid: [4, u32, required],
  threads: [5, u32, repeated],
});

/** One BPF program; `prev` is the place of the filter installed before it. */
export const seccomp_filter = message('seccomp_filter', {
  filter: [1, bytes, required],
  prev: [2, u32],
  flags: [3, u32],
});

export const seccomp_entry = message('seccomp_entry', {
  seccomp_filters: [1, seccomp_filter, repeated],
});
