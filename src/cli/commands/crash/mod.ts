/** Modules. */
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { dumpExits, hex, inputFlags, vmcore, withKernel } from '../../kernel.ts';
import { table } from '../../table.ts';

export const mod = command({
  name: 'mod',
  summary: 'List the modules: where they lie, how large they are, what uses them and how they taint the kernel',
  description: [
    'With --json: [{"name", "module", "base", "size", "state", "usedBy", "taints", "regions": [{"kind", "start", "size"}]}].',
  ],
  arguments: [vmcore, { name: 'NAME', summary: 'only these', optional: true, variadic: true }],
  flags: inputFlags,
  exits: dumpExits,
  run: (io, { flags, args: [path, names = []] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { taintText } = await import('../../../crash/kernel/identity.ts');
      for (const name of names) {
        if (!kernel.modules.some((module) => module.name === name)) {
          throw new UsageError(`there is no module '${name}' in the dump`);
        }
      }
      const modules = kernel.modules.filter(({ name }) => names.length === 0 || names.includes(name));
      const rows = modules.map((module) => ({
        name: module.name,
        module: hex(module.address),
        base: hex(module.regions[0]?.start ?? 0),
        size: module.regions.reduce((sum, { size }) => sum + size, 0),
        state: module.state,
        usedBy: module.usedBy,
        taints: taintText(module.taints),
        regions: module.regions.map(({ kind, start, size }) => ({ kind, start: hex(start), size })),
      }));
      return {
        json: rows,
        text: (view) =>
          table(
            [
              { title: 'MODULE' },
              { title: 'NAME' },
              { title: 'BASE' },
              { title: 'SIZE', align: 'right' },
              { title: 'TAINTS' },
              { title: 'USED BY', overflow: 'wrap' },
            ],
            rows.map((row) => [
              row.module.slice(2),
              row.name,
              row.base.slice(2),
              `${row.size}`,
              [row.taints, row.state === 'live' ? '' : row.state].filter(Boolean).join(' '),
              row.usedBy.join(', '),
            ]),
            view,
          ),
      };
    }),
});
