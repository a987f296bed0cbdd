/** What a task_struct holds. */
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { currentTask, dumpExits, hex, inputFlags, symbolText, tasksOf, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const task = command({
  name: 'task',
  summary: "Show a task's task_struct, or some of its members",
  description: ['With --json: [{"pid", "task", "value"}].'],
  arguments: [
    vmcore,
    { name: 'TASK', summary: 'PID, address or command; the one that crashed', optional: true, variadic: true },
  ],
  flags: {
    ...inputFlags,
    members: { long: 'members', short: 'R', value: 'NAMES', summary: 'only these members, separated by commas' },
  },
  exits: dumpExits,
  examples: [{ line: 'tideover crash task vmcore 1 -R comm,flags,mm', does: 'three members of init' }],
  run: (io, { flags, args: [path, wanted = []] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { ValueReader, valueLines } = await import('../../../crash/kernel/value.ts');
      const { types, memory, symbols } = kernel;
      const names = flags.members?.split(',');
      for (const name of names ?? []) {
        if (!types.has('task_struct', name)) throw new UsageError(`task_struct has no member '${name}'`);
      }
      const tasks = wanted.length > 0 ? tasksOf(kernel, wanted as string[]) : [currentTask(kernel)];
      const values = tasks.map(({ pid, address }) => {
        const reader = new ValueReader(types.btf, memory.read(address, types.size('task_struct')));
        const member = (name: string) => {
          const { type, bitOffset, bitSize } = types.member('task_struct', name);
          return [name, reader.json(type, bitOffset, bitSize)] as const;
        };
        const value =
          names === undefined ? reader.json(types.named('task_struct')!) : Object.fromEntries(names.map(member));
        return { pid, task: hex(address), value };
      });
      const lines = values.flatMap(({ pid, task, value }) => [
        `PID: ${pid}  TASK: ${task.slice(2)}`,
        ...valueLines(value, (at) => symbolText(symbols.lookup(at)), 'struct task_struct'),
      ]);
      return { json: values, text: () => lines.map(printableLine) };
    }),
});
