/** Memory of processes. */
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { currentTask, dumpExits, hex, inputFlags, tasksOf, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const vm = command({
  name: 'vm',
  summary: 'List the mappings of processes',
  description: [
    'With --json: [{"pid", "comm", "mm", "pgd", "mappings": [{"vma", "start", "end", "permissions", "offset", "name"}]}].',
  ],
  arguments: [
    vmcore,
    { name: 'TASK', summary: 'PID, address or command; the one that crashed', optional: true, variadic: true },
  ],
  flags: inputFlags,
  exits: dumpExits,
  run: (io, { flags, args: [path, wanted = []] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { readMappings } = await import('../../../crash/kernel/mappings.ts');
      const { Paths } = await import('../../../crash/kernel/paths.ts');
      const { gaps, memory, types } = kernel;
      const paths = new Paths(kernel);
      const named = wanted.length > 0 ? tasksOf(kernel, wanted as string[]) : [currentTask(kernel)];
      const tasks = named.filter(({ mm }) => mm !== 0n);
      if (tasks.length === 0)
        throw new UsageError(`task ${named[0]!.pid} (${named[0]!.comm}) has no memory of its own`);
      const json = tasks.map((task) => ({
        pid: task.pid,
        comm: task.comm,
        mm: hex(task.mm),
        pgd:
          gaps.try(`page tables of task ${task.pid}`, () =>
            hex(memory.u64(task.mm + types.offset('mm_struct', 'pgd'))),
          ) ?? null,
        mappings: readMappings(kernel, paths, task).map(({ address, start, end, permissions, offset, name }) => {
          return { vma: hex(address), start: hex(start), end: hex(end), permissions, offset, name };
        }),
      }));
      const lines = json.flatMap(({ pid, comm, mm, pgd, mappings }) => [
        `PID: ${pid}  COMMAND: ${JSON.stringify(comm)}  MM: ${mm.slice(2)}  PGD: ${pgd?.slice(2) ?? '?'}`,
        ...mappings.map(({ vma, start, end, permissions, offset, name }) => {
          const range = `${start.slice(2).padStart(12)}-${end.slice(2).padStart(12)}`;
          return `${vma.slice(2)}  ${range} ${permissions} ${offset.toString(16).padStart(8, '0')} ${name}`.trimEnd();
        }),
      ]);
      return { json, text: () => lines.map(printableLine) };
    }),
});
