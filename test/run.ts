/**
 * The tests, from one command:
 *
 *     node test/run.ts                        lint, types, layers, unit, integration, lab
 *     node test/run.ts unit|integration       one kind
 *     node test/run.ts lab [NAME...]          scenarios in virtual machines, all or by name
 *     node test/run.ts --full                 everything, with the whole product and all repetitions
 *
 * With CI=true a skipped test is a failure unless test/skips.json names it with the reason, and a file of which a test fails is run
 * once more, by itself: what passes then is told at the end, with the reason why it failed at first.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { inspect, parseArgs } from 'node:util';
import { requirePackages } from '../lab/packages.ts';
import { unproved } from './state.ts';

const root = new URL('..', import.meta.url).pathname;
const { full, kind, names } = parse();

const isCi = process.env.CI === 'true';
const total = { passed: 0, failed: 0, skipped: 0 };
/** Each a title and the reason. */
const failures: string[] = [];
const repeated: string[] = [];
/** Files of a kind of which a test failed, at most: more than that is no chance. */
const MOST_REPEATED = 2;

/** A kind of test: the files it has and how many of them run at once. */
const kinds: Record<string, { concurrency: number; minutesEach: number }> = {
  unit: { concurrency: 2, minutesEach: 2 },
  integration: { concurrency: 2, minutesEach: 10 },
  // A guest under software emulation has one thread for all its processors.
  lab: { concurrency: 2, minutesEach: full ? 120 : 20 },
};

if (kind !== undefined && !Object.hasOwn(kinds, kind)) {
  usage(`there is no kind '${kind}'; there are ${Object.keys(kinds).join(', ')}`);
}
process.env.PATH = `${join(root, 'node_modules/.bin')}:${process.env.PATH}`;
if (full) process.env.TIDEOVER_FULL = '1';

// What is tested is what these sources build.
execFileSync(process.execPath, [join(root, 'scripts/build.ts')], { stdio: 'inherit' });
if (kind === undefined) {
  step('lint', 'biome', ['check', '--error-on-warnings', '.']);
  step('types', 'tsc', ['--noEmit']);
  step('types of the library', 'tsc', ['--noEmit', '-p', 'tsconfig.build.json']);
  step('layers', process.execPath, ['test/layers.ts']);
}
for (const each of kind === undefined ? Object.keys(kinds) : [kind]) await testKind(each);

for (const reason of repeated) console.log(`\n! passed only when it was run once more: ${reason}`);
for (const reason of failures) console.log(`\n✖ ${reason}`);
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed > 0 ? 1 : 0;

function parse(): { full: boolean; kind: string | undefined; names: string[] } {
  try {
    const { values, positionals } = parseArgs({
      options: { full: { type: 'boolean', default: false } },
      allowPositionals: true,
    });
    const [kind, ...names] = positionals;
    return { full: values.full, kind, names };
  } catch (error) {
    return usage((error as Error).message);
  }
}

function usage(message: string): never {
  console.error(`test: ${message}`);
  return process.exit(2);
}

/** A check that is one command and counts as one test. */
function step(title: string, command: string, args: string[]): void {
  const start = performance.now();
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  console.log(`${status === 0 ? '✔' : '✖'} ${title} (${seconds(performance.now() - start)})`);
  total[status === 0 ? 'passed' : 'failed'] += 1;
}

async function testKind(name: string): Promise<void> {
  const found = globSync(`test/${name}/**/*.test.ts`, { cwd: root }).sort();
  const files = names.length === 0 ? found : names.map((wanted) => fileNamed(name, wanted, found));
  if (files.length === 0) return;
  console.log(`\n${name}: ${files.length} files`);
  if (name === 'integration') await requirePackages('programs under test');
  const { concurrency, minutesEach } = kinds[name]!;
  const first = await runFiles(files, { concurrency, minutesEach });
  let last = first;
  if (isCi && first.failed.size > 0 && first.failed.size <= MOST_REPEATED) {
    console.log(`\n${name}: once more, by themselves: ${[...first.failed.keys()].join(', ')}`);
    last = await runFiles([...first.failed.keys()], { concurrency: 1, minutesEach });
    for (const [file, reasons] of first.failed) if (!last.failed.has(file)) repeated.push(...reasons);
  }
  for (const reasons of last.failed.values()) failures.push(...reasons);
  total.failed += last.counts.failed;
  total.passed += first.counts.passed + (last === first ? 0 : first.counts.failed - last.counts.failed);
  total.skipped += first.counts.skipped;
  // As root, and all of them: else it says nothing that a test is missing.
  if (name !== 'integration' || names.length > 0 || process.geteuid?.() !== 0) return;
  for (const [file, titles] of last.passed) for (const title of titles) note(first.passed, file, title);
  for (const fault of unproved(first.passed)) {
    failures.push(`docs/state.md: ${fault}`);
    total.failed += 1;
  }
}

interface Outcome {
  readonly counts: { passed: number; failed: number; skipped: number };
  /** Titles by file. */
  readonly passed: Map<string, Set<string>>;
  /** Titles by file, each with the reason. */
  readonly failed: Map<string, Set<string>>;
}

/** Runs files of tests, each in a process of its own. */
async function runFiles(files: string[], limits: { concurrency: number; minutesEach: number }): Promise<Outcome> {
  const outcome: Outcome = { counts: { passed: 0, failed: 0, skipped: 0 }, passed: new Map(), failed: new Map() };
  const { counts, passed, failed } = outcome;
  const events = run({
    files: files.map((file) => join(root, file)),
    cwd: root,
    concurrency: limits.concurrency,
    timeout: limits.minutesEach * 60_000,
  });
  const allowed = allowedSkips();
  const times: string[] = [];
  events.on('test:summary', ({ file, counts: counted, duration_ms }) => {
    if (file !== undefined) {
      times.push(`  ${seconds(duration_ms).padStart(8)}  ${relative(root, file)}`);
      return;
    }
    counts.passed += counted.passed;
    counts.failed += counted.tests - counted.passed - counted.skipped - counted.todo;
    counts.skipped += counted.skipped + counted.todo;
  });
  events.on('test:pass', (event) => {
    const { name: title, skip, todo } = event;
    if ((skip ?? todo) === undefined) note(passed, fileOf(event), title);
    if ((skip ?? todo) === undefined || !isCi || allowed.has(title)) return;
    note(failed, fileOf(event), `${title}: skipped, and not on the list of test/skips.json`);
    counts.failed += 1;
  });
  events.on('test:fail', (event) => {
    const { error } = event.details;
    note(failed, fileOf(event), `${event.name}: ${inspect(error.cause ?? error)}`);
  });
  for await (const text of events.compose(new spec())) process.stdout.write(text as string);
  console.log(times.join('\n'));
  return outcome;
}

/** `file` of an event is where test() is called, which may be a helper. The types do not have the other yet. */
function fileOf(event: { name: string; file?: string | undefined; entryFile?: string }): string {
  return relative(root, event.entryFile ?? event.file ?? event.name);
}

function note(titles: Map<string, Set<string>>, file: string, title: string): void {
  const those = titles.get(file) ?? new Set();
  those.add(title);
  titles.set(file, those);
}

function fileNamed(kindName: string, wanted: string, found: string[]): string {
  const file = found.find((path) => path.endsWith(`/${wanted}.test.ts`));
  if (file !== undefined) return file;
  const known = found.map((path) => path.replace(/^.*\/|\.test\.ts$/g, ''));
  return usage(`no ${kindName} test is named '${wanted}'; there are ${known.join(', ')}`);
}

/** Titles of tests that may be skipped in CI, each with its reason. */
function allowedSkips(): Set<string> {
  const list = JSON.parse(readFileSync(join(root, 'test/skips.json'), 'utf8')) as Record<string, string>;
  return new Set(Object.keys(list));
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}
