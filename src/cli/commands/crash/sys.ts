/** The system that crashed. */
import { command } from '../../command.ts';
import { dumpExits, hex, inputFlags, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const sys = command({
  name: 'sys',
  summary: 'Show the system: kernel, CPUs, when it stopped and why',
  description: [
    'With --json: {"dumpfile", "release", "sysname"?, "nodename"?, "version"?, "machine"?, "domainname"?, "cpus"?, "time"?, "uptime"?, ' +
      '"load"?, "tasks"?, "modules"?, "taints"?, "panic"?, "memory", "panicTask"?: {"pid", "comm", "task", "cpu", "state"}}, times in ' +
      'seconds, the memory in bytes.',
  ],
  arguments: [vmcore],
  flags: inputFlags,
  exits: dumpExits,
  run: (io, { flags, args: [path] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { summarise } = await import('../../../crash/kernel/summary.ts');
      const { utsname, panicTask: task, ...rest } = summarise(kernel);
      const json = {
        dumpfile: kernel.source.file,
        ...utsname,
        ...rest,
        panicTask: task && {
          pid: task.pid,
          comm: task.comm,
          task: hex(task.address),
          cpu: task.cpu,
          state: task.state,
        },
      };
      const date = rest.time === undefined ? undefined : new Date(rest.time * 1000).toISOString();
      const rows: [string, string | number | undefined][] = [
        ['DUMPFILE', kernel.source.file],
        ['CPUS', rest.cpus],
        ['DATE', date],
        ['UPTIME', rest.uptime === undefined ? undefined : duration(rest.uptime)],
        ['LOAD AVERAGE', rest.load?.map((load) => load.toFixed(2)).join(', ')],
        ['TASKS', rest.tasks],
        ...Object.entries(utsname).map(([name, text]) => [name.toUpperCase(), text] as [string, string | undefined]),
        ['MEMORY', `${(rest.memory / 2 ** 30).toFixed(1)} GB`],
        ['TAINTED', rest.taints],
        ['PANIC', rest.panic],
        ['PID', task?.pid],
        ['COMMAND', task?.comm],
        ['TASK', task?.address.toString(16)],
        ['CPU', task?.cpu],
        ['STATE', task?.state],
      ];
      const shown = rows.filter(([, value]) => value !== undefined && value !== '');
      return { json, text: () => shown.map(([name, value]) => `${name.padStart(12)}: ${printableLine(`${value}`)}`) };
    }),
});

/** `3 days, 04:05:06` */
function duration(seconds: number): string {
  const part = (unit: number, of: number) => `${Math.floor(seconds / unit) % of}`.padStart(2, '0');
  const days = Math.floor(seconds / 86400);
  return `${days === 0 ? '' : `${days} days, `}${part(3600, 24)}:${part(60, 60)}:${part(1, 60)}`;
}
