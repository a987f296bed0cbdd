/** A dump, and what of the kernel can be found in it. */
import { command } from '../../command.ts';
import { dumpExits, hex, inputFlags, vmcore, withKernel } from '../../kernel.ts';
import { printableLine } from '../../text.ts';

export const info = command({
  name: 'info',
  summary: 'Show what a dump holds, and from where what is known of the kernel comes',
  description: [
    'It reads every table that the other commands go by, and says of each what is missing.',
    'With --json: {"dump": {"file", "format", "utsname"?, "time"?, "cpus"?, "dumpLevel"?, "compression"?, "incomplete", "flattened", ' +
      '"files", "ranges": [{"start", "end"}]}, "kernel": {"release", "sysname"?, "nodename"?, "version"?, "machine"?, "domainname"?, ' +
      '"time"?, "cpus"?, "tasks"?, "pageTableLevels", "kaslrOffset"?, "physBase"?}, "symbols"?: {"from", "count", "named", ' +
      '"encoding"}, "types"?: {"from", "count", "modules"?}, "unwinding"?: {"from", "registers"}, "modules"?, "panic"?, ' +
      '"panicTask"?: {"pid", "comm"}}. Times are in seconds since 1970; utsname has the members that the header names.',
  ],
  arguments: [vmcore],
  flags: inputFlags,
  exits: dumpExits,
  run: (io, { flags, args: [path] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { summarise } = await import('../../../crash/kernel/summary.ts');
      const { source, gaps, memory, info } = kernel;
      const { utsname, panicTask: task, panic, cpus, tasks, time } = summarise(kernel);
      const kallsyms = gaps.try('symbols', () => kernel.kallsyms);
      const types = gaps.try('types', () => kernel.types);
      const moduleTypes = gaps.try('types of modules', () => [...kernel.moduleTypes.keys()]);
      const orc = gaps.try('unwind tables', () => kernel.orc.format.registers);
      const modules = gaps.try('modules', () => kernel.modules.map(({ name }) => name));
      const offset = info.get('KERNELOFFSET');
      const json = {
        dump: { file: source.file, format: source.format, ...source.header, ranges: source.ranges.map(rangeJson) },
        kernel: {
          ...utsname,
          time,
          cpus,
          tasks,
          pageTableLevels: memory.space.tables.levels,
          kaslrOffset: offset === undefined ? undefined : `0x${offset}`,
          physBase:
            info.number('phys_base') === undefined
              ? undefined
              : hex(BigInt.asUintN(64, BigInt(info.number('phys_base')!))),
        },
        symbols: kallsyms && {
          from: 'kallsyms',
          count: kallsyms.count,
          named: kallsyms.named,
          encoding: kallsyms.encoding,
        },
        types: types && { from: 'BTF', count: types.btf.count, modules: moduleTypes },
        unwinding: orc === undefined ? undefined : { from: 'ORC', registers: orc },
        modules,
        panic,
        panicTask: task && { pid: task.pid, comm: task.comm },
      };
      const { header } = source;
      const size = source.ranges.reduce((sum, { start, end }) => sum + end - start, 0);
      const notes = [
        ...(header.incomplete ? ['cut short'] : []),
        ...(header.flattened ? ['flattened'] : []),
        ...(header.dumpLevel === undefined ? [] : [`-d ${header.dumpLevel}`]),
        ...(header.files > 1 ? [`${header.files} files`] : []),
      ];
      const rows: [string, string | undefined][] = [
        [
          'dump',
          [`${source.file}: ${source.format}`, `${(size / 2 ** 20).toFixed(0)} MB of memory`, ...notes].join(', '),
        ],
        ['kernel', [utsname.release, 'version' in utsname ? utsname.version : undefined].filter(Boolean).join(' ')],
        ['page tables', `${json.kernel.pageTableLevels} levels, KASLR ${json.kernel.kaslrOffset ?? 'unknown'}`],
        ['symbols', kallsyms && `${kallsyms.count} from kallsyms (${kallsyms.encoding})`],
        ['types', types && `${types.btf.count} from BTF, and those of ${moduleTypes?.length ?? 0} modules`],
        ['unwinding', orc && `by ORC, registers as ${orc}`],
        ['modules', modules?.join(' ')],
        ['CPUs, tasks', cpus === undefined || tasks === undefined ? undefined : `${cpus}, ${tasks}`],
        ['panic', panic],
        ['in task', task && `${task.pid} ${task.comm}`],
      ];
      const lines = rows.map(([name, text]) => `${name.padStart(12)}: ${printableLine(text ?? 'unknown')}`);
      return { json, text: () => lines };
    }),
});

function rangeJson({ start, end }: { start: number; end: number }) {
  return { start: hex(start), end: hex(end) };
}
