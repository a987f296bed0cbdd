/** Tasks: include/linux/sched.h. */
import type { Gaps } from './gaps.ts';
import { list } from './lists.ts';
import type { VirtualMemory } from './memory.ts';
import type { Types } from './types.ts';
import type { Registers } from './unwind.ts';

export interface Task {
  /** Of its task_struct. */
  readonly address: bigint;
  readonly pid: number;
  readonly tgid: number;
  /** tgid of the parent, 0 for none. */
  readonly ppid: number;
  /** As /proc/PID/comm has it: of a thread of the kernel the whole name, of a worker also what it works at, or did last. */
  readonly comm: string;
  /** The letter of ps(1) and proc_pid_stat(5): R S D T t X Z P I. */
  readonly state: string;
  /** Where it runs, or ran last. */
  readonly cpu: number;
  /** On its CPU when the dump was made. */
  readonly running: boolean;
  /** Of its mm_struct; 0 for a kernel thread and for what has exited. */
  readonly mm: bigint;
}

/** TASK_* and EXIT_*, as /proc shows them: fs/proc/array.c */
const LETTERS = 'RSDTtXZPI';
const TASK_REPORT = 0x7f;
const TASK_IDLE = 0x402;
const TASK_REPORT_IDLE = 0x80;
const TASK_RTLOCK_WAIT = 0x1000;
const TASK_FROZEN = 0x8000;
const TASK_UNINTERRUPTIBLE = 2;
const EXIT_GONE = 0x30;
const PF_KTHREAD = 0x200000;
const PF_WQ_WORKER = 0x20;
const COMM_LENGTH = 16;
/** More than the kernel's own callers give (kthread_create() takes any). */
const THREAD_NAME_LENGTH = 256;
/** WORKER_DESC_LEN: include/linux/workqueue.h */
const WORK_NAME_LENGTH = 32;

/**
 * All tasks with a pid, threads after the leader of their group, in the order of the kernel's list.
 *
 * @param init address of init_task
 * @param running addresses of the tasks that were on a CPU
 */
export function readTasks(
  memory: VirtualMemory,
  types: Types,
  init: bigint,
  running: ReadonlySet<bigint>,
  gaps: Gaps,
): Task[] {
  const seen = new Set<bigint>();
  const tasks: Task[] = [];
  const add = (address: bigint) => {
    if (address === init || seen.has(address)) return;
    seen.add(address);
    const task = gaps.try(`task at 0x${address.toString(16)}`, () => readTask(memory, types, address, running));
    if (task !== undefined) tasks.push(task);
  };
  for (const leader of leaders(memory, types, init, gaps)) {
    add(leader);
    const threads = () => {
      const signal = memory.u64(leader + types.offset('task_struct', 'signal'));
      const head = signal + types.offset('signal_struct', 'thread_head');
      return list(memory, head, types.offset('task_struct', 'thread_node'));
    };
    const what = `threads of the task at 0x${leader.toString(16)}`;
    for (const thread of gaps.each(what, gaps.try(what, threads) ?? [])) add(thread);
  }
  return tasks;
}

/** Where the list is cut, what lies beyond is reached from its other end. */
function* leaders(memory: VirtualMemory, types: Types, init: bigint, gaps: Gaps): Generator<bigint> {
  const offset = types.offset('task_struct', 'tasks');
  const before = gaps.list.length;
  yield* gaps.each('list of tasks', list(memory, init + offset, offset));
  if (gaps.list.length > before)
    yield* gaps.each('list of tasks from its end', list(memory, init + offset, offset, 8n));
}

/** @throws HoleError */
export function readTask(memory: VirtualMemory, types: Types, address: bigint, running: ReadonlySet<bigint>): Task {
  const at = (path: string) => address + types.offset('task_struct', path);
  const pid = memory.i32(at('pid'));
  const parent = memory.u64(at('real_parent'));
  const parentPid = parent === 0n ? 0 : memory.i32(parent + types.offset('task_struct', 'tgid'));
  const state = types.has('task_struct', '__state') ? memory.u32(at('__state')) : memory.u32(at('state'));
  return {
    address,
    pid,
    tgid: memory.i32(at('tgid')),
    ppid: pid === 0 ? 0 : parentPid,
    comm: threadName(memory, types, address) ?? memory.string(at('comm'), COMM_LENGTH),
    state: letter(state, memory.u32(at('exit_state'))),
    cpu: memory.u32(at(types.has('task_struct', 'cpu') ? 'cpu' : 'thread_info.cpu')),
    running: running.has(address),
    mm: memory.u64(at('mm')),
  };
}

/** proc_task_name() and wq_worker_comm(): a thread of the kernel may have more of a name than fits in its task_struct. */
function threadName(memory: VirtualMemory, types: Types, task: bigint): string | undefined {
  const flags = memory.u32(task + types.offset('task_struct', 'flags'));
  if ((flags & PF_KTHREAD) === 0 || !types.has('task_struct', 'worker_private')) return undefined;
  const thread = memory.u64(task + types.offset('task_struct', 'worker_private'));
  if (thread === 0n || !types.has('kthread', 'full_name')) return undefined;
  const full = memory.u64(thread + types.offset('kthread', 'full_name'));
  const name = full === 0n ? undefined : memory.string(full, THREAD_NAME_LENGTH);
  if ((flags & PF_WQ_WORKER) === 0 || !types.has('worker', 'desc')) return name;
  const worker = memory.u64(thread + types.offset('kthread', 'data'));
  const field = (member: string) => worker + types.offset('worker', member);
  if (worker === 0n || memory.u64(field('pool')) === 0n) return name;
  const work = memory.string(field('desc'), WORK_NAME_LENGTH);
  if (work === '') return name;
  const own = name ?? memory.string(task + types.offset('task_struct', 'comm'), COMM_LENGTH);
  return `${own}${memory.u64(field('current_work')) === 0n ? '-' : '+'}${work}`;
}

/** Whether it is a thread of the kernel's own. */
export function isKernelThread(memory: VirtualMemory, types: Types, { address }: Task): boolean {
  return (memory.u32(address + types.offset('task_struct', 'flags')) & PF_KTHREAD) !== 0;
}

/** Whether a task has exited and has no stack any more. */
export function isGone({ state }: Task): boolean {
  return state === 'Z' || state === 'X';
}

/** Where a task that does not run goes on: struct inactive_task_frame, at the top of its stack. @throws HoleError */
export function sleepingRegisters(memory: VirtualMemory, types: Types, { address }: Task): Registers {
  const sp = memory.u64(address + types.offset('task_struct', 'thread.sp'));
  const field = (name: string) => memory.u64(sp + types.offset('inactive_task_frame', name));
  return { ip: field('ret_addr'), bp: field('bp'), sp: sp + BigInt(types.size('inactive_task_frame')) };
}

/** __task_state_index() of include/linux/sched.h */
export function letter(state: number, exitState: number): string {
  let report = (state | exitState) & TASK_REPORT;
  if ((state & TASK_IDLE) === TASK_IDLE) report = TASK_REPORT_IDLE;
  if ((state & TASK_RTLOCK_WAIT) !== 0 || (state & TASK_FROZEN) !== 0) report = TASK_UNINTERRUPTIBLE;
  if ((exitState & EXIT_GONE) !== 0) report = exitState & EXIT_GONE;
  return LETTERS[report === 0 ? 0 : 32 - Math.clz32(report)] ?? '?';
}
