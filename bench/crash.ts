/** How long it takes to understand a dump; in the full form beside drgn and crash. */
import { spawnSync } from 'node:child_process';
import { statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { drgnView, fetchCrash, fetchDrgn, fetchVmlinux } from '../lab/debuggers.ts';
import { dumps } from '../lab/dumps.ts';
import { removeTemporary, temporaryFolder } from '../lab/temporary.ts';
import { filterDump } from '../src/crash/filter/filter.ts';
import { openDumpFiles } from '../src/crash/open.ts';
import { type BenchResult, type Comparison, inTurns, median } from './bench.ts';

export const name = 'crash';
export const summary = 'tasks, stacks and log of a dump';

const program = new URL('../dist/tideover.mjs', import.meta.url).pathname;
/** Says at its end how much memory it had, in KB. */
const measured = 'data:text/javascript,process.on("exit",()=>console.error("rss "+process.resourceUsage().maxRSS))';
/** The dump as a crash service keeps it. */
const kept = { to: 'kdump', level: 31, compression: 'lzo', threads: 1, flattened: false, verify: false } as const;
/** Peak memory that is wanted, in MB. */
const MEMORY_GOAL = 250;
/** In ms. */
const SPARSE_GOAL = 5000;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const rounds = small ? 2 : 9;
  const { vmcore, elf } = await dumps({ kernel: '6.12', cpus: 1, levels: 4 });
  const folder = temporaryFolder();
  try {
    const filtered = join(folder, 'vmcore');
    await filterDump({ paths: [vmcore] }, [filtered], kept);
    const ram = join(folder, 'ram');
    await filterDump({ paths: [elf] }, [ram], { ...kept, to: 'raw', level: undefined });
    truncateSync(ram, 2 ** 40);
    const peaks: number[] = [];
    const tideover = (...args: string[]) => {
      peaks.push(node(['--import', measured, program, 'crash', ...args]));
    };
    const others = process.env.TIDEOVER_FULL ? await debuggers(filtered) : undefined;
    const times = await inTurns(
      {
        node: () => node(['-e', '']),
        dmesg: () => tideover('dmesg', filtered),
        stacks: () => tideover('bt', filtered, '-a'),
        all: () => peaks.push(node(['--import', measured, program, 'crash', filtered], 'bt -a\nlog\n')),
        unfiltered: () => tideover('bt', vmcore, '-a'),
        sparse: () => tideover('bt', ram, '-a'),
        drgn: () => others?.drgn(),
        crash: () => others?.crash(),
      },
      rounds,
    );
    const compare = (what: string, ours: number[], reference: string, theirs: number[], goal?: number): Comparison => {
      const both = { ours: median(ours), theirs: median(theirs) };
      const shown = { what, reference, unit: 'ms', ...both, ratio: both.ours / both.theirs };
      return goal === undefined ? shown : { ...shown, goal };
    };
    const peak = Math.max(...peaks) / 1024;
    const memory = { what: 'peak memory', reference: 'wanted', unit: 'MB', ours: peak, theirs: MEMORY_GOAL };
    return {
      comparisons: [
        compare('the log', times.dmesg, 'an empty Node', times.node),
        compare('all stacks', times.stacks, 'an empty Node', times.node),
        compare('all stacks, unfiltered dump', times.unfiltered, 'an empty Node', times.node),
        compare('all stacks and the log', times.all, 'an empty Node', times.node),
        ...(others === undefined
          ? []
          : [
              compare('all stacks and the log', times.all, others.names.drgn, times.drgn, 0.6),
              compare('all stacks and the log', times.all, others.names.crash, times.crash, 0.15),
            ]),
        {
          ...{ what: 'all stacks, an image of RAM of 1 TB with holes', reference: 'wanted', unit: 'ms' },
          ...{ ours: median(times.sparse), theirs: SPARSE_GOAL, ratio: median(times.sparse) / SPARSE_GOAL, goal: 1 },
        },
        { ...memory, ratio: peak / MEMORY_GOAL, goal: 1 },
      ],
      notes: [
        `the dumps have ${statSync(filtered).size >> 20} MB (-l -d 31) and ${statSync(vmcore).size >> 20} MB`,
        ...(others === undefined ? ['with TIDEOVER_FULL=1 beside drgn and crash, and 1 GB of debug symbols'] : []),
      ],
    };
  } finally {
    removeTemporary(folder);
  }
}

/** @returns peak memory in KB, if it was asked for */
function node(args: readonly string[], input = ''): number {
  const { status, stderr } = spawnSync(process.execPath, args, { input, encoding: 'utf8', maxBuffer: 2 ** 28 });
  if (status !== 0) throw new Error(`node ${args.join(' ')}: status ${status}: ${stderr}`);
  return Number(/^rss (\d+)$/m.exec(stderr)?.[1] ?? 0);
}

interface Reference {
  readonly drgn: () => Promise<unknown>;
  readonly crash: () => unknown;
  readonly names: { readonly drgn: string; readonly crash: string };
}

/** What others need: a gigabyte of debug symbols, and so only the full form. */
async function debuggers(dump: string): Promise<Reference> {
  const source = openDumpFiles([dump]);
  const { release } = source.header.utsname ?? {};
  source.close();
  const [vmlinux, drgn, crash] = [await fetchVmlinux(release!), await fetchDrgn(), await fetchCrash()];
  const [program, ...first] = crash.command;
  return {
    drgn: () => drgnView(drgn, dump, vmlinux),
    crash: () => {
      const { status } = spawnSync(program, [...first, '-s', vmlinux, dump], { input: 'quit\n' });
      if (status !== 0) throw new Error(`crash ended with ${status}`);
    },
    names: { drgn: `drgn ${drgn.version} with DWARF`, crash: `the start of crash ${crash.version}` },
  };
}
