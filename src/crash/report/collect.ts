/** A report out of a dump. What cannot be read is left out, and named among what is missing. */
import { textOf } from '../../abi/text.ts';
import { taintText } from '../kernel/identity.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { readLog, timeText } from '../kernel/printk.ts';
import { readSlabs } from '../kernel/slabs.ts';
import { summarise } from '../kernel/summary.ts';
import type { Task } from '../kernel/tasks.ts';
import type { Stack } from '../kernel/unwind.ts';
import { readUsage } from '../kernel/usage.ts';
import type { Verdict } from '../why/verdict.ts';
import { noWaits } from '../why/waits.ts';
import type { FrameFacts, LogLine, MemoryPicture, ModuleRow, Report, StackGroup, TaskFacts } from './report.ts';
import { verdictFacts } from './verdictfacts.ts';
import { waitPictureOf } from './waitpicture.ts';

const SHOWN_SLABS = 10;

/** @param verdict what is said of the crash, where that is known */
export function collectReport(kernel: Kernel, verdict?: Verdict): Report {
  const { gaps, source } = kernel;
  const { utsname, ...facts } = summarise(kernel);
  const stacks = gaps.try('stacks', () => stackGroups(kernel)) ?? [];
  const crashed = new Set(stacks.filter((each) => each.crashed).flatMap(({ frames }) => frames.map((f) => f.module)));
  return {
    dump: source.file.replace(/^.*\//, ''),
    system: {
      nodename: 'nodename' in utsname ? utsname.nodename : undefined,
      release: utsname.release,
      version: 'version' in utsname ? utsname.version : undefined,
      time: facts.time,
      uptime: facts.uptime,
      cpus: facts.cpus,
      load: facts.load,
      tasks: facts.tasks,
      memory: facts.memory,
      taints: facts.taints,
    },
    panic: facts.panic,
    verdict: verdict && verdictFacts(verdict),
    waits: waitPictureOf(verdict?.waits ?? noWaits),
    log: gaps.try('log', () => logLines(kernel)) ?? [],
    stacks,
    memory: gaps.try('use of memory', () => memoryPicture(kernel)),
    modules: gaps.try('modules', () => moduleRows(kernel, crashed)) ?? [],
    sources: sourcesOf(kernel),
    missing: gaps.list,
  };
}

function logLines({ memory, info, gaps }: Kernel): LogLine[] {
  return readLog(memory, info, gaps).flatMap(({ time, level, text }) =>
    textOf(text)
      .split('\n')
      .map((line) => ({ time: timeText(time).trimStart(), level, text: line })),
  );
}

/** Tasks with the same frames, those of the most tasks first behind the ones that matter most. */
function stackGroups(kernel: Kernel): StackGroup[] {
  const groups = new Map<string, { tasks: Task[]; stack: Stack }>();
  for (const task of kernel.tasks) {
    const stack = kernel.gaps.try(`stack of task ${task.pid}`, () => kernel.stack(task));
    const found: Stack = stack ?? { frames: [], end: 'unknown', why: 'its stack is not in the dump' };
    const key = [found.why ?? found.end, ...found.frames.map(({ pc }) => pc)].join();
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { tasks: [task], stack: found });
    else group.tasks.push(task);
  }
  const panic = kernel.gaps.try('the task that crashed', () => kernel.panicTask)?.address;
  const crashed = (tasks: readonly Task[]) => tasks.some(({ address }) => address === panic);
  const weight = (tasks: readonly Task[]) => {
    if (crashed(tasks)) return 0;
    if (tasks.some(({ state }) => state === 'D')) return 1;
    return tasks.some(({ running, pid }) => running && pid !== 0) ? 2 : 3;
  };
  return [...groups.values()]
    .sort((a, b) => weight(a.tasks) - weight(b.tasks) || b.tasks.length - a.tasks.length)
    .map(({ tasks, stack }) => ({
      tasks: tasks.map(taskFacts),
      frames: framesOf(kernel, stack),
      why: stack.why,
      crashed: crashed(tasks),
    }));
}

function taskFacts({ pid, comm, state, cpu, running, address }: Task): TaskFacts {
  return { pid, comm, state, cpu, running, address: hex(address) };
}

function framesOf(kernel: Kernel, { frames }: Stack): FrameFacts[] {
  return frames.map((frame, i) => {
    const place = kernel.symbols.ofFrame(frame);
    const name = place?.name || undefined;
    return {
      pc: hex(frame.pc),
      symbol: name === undefined ? undefined : `${name}+0x${place!.offset.toString(16)}`,
      module: place?.module,
      // The first is where the task stood.
      interrupted: frame.interrupted && i > 0,
      rescued: frame.rescued === true,
    };
  });
}

function memoryPicture(kernel: Kernel): MemoryPicture | undefined {
  const usage = readUsage(kernel);
  const { total, shmem } = usage;
  if (total <= 0) return undefined;
  const known = [
    { kind: 'processes', pages: usage.anon },
    { kind: 'files', pages: Math.max(0, usage.file - shmem) },
    { kind: 'shared memory', pages: shmem },
    { kind: 'slabs, reclaimable', pages: usage.slabReclaimable },
    { kind: 'slabs', pages: usage.slabUnreclaimable },
    { kind: 'kernel stacks', pages: usage.kernelStack },
    { kind: 'page tables', pages: usage.pageTables },
  ] as const;
  const used = known.reduce((sum, { pages }) => sum + pages, usage.free);
  const other = Math.max(0, total - used);
  const slabs = kernel.gaps.try('slab caches', () => readSlabs(kernel)) ?? [];
  return {
    // What each CPU has not yet added to the counters may make more of them than there is.
    total: used + other,
    kinds: [...known, { kind: 'other use by the kernel', pages: other }, { kind: 'free', pages: usage.free }],
    slabs: slabs
      .map(({ name, slabs, pages, inUse }) => ({ name, bytes: slabs * pages * kernel.source.pageSize, objects: inUse }))
      .sort((a, b) => b.bytes - a.bytes)
      .slice(0, SHOWN_SLABS),
  };
}

function moduleRows(kernel: Kernel, crashed: ReadonlySet<string | undefined>): ModuleRow[] {
  return kernel.modules.map(({ name, regions, taints, state, usedBy }) => ({
    name,
    base: hex(regions[0]?.start ?? 0n),
    size: regions.reduce((sum, { size }) => sum + size, 0),
    taints: taintText(taints),
    state,
    usedBy,
    crashed: crashed.has(name),
  }));
}

function sourcesOf(kernel: Kernel): Report['sources'] {
  const { gaps, source, memory, info } = kernel;
  const { header } = source;
  const symbols = gaps.try('symbols', () => kernel.kallsyms);
  const types = gaps.try('types', () => kernel.types);
  const withTypes = gaps.try('types of modules', () => kernel.moduleTypes.size) ?? 0;
  const orc = gaps.try('unwind tables', () => kernel.orc.format.registers);
  const kept = [
    source.format,
    ...(header.dumpLevel === undefined ? [] : [`filtered with -d ${header.dumpLevel}`]),
    ...(header.incomplete ? ['cut short'] : []),
    ...(header.files > 1 ? [`${header.files} files`] : []),
  ];
  const offset = info.get('KERNELOFFSET');
  const layout = `${memory.space.tables.levels} levels${offset === undefined ? '' : `, KASLR offset 0x${offset}`}`;
  return [
    { what: 'Dump', from: kept.join(', ') },
    { what: 'Page tables', from: `swapper_pg_dir of VMCOREINFO: ${layout}` },
    ...(symbols === undefined
      ? []
      : [{ what: 'Symbols', from: `kallsyms in the dump: ${symbols.named} of ${symbols.count} with their names` }]),
    ...(types === undefined
      ? []
      : [{ what: 'Types', from: `BTF in the dump: ${types.btf.count}, and those of ${withTypes} modules` }]),
    ...(orc === undefined ? [] : [{ what: 'Stacks', from: `ORC tables in the dump (registers as ${orc})` }]),
  ];
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}
