/**
 * Runs benches and prints their ratios:
 *
 *     node bench/run.ts [NAME...] [--small] [--json]
 *
 * All of them without a name. --small: little work, to see that they work. A ratio over its goal is shown, and is no
 * failure: machines differ. Exit 1 if a bench fails, 2 for a name that does not exist.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { painter, wantsColor } from '../src/cli/color.ts';
import { table } from '../src/cli/table.ts';
import type { Bench, BenchResult } from './bench.ts';

const { values: options, positionals: wanted } = parseArgs({
  options: { small: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
  allowPositionals: true,
});

const benches: Bench[] = [];
for (const file of readdirSync(import.meta.dirname).sort()) {
  if (!file.endsWith('.ts') || file === 'run.ts') continue;
  const loaded = (await import(`./${file}`)) as Partial<Bench>;
  if (loaded.run !== undefined) benches.push(loaded as Bench);
}
for (const name of wanted) {
  if (benches.some((bench) => bench.name === name)) continue;
  console.error(`bench: there is no '${name}'; there are ${benches.map((bench) => bench.name).join(', ')}`);
  process.exit(2);
}

// What is measured is what these sources build.
execFileSync(process.execPath, [new URL('../scripts/build.ts', import.meta.url).pathname], { stdio: 'inherit' });

const paint = painter(wantsColor('auto', process.stdout, process.env));
const results: (BenchResult & { name: string; summary: string })[] = [];
for (const { name, summary, run } of benches) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  try {
    const result = { name, summary, ...(await run({ small: options.small })) };
    results.push(result);
    if (!options.json) print(result);
  } catch (error) {
    console.error(`bench: ${name}:`, error);
    process.exitCode = 1;
  }
}
if (options.json) console.log(JSON.stringify(results, null, 2));

function print({ name, summary, comparisons, notes = [] }: (typeof results)[number]): void {
  console.log(`${paint('bold', name)}: ${summary}`);
  const rows = comparisons.map(({ what, reference, unit, ours, theirs, ratio, goal }) => [
    what,
    `${short(ours)} ${unit}`,
    `${short(theirs)} ${unit}`,
    reference,
    ratio.toFixed(2),
    goal === undefined ? '' : goal.toFixed(2),
  ]);
  const columns = ['', 'OURS', 'REFERENCE', '', 'RATIO', 'GOAL'].map((title) => {
    return { title, align: title === '' ? ('left' as const) : ('right' as const) };
  });
  const lines = rows.length === 0 ? [] : table(columns, rows, { width: Number.POSITIVE_INFINITY, paint });
  for (const line of lines) console.log(`  ${line}`);
  for (const note of notes) console.log(`  ${note}`);
  console.log();
}

/** Three digits. */
function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
