/** Stacks of tasks. */
import type { Kernel } from '../../../crash/kernel/kernel.ts';
import type { Task } from '../../../crash/kernel/tasks.ts';
import type { Frame, Stack } from '../../../crash/kernel/unwind.ts';
import { command } from '../../command.ts';
import { currentTask, dumpExits, hex, inputFlags, symbolText, tasksOf, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const bt = command({
  name: 'bt',
  summary: 'Show the kernel stacks of tasks: of the one that crashed, of those named, or of all',
  description: [
    'A frame that was interrupted is marked. Frames below a line that says so were found by looking through the stack, ' +
      'because the code above them cannot be unwound.',
    'With --json: [{"pid", "comm", "task", "cpu", "frames": [{"pc", "symbol", "offset", "module", "interrupted"?, ' +
      '"rescued"?}], "end", "why"?, "partial"?}]. `end` is "user" where the task came from user space, "end" where the stack begins, ' +
      '"unknown" where it goes on and `why` says what is missing.',
  ],
  arguments: [
    vmcore,
    { name: 'TASK', summary: 'PID, address of the task_struct, or command', optional: true, variadic: true },
  ],
  flags: {
    ...inputFlags,
    all: { long: 'all', short: 'a', summary: 'all tasks' },
    active: { long: 'active', short: 'c', summary: 'the tasks that were on a CPU' },
  },
  exits: dumpExits,
  examples: [
    { line: 'tideover crash bt vmcore', does: 'what crashed' },
    { line: 'tideover crash bt vmcore -a --json', does: 'every stack, for a program' },
  ],
  run: (io, { flags, args: [path, wanted = []] }) =>
    withKernel(io, path as string, flags, (kernel) => {
      const tasks = chosen(kernel, flags, wanted as string[]);
      const stacks = tasks.map((task) => ({ task, stack: stackOf(kernel, task) }));
      const json = stacks.map(({ task, stack }) => ({
        pid: task.pid,
        comm: task.comm,
        task: hex(task.address),
        cpu: task.cpu,
        frames: stack.frames.map((frame) => frameJson(kernel, frame)),
        end: stack.end,
        ...(stack.why !== undefined && { why: stack.why, partial: true }),
      }));
      const text = stacks.flatMap(({ task, stack }, i) => [...(i === 0 ? [] : ['']), ...lines(kernel, task, stack)]);
      return { json, text: () => text };
    }),
});

function chosen(kernel: Kernel, flags: { all: boolean; active: boolean }, wanted: readonly string[]): readonly Task[] {
  if (flags.all) return kernel.tasks;
  if (flags.active) return kernel.tasks.filter(({ running }) => running);
  return wanted.length > 0 ? tasksOf(kernel, wanted) : [currentTask(kernel)];
}

function stackOf(kernel: Kernel, task: Task): Stack {
  const stack = kernel.gaps.try(`stack of task ${task.pid}`, () => kernel.stack(task));
  return stack ?? { frames: [], end: 'unknown', why: 'its stack is not in the dump' };
}

function frameJson(kernel: Kernel, frame: Frame) {
  const place = kernel.symbols.ofFrame(frame);
  return {
    pc: hex(frame.pc),
    symbol: place?.name || null,
    offset: place?.offset ?? null,
    module: place?.module ?? null,
    ...(frame.interrupted && { interrupted: true }),
    ...(frame.rescued && { rescued: true }),
  };
}

function lines(kernel: Kernel, { pid, address, cpu, comm }: Task, stack: Stack): string[] {
  const head = `PID: ${pid}  TASK: ${address.toString(16)}  CPU: ${cpu}  COMMAND: ${JSON.stringify(comm)}`;
  const frames = stack.frames.flatMap((frame, i) => {
    const symbol = symbolText(kernel.symbols.ofFrame(frame)) ?? '(unknown)';
    const line = `${`#${i}`.padStart(3)} [${frame.sp.toString(16)}] ${symbol} at ${frame.pc.toString(16)}`;
    const isFirstRescued = frame.rescued && !stack.frames[i - 1]?.rescued;
    return [
      ...(isFirstRescued ? ['    --- from here on found by looking through the stack ---'] : []),
      ...(frame.interrupted && i > 0 ? ['    --- interrupted here ---'] : []),
      line,
    ];
  });
  const { user, why } = stack;
  const tail = [
    ...(user === undefined ? [] : [`    RIP: ${user.ip.toString(16)}  RSP: ${user.sp.toString(16)}  in user space`]),
    ...(why === undefined ? [] : [`    (${why})`]),
  ];
  return [head, ...frames, ...tail].map(printableLine);
}
