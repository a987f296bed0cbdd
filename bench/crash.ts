/** How long it takes to understand a dump, beside drgn and crash where they are installed. */
import { spawnSync } from 'node:child_process';
import { chmodSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { dumps } from '../lab/dumps.ts';
import { removeTemporary, temporaryFolder } from '../lab/temporary.ts';
import { filterDump } from '../src/crash/filter/filter.ts';
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

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const rounds = small ? 2 : 9;
  const { vmcore } = await dumps({ kernel: '6.12', cpus: 1, levels: 4 });
  const folder = temporaryFolder();
  try {
    const filtered = join(folder, 'vmcore');
    await filterDump({ paths: [vmcore] }, [filtered], kept);
    const peaks: number[] = [];
    const tideover = (...args: string[]) => {
      const peak = node('--import', measured, program, 'crash', ...args);
      peaks.push(peak);
    };
    const debugger_ = debuggers(filtered);
    const times = await inTurns(
      {
        node: () => node('-e', ''),
        dmesg: () => tideover('dmesg', filtered),
        stacks: () => tideover('bt', filtered, '-a'),
        unfiltered: () => tideover('bt', vmcore, '-a'),
        reference: () => debugger_?.run(),
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
        ...(debugger_ === undefined
          ? []
          : [compare('all stacks', times.stacks, debugger_.name, times.reference, debugger_.goal)]),
        { ...memory, ratio: peak / MEMORY_GOAL, goal: 1 },
      ],
      notes: [
        `the dumps have ${statSync(filtered).size >> 20} MB (-l -d 31) and ${statSync(vmcore).size >> 20} MB`,
        ...(debugger_ === undefined ? ['neither drgn nor crash with symbols is installed, so none is shown'] : []),
      ],
    };
  } finally {
    removeTemporary(folder);
  }
}

/** @returns peak memory in KB, if it was asked for */
function node(...args: string[]): number {
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 2 ** 28 });
  if (status !== 0) throw new Error(`node ${args.join(' ')}: status ${status}: ${stderr}`);
  return Number(/^rss (\d+)$/m.exec(stderr)?.[1] ?? 0);
}

/** drgn or crash, where it can open the dump: they want the kernel's debug symbols. */
function debuggers(dump: string): { name: string; goal: number; run(): void } | undefined {
  chmodSync(dump, 0o600);
  const script =
    'for t in __import__("drgn.helpers.linux.pid").helpers.linux.pid.for_each_task(prog): prog.stack_trace(t)';
  const known = [
    { name: 'drgn', goal: 0.6, command: ['drgn', '-c', dump, '-e', script], input: '' },
    { name: 'crash', goal: 0.15, command: ['crash', '-s', dump], input: 'foreach bt\nlog\nquit\n' },
  ];
  for (const { name, goal, command, input } of known) {
    const run = () => spawnSync(command[0]!, command.slice(1), { input, maxBuffer: 2 ** 28 }).status === 0;
    if (run()) return { name, goal, run };
  }
  return undefined;
}
