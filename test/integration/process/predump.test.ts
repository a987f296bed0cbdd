/** Images that build on one another: of programs that write, move, drop and map memory all the time, and check themselves. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { fetchCriu } from '../../../lab/criu.ts';
import { openDirectory } from '../../../src/image/directory.ts';
import { verify } from '../../../src/image/verify.ts';
import { until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Bench, free, idsBelow, program } from './target.ts';

const KILLS = process.env.TIDEOVER_FULL ? 100 : 8;

async function started(t: TestContext): Promise<{ target: Bench; pid: number }> {
  const target = Bench.of(t);
  const pid = target.start(target.compile('written'));
  await target.says('ready');
  return { target, pid };
}

interface Result {
  readonly memory: number;
  readonly unchanged: number;
  readonly unwatched: boolean;
}

function run(target: Bench, ...args: string[]): Result & { stderr: string } {
  const { status, stdout, stderr } = target.tideover(...args, '--json');
  assert.equal(status, 0, stderr);
  return { ...JSON.parse(stdout), stderr };
}

/** @param on what it builds on */
function commands(target: Bench, pid: number) {
  const parent = (on: string | undefined) => (on === undefined ? [] : ['--prev-images-dir', `../${on}`]);
  const image = (name: string) => join(target.folder, name);
  return {
    preDump: (name: string, on?: string) => run(target, 'pre-dump', '-t', `${pid}`, '-D', image(name), ...parent(on)),
    checkpoint: (name: string, on?: string, ...more: string[]) =>
      run(target, 'checkpoint', '-t', `${pid}`, '-D', image(name), ...parent(on), ...more),
    restore: (name: string) => assert.equal(target.tideover('restore', '-D', image(name), '-d').status, 0),
    faults: (name: string) => verify(openDirectory(image(name))).map(({ message }) => message),
  };
}

async function isWell(target: Bench, pid: number): Promise<void> {
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
}

/** The processes that hold what watches one. */
function trackersOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        if (readFileSync(`/proc/${name}/comm`, 'utf8') !== 'tideover-track\n') return false;
        return readFileSync(`/proc/${name}/fdinfo/0`, 'utf8').includes(`\nPid:\t${pid}\n`);
      } catch {
        return false;
      }
    })
    .map(Number);
}

async function noTracker(pid: number): Promise<void> {
  await until(() => trackersOf(pid).length === 0, 'its tracker does not end');
}

test('a chain of pre-dumps, between which it writes, forks and executes itself; tideover and CRIU restore it', async (t) => {
  const criu = await fetchCriu();
  const { target, pid } = await started(t);
  const { preDump, checkpoint, restore, faults } = commands(target, pid);
  const first = preDump('1');
  assert.ok(first.memory > 1 << 20 && first.unchanged === 0, JSON.stringify(first));
  process.kill(pid, 'SIGUSR1');
  await target.says('forked');
  const second = preDump('2', '1');
  assert.ok(second.unchanged > 0 && !second.unwatched, JSON.stringify(second));
  process.kill(pid, 'SIGUSR1');
  await target.says(/forked(.|\n)*forked/);
  preDump('3', '2');
  const ids = idsBelow(pid);
  const last = checkpoint('4', '3');
  assert.ok(last.unchanged > 0 && !last.unwatched, JSON.stringify(last));
  await free(ids);
  // It ends when they have.
  await noTracker(pid);
  assert.deepEqual(faults('4'), []);
  restore('4');
  // The chain goes on from what was restored, and through a program that is executed.
  preDump('5');
  process.kill(pid, 'SIGUSR2');
  await target.says('again');
  preDump('6', '5');
  checkpoint('7', '6');
  await free(ids);
  criu.criu('restore', '-d', '-D', join(target.folder, '7'));
  await isWell(target, pid);
});

test('what a later image has is punched out of earlier ones, as CRIU does it', async (t) => {
  const { target, pid } = await started(t);
  const { checkpoint, faults } = commands(target, pid);
  const at = (name: string) => join(target.folder, name);
  checkpoint('one', undefined, '--leave-running', '--track-mem');
  checkpoint('two', 'one');
  await target.gone(pid);
  const blocks = (name: string) => {
    const files = readdirSync(at(name)).filter((file) => file.startsWith('pages-'));
    return files.reduce((sum, file) => sum + statSync(join(at(name), file)).blocks, 0);
  };
  const before = blocks('one');
  target.shell('mkdir theirs && cp -a one two theirs/');
  const deduped = target.tideover('image', 'dedup', at('two'), '--json');
  assert.equal(deduped.status, 0, deduped.stderr);
  const { images, freed } = JSON.parse(deduped.stdout);
  assert.equal(images, 1);
  // Some blocks are the file system's own, which has more to note down.
  assert.ok(
    freed > 0 && before - blocks('one') > (0.9 * freed) / 512,
    `${freed} of ${before}, ${blocks('one')} are left`,
  );
  assert.deepEqual([...faults('one'), ...faults('two')], []);
  const { criu } = await fetchCriu();
  criu('dedup', '-D', at('theirs/two'));
  for (const file of readdirSync(at('one')).filter((file) => file.startsWith('pages-')))
    assert.ok(readFileSync(join(at('one'), file)).equals(readFileSync(join(at('theirs/one'), file))), file);
  // Once more changes nothing.
  assert.equal(target.tideover('image', 'dedup', at('two')).status, 0);
  const earlier = target.tideover('restore', '-D', at('one'), '-d');
  assert.equal(earlier.status, 3, earlier.stderr);
  assert.match(earlier.stderr, /in a later image alone/);
  const restored = target.tideover('restore', '-D', at('two'), '-d');
  assert.equal(restored.status, 0, restored.stderr);
  await isWell(target, pid);
});

test('kill -9 of tideover in pre-dumps: what comes next is whole or right, and nobody is harmed', async (t) => {
  const { target, pid } = await started(t);
  const { preDump, checkpoint, restore } = commands(target, pid);
  const before = performance.now();
  preDump('0');
  const duration = performance.now() - before;
  let parent = '0';
  for (let round = 1; round <= KILLS; round++) {
    const args = [
      'pre-dump',
      '-t',
      `${pid}`,
      '-D',
      join(target.folder, `${round}`),
      '--prev-images-dir',
      `../${parent}`,
    ];
    const child = target.begin(...args);
    const ended = once(child, 'exit');
    await setTimeout(duration * (0.5 + (0.6 * round) / KILLS));
    child.kill('SIGKILL');
    await ended;
    if (existsSync(join(target.folder, `${round}`, 'inventory.img'))) parent = `${round}`;
    if (round % 4 !== 0) continue;
    preDump(`${round}-whole`, parent);
    parent = `${round}-whole`;
  }
  const ids = idsBelow(pid);
  checkpoint('last', parent);
  await free(ids);
  restore('last');
  await isWell(target, pid);
});

test('without its tracker an image is whole, and says so; after --leave-running --track-mem the next is small', async (t) => {
  const { target, pid } = await started(t);
  const { preDump, checkpoint, restore } = commands(target, pid);
  preDump('1');
  const [tracker] = trackersOf(pid);
  process.kill(tracker!, 'SIGKILL');
  await noTracker(pid);
  const whole = checkpoint('2', '1', '--leave-running', '--track-mem');
  assert.ok(whole.unwatched && whole.unchanged === 0, JSON.stringify(whole));
  assert.match(whole.stderr, /tracker is not there any more/);
  const next = checkpoint('3', '2');
  assert.ok(!next.unwatched && next.unchanged > 0, JSON.stringify(next));
  // One that is not the last any more is no parent.
  await target.gone(pid);
  restore('3');
  preDump('4');
  preDump('5');
  const other = preDump('6', '4');
  assert.ok(other.unwatched && other.unchanged === 0, JSON.stringify(other));
  await isWell(target, pid);
});

test('Node, which has rings that it has mapped', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(process.execPath, [program('timers.mjs')]);
  await target.says('ready');
  const { preDump, checkpoint, restore } = commands(target, pid);
  preDump('1');
  await setTimeout(300);
  const ids = idsBelow(pid);
  assert.ok(checkpoint('2', '1').unchanged > 0);
  await free(ids);
  restore('2');
  await isWell(target, pid);
});

test('what cannot be: a stream, preserved memory, no parent, an image on itself, a pre-dump restored', async (t) => {
  const { target, pid } = await started(t);
  const { preDump } = commands(target, pid);
  const at = join(target.folder, '1');
  preDump('1');
  const cases: [RegExp, number, ...string[]][] = [
    [/-D -: a pre-dump needs files/, 3, 'pre-dump', '-t', `${pid}`, '-D', '-'],
    [/-D pkram:x: a pre-dump needs files/, 3, 'pre-dump', '-t', `${pid}`, '-D', 'pkram:x'],
    [/an image that builds on another one needs/, 3, 'checkpoint', '-t', `${pid}`, '-D', '-', '--prev-images-dir', at],
    [/ENOENT/, 1, 'checkpoint', '-t', `${pid}`, '-D', at, '--prev-images-dir', '../none'],
    [/is or needs the one that is there/, 3, 'checkpoint', '-t', `${pid}`, '-D', at, '--prev-images-dir', '.'],
    [/a pre-dump: memory without processes/, 3, 'restore', '-D', at, '-d'],
  ];
  for (const [message, code, ...args] of cases) {
    const { status, stderr } = target.tideover(...args);
    assert.match(stderr, message);
    assert.equal(status, code, stderr);
  }
  await isWell(target, pid);
});
