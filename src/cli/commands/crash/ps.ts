/** Which tasks there were. */
import { command } from '../../command.ts';
import type { View } from '../../io.ts';
import { dumpExits, hex, inputFlags, tasksOf, vmcore, withKernel } from '../../kernel.ts';
import { table } from '../../table.ts';

export const ps = command({
  name: 'ps',
  summary: 'List the tasks: processes, their threads, threads of the kernel and the idle tasks of the CPUs',
  description: [
    'ST is the state as ps(1) shows it: R running, S sleeping, D waiting and not to be disturbed, I an idle thread of the ' +
      'kernel, T stopped, Z zombie. > marks what was on a CPU.',
    'With --json: [{"pid", "tgid", "ppid", "comm", "state", "cpu", "task"}].',
  ],
  arguments: [
    vmcore,
    { name: 'TASK', summary: 'PID, address of the task_struct, or command', optional: true, variadic: true },
  ],
  flags: {
    ...inputFlags,
    kernel: { long: 'kernel', short: 'k', summary: 'only threads of the kernel' },
    user: { long: 'user', short: 'u', summary: 'only tasks of user space' },
    leaders: { long: 'leaders', short: 'G', summary: 'only one line for each process, without its threads' },
  },
  exits: dumpExits,
  examples: [{ line: 'tideover crash ps vmcore -u', does: 'the processes that ran' }],
  run: (io, { flags, args: [path, wanted = []] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { isKernelThread } = await import('../../../crash/kernel/tasks.ts');
      const ofKernel = (task: Parameters<typeof isKernelThread>[2]) =>
        kernel.gaps.try(`flags of task ${task.pid}`, () => isKernelThread(kernel.memory, kernel.types, task)) ?? false;
      const tasks = (wanted.length > 0 ? tasksOf(kernel, wanted as string[]) : kernel.tasks).filter(
        (task) =>
          (!flags.kernel || ofKernel(task)) &&
          (!flags.user || !ofKernel(task)) &&
          (!flags.leaders || task.pid === task.tgid),
      );
      const json = tasks.map(({ pid, tgid, ppid, comm, state, cpu, address }) => {
        return { pid, tgid, ppid, comm, state, cpu, task: hex(address) };
      });
      const text = (view: View) =>
        table(
          [
            { title: '' },
            { title: 'PID', align: 'right' },
            { title: 'TGID', align: 'right' },
            { title: 'PPID', align: 'right' },
            { title: 'CPU', align: 'right' },
            { title: 'TASK', align: 'right' },
            { title: 'ST', style: (state) => (state === 'D' ? 'red' : undefined) },
            { title: 'COMM', overflow: 'truncate' },
          ],
          tasks.map(({ running, pid, tgid, ppid, cpu, address, state, comm }) => {
            const mark = running ? '>' : '';
            return [mark, `${pid}`, `${tgid}`, `${ppid}`, `${cpu}`, address.toString(16), state, comm];
          }),
          view,
        );
      return { json, text };
    }),
});
