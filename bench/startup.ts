/** How long `tideover --version` takes beside an empty program on the same Node. */
import { execFileSync } from 'node:child_process';
import { type BenchResult, inTurns, median } from './bench.ts';

export const name = 'startup';
export const summary = 'tideover --version against node -e 0';

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const bundle = new URL('../dist/tideover.mjs', import.meta.url).pathname;
  const start = (...args: string[]) =>
    void execFileSync(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const times = await inTurns(
    { node: () => start('-e', '0'), version: () => start(bundle, '--version'), help: () => start(bundle, '--help') },
    small ? 5 : 60,
  );
  const [node, version, help] = [median(times.node), median(times.version), median(times.help)];
  const reference = { reference: 'node -e 0', unit: 'ms', theirs: node };
  return {
    comparisons: [
      { what: 'tideover --version', ...reference, ours: version, ratio: version / node, goal: 1.5 },
      { what: 'tideover --help', ...reference, ours: help, ratio: help / node },
    ],
  };
}
