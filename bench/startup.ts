/** How long tideover takes to start, and to show the log of a dump, beside an empty program on the same Node. */
import { execFileSync } from 'node:child_process';
import { dumps } from '../lab/dumps.ts';
import { type BenchResult, inTurns, median } from './bench.ts';

export const name = 'startup';
export const summary = 'tideover --version and crash dmesg against node -e 0';

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const bundle = new URL('../dist/tideover.mjs', import.meta.url).pathname;
  const start = (...args: string[]) =>
    void execFileSync(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const { vmcore } = await dumps({ kernel: '6.12', cpus: 1, levels: 4 });
  const times = await inTurns(
    {
      node: () => start('-e', '0'),
      version: () => start(bundle, '--version'),
      help: () => start(bundle, '--help'),
      dmesg: () => start(bundle, 'crash', 'dmesg', vmcore),
    },
    small ? 5 : 60,
  );
  const [node, version, help] = [median(times.node), median(times.version), median(times.help)];
  const dmesg = median(times.dmesg);
  const reference = { reference: 'node -e 0', unit: 'ms', theirs: node };
  return {
    comparisons: [
      { what: 'tideover --version', ...reference, ours: version, ratio: version / node, goal: 1.5 },
      { what: 'tideover --help', ...reference, ours: help, ratio: help / node },
      { what: 'tideover crash dmesg', ...reference, ours: dmesg, ratio: dmesg / node, goal: 2.4 },
    ],
  };
}
