/** What the detectors look at: the kernel, its log line by line, and the stacks of its tasks with names. Each is read once. */
import { textOf } from '../../abi/text.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { readLog } from '../kernel/printk.ts';
import type { SymbolPlace } from '../kernel/symbols.ts';
import { isGone, type Task } from '../kernel/tasks.ts';
import type { Stack } from '../kernel/unwind.ts';
import type { CallFrame, Evidence } from './verdict.ts';

export interface LogLine {
  /** Since boot, in nanoseconds. */
  readonly time: bigint;
  readonly text: string;
}

export class Scene {
  readonly kernel: Kernel;
  /** The kernel's own, the oldest first. */
  readonly log: readonly LogLine[];
  readonly tasks: readonly Task[];
  /** Of the scheduler when the kernel stopped, in nanoseconds; undefined where it cannot be read. */
  readonly now: bigint | undefined;
  /** Whether a CPU had begun to panic; undefined where that cannot be read. */
  readonly crashed: boolean | undefined;
  readonly #stacks = new Map<bigint, { stack: Stack; frames: readonly CallFrame[] }>();

  constructor(kernel: Kernel) {
    const { memory, info, gaps } = kernel;
    this.kernel = kernel;
    const records = gaps.try('log', () => readLog(memory, info, gaps)) ?? [];
    this.log = records
      .filter(({ facility }) => facility === 0)
      .flatMap(({ time, text }) =>
        textOf(text)
          .split('\n')
          .map((line) => ({ time, text: line })),
      );
    this.tasks = gaps.try('tasks', () => kernel.tasks) ?? [];
    this.crashed = gaps.try('panic_cpu', () => {
      const at = kernel.kallsyms.find('panic_cpu');
      return at === undefined ? undefined : memory.i32(at) >= 0;
    });
    this.now = gaps.try('clock of the scheduler', () => readClock(kernel));
  }

  task(address: bigint): Task | undefined {
    return this.#byAddress.get(address);
  }

  /** Live tasks by PID, which are not idle tasks. */
  byPid(pid: number): Task | undefined {
    return pid === 0 ? undefined : this.tasks.find((task) => task.pid === pid);
  }

  stack(task: Task): Stack {
    return this.#stackOf(task).stack;
  }

  frames(task: Task): readonly CallFrame[] {
    return this.#stackOf(task).frames;
  }

  /** Seconds since a task that does not run was last on a CPU. */
  idleSeconds({ address, running }: Task): number | undefined {
    const { now, kernel } = this;
    const { types, memory, gaps } = kernel;
    return gaps.try('times of tasks', () => {
      if (running || now === undefined || !types.has('task_struct', 'sched_info.last_arrival')) return undefined;
      const last = memory.u64(address + types.offset('task_struct', 'sched_info.last_arrival'));
      return last === 0n || last > now ? undefined : Number((now - last) / 1_000_000_000n);
    });
  }

  get #byAddress(): ReadonlyMap<bigint, Task> {
    this.#addresses ??= new Map(this.tasks.map((task) => [task.address, task]));
    return this.#addresses;
  }

  #addresses: ReadonlyMap<bigint, Task> | undefined;

  #stackOf(task: Task) {
    const known = this.#stacks.get(task.address);
    if (known !== undefined) return known;
    const { kernel } = this;
    const none: Stack = { frames: [], end: 'unknown', why: 'its stack is not in the dump' };
    const stack = isGone(task)
      ? none
      : (kernel.gaps.try(`stack of task ${task.pid}`, () => kernel.stack(task)) ?? none);
    const frames = stack.frames.map((frame): CallFrame => {
      const place = kernel.symbols.ofFrame(frame);
      const { pc, interrupted } = frame;
      return { pc, symbol: place?.name ?? '', offset: place?.offset ?? 0, module: place?.module, interrupted };
    });
    const made = { stack, frames };
    this.#stacks.set(task.address, made);
    return made;
  }
}

/** The latest of the clocks of all CPUs: kernel/sched/sched.h, rq.clock */
function readClock({ memory, types, kallsyms, perCpu }: Kernel): bigint | undefined {
  const queues = kallsyms.find('runqueues');
  if (queues === undefined) return undefined;
  const clocks = perCpu.online.map((cpu) => memory.u64(perCpu.address(queues, cpu) + types.offset('rq', 'clock')));
  return clocks.reduce((latest, each) => (each > latest ? each : latest), 0n);
}

/** `sh (235)` */
export function taskText({ comm, pid }: Pick<Task, 'comm' | 'pid'>): string {
  return `${comm} (${pid})`;
}

/** `vfs_write+0x10 [module]` */
export function frameText({ symbol, offset, module, pc }: CallFrame): string {
  const name = symbol === '' ? `0x${pc.toString(16)}` : `${symbol}+0x${offset.toString(16)}`;
  return module === undefined ? name : `${name} [${module}]`;
}

/** `name+0x10 [module]` of data; undefined for what has no name. */
export function variableText(place: SymbolPlace | undefined): string | undefined {
  if (place === undefined || place.name === '') return undefined;
  const name = place.offset === 0 ? place.name : `${place.name}+0x${place.offset.toString(16)}`;
  return place.module === undefined ? name : `${name} [${place.module}]`;
}

/** Without what a compiler puts behind the name of a part or a copy of a function. */
export function plainName(symbol: string): string {
  return symbol.replace(/(?:\.(?:isra|constprop|part|cold|llvm|lto_priv)(?:\.\d+)*)+$/, '');
}

export function logEvidence({ time, text }: LogLine): Evidence {
  return { kind: 'log', time, text };
}

export function taskEvidence(task: Task, what: string): Evidence {
  return { kind: 'task', task, what };
}

export function addressEvidence(address: bigint, what: string): Evidence {
  return { kind: 'address', address, what };
}
