/** One command for many tasks. */
import type { Command } from '../../command.ts';
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { dumpExits, hex, inputFlags, tasksOf, vmcore, withKernel } from '../../kernel.ts';
import { bt } from './bt.ts';
import { files } from './files.ts';
import { ps } from './ps.ts';
import { task } from './task.ts';
import { vm } from './vm.ts';

const commands: readonly Command[] = [bt, files, ps, task, vm];
const states = 'RSDTtXZPI';

export const foreach = command({
  name: 'foreach',
  summary: 'Run bt, files, ps, task or vm for all tasks, or for those of a kind',
  description: [
    'WHICH are PIDs, commands, the letters of states (such as D), or kernel, user and active. What is asked for of memory or files ' +
      'is left out for tasks that have none.',
    'With --json what the command prints, with ps [{"pid", "tgid", "ppid", "comm", "state", "cpu", "task"}].',
  ],
  arguments: [vmcore, { name: 'WHICH', summary: 'tasks, and at the end the command', variadic: true }],
  flags: inputFlags,
  exits: dumpExits,
  examples: [
    { line: 'tideover crash foreach vmcore D bt', does: 'the stacks of all that wait and cannot be disturbed' },
  ],
  async run(io, { flags, args: [path, words] }) {
    const [name, ...which] = (words as string[]).toReversed();
    const chosen = commands.find((each) => each.name === name);
    if (chosen === undefined) {
      throw new UsageError(`'${name}' is none of ${commands.map((each) => each.name).join(', ')}`);
    }
    const addresses: string[] = [];
    // Of what is missing, the command itself tells.
    await withKernel({ ...io, warn() {} }, path as string, flags, async (kernel) => {
      const { isKernelThread } = await import('../../../crash/kernel/tasks.ts');
      const ofKernel = (each: (typeof kernel.tasks)[number]) =>
        kernel.gaps.try('flags', () => isKernelThread(kernel.memory, kernel.types, each)) ?? false;
      const matches = (word: string) => {
        if (word === 'kernel') return kernel.tasks.filter(ofKernel);
        if (word === 'user') return kernel.tasks.filter((each) => !ofKernel(each));
        if (word === 'active') return kernel.tasks.filter(({ running }) => running);
        if (word.length === 1 && states.includes(word)) return kernel.tasks.filter(({ state }) => state === word);
        return tasksOf(kernel, [word]);
      };
      const tasks = which.length === 0 ? kernel.tasks : [...new Set(which.reverse().flatMap(matches))];
      const withMemory = chosen === vm ? tasks.filter(({ mm }) => mm !== 0n) : tasks;
      addresses.push(...withMemory.map(({ address }) => hex(address)));
      return { json: {}, text: () => [] };
    });
    if (addresses.length === 0) return { json: [], text: () => [] };
    const none = Object.keys(chosen.flags ?? {}).map((key) => [key, undefined]);
    return chosen.run!(io, { flags: { ...Object.fromEntries(none), ...flags }, args: [path, addresses] });
  },
});
