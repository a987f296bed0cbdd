/** A restore that is killed, or that fails: nothing of it stays, and the next one finds everything as it was. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Client } from './client.ts';
import { Bench, field, free, idsBelow, isEnding, killTree, noneAbandoned, program, zombie } from './target.ts';

const KILLS = process.env.TIDEOVER_FULL ? 200 : 20;

/** An image of a tree whose original is gone, and the ids of all its processes and threads. */
async function imageOf(t: TestContext, ...args: string[]): Promise<{ target: Bench; pid: number; ids: number[] }> {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), args);
  await target.says('ready');
  const ids = idsBelow(pid);
  assert.equal(target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image).status, 0);
  await free(ids);
  return { target, pid, ids };
}

test(`kill -9 of tideover at ${KILLS} moments of a restore`, async (t) => {
  const { target, pid, ids } = await imageOf(t, '4', '4');
  const restore = ['restore', '-D', target.image, '-d'];
  const started = performance.now();
  assert.equal(target.tideover(...restore).status, 0);
  let duration = performance.now() - started;
  let [none, all] = [0, 0];
  for (let round = 0; round < KILLS; round++) {
    for (const id of ids) kill(id);
    await free(ids);
    const child = target.begin(...restore);
    const ended = once(child, 'exit');
    await setTimeout(duration * (0.4 + (0.6 * round) / KILLS));
    // Where it was quicker than the first one the next is killed sooner.
    if (!child.kill('SIGKILL')) duration *= 0.8;
    await ended;
    await noneAbandoned();
    // Those whose tracer has died, or whom the guard kills, need a while to die of it. All is all but the zombie.
    let there: number[] = [];
    const isDecided = () => {
      there = living(ids);
      return there.length === 0 || (there.length === ids.length - 1 && there.every(goesOn));
    };
    await until(isDecided, () => `of ${ids} there are ${there}, which do not all go on`);
    if (there.length === 0) none++;
    else all++;
  }
  await noneAbandoned();
  t.diagnostic(`${none} times nothing was there, ${all} times everything`);
  for (const id of ids) kill(id);
  await free(ids);
  const last = target.tideover(...restore);
  assert.equal(last.status, 0, last.stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

function goesOn(id: number): boolean {
  try {
    return field(id, 'TracerPid') === '0' && /[SRD]/.test(field(id, 'State'));
  } catch {
    return false;
  }
}

function living(ids: readonly number[]): number[] {
  return ids.filter((id) => {
    try {
      return !zombie(id);
    } catch {
      return false;
    }
  });
}

function kill(id: number): void {
  try {
    process.kill(id, 'SIGKILL');
  } catch {
    // It is a thread, or gone.
  }
}

test('a file that is missing, and too little memory: nothing is left, and it works when that is mended', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', NEEDS]);
  await target.says('ready');
  assert.equal(target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image).status, 0);
  await target.gone(pid);
  const [open, away] = ['open', 'away'].map((name) => join(target.folder, 'work', name)) as [string, string];
  renameSync(open, away);
  const missing = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(missing.status, 1, missing.stderr);
  assert.match(missing.stderr, /work\/open.*ENOENT/);
  assert.ok(!existsSync(`/proc/${pid}`));
  renameSync(away, open);
  // Tideover itself has less than this, the program has more.
  const restore = [target.node, target.main, 'restore', '-D', target.image, '-d'];
  const little = spawnSync('prlimit', [`--as=${24 * 2 ** 30}`, ...restore], { encoding: 'utf8' });
  assert.equal(little.status, 1, little.stderr);
  assert.match(little.stderr, /mmap.*ENOMEM/);
  assert.ok(!existsSync(`/proc/${pid}`));
  await noneAbandoned();
  assert.equal(target.tideover('restore', '-D', target.image, '-d').status, 0);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

const NEEDS = `
import mmap, signal
signal.signal(signal.SIGTERM, lambda *_: None)
file = open('open', 'w+')
large = mmap.mmap(-1, 32 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
large[5 << 30] = 7
print('ready', flush=True)
signal.pause()
print('ok' if large[5 << 30] == 7 and file.write('x') == 1 else 'faults', flush=True)
`;

test('what has been let go of ends with a tideover that is killed before all of it is', async () => {
  for (const [last, survive] of [
    ['process.kill(process.pid, "SIGKILL")', false],
    ['unguard(); process.kill(process.pid, "SIGKILL")', true],
  ] as const) {
    const sleepers = [0, 1].map(() => spawn('sleep', ['1000']));
    try {
      const guard = new URL('../../../src/process/guard.ts', import.meta.url).href;
      const pids = sleepers.map(({ pid }) => pid!);
      const code = `const { guardOver } = await import('${guard}'); const unguard = guardOver([${pids}]); ${last}`;
      const run = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: 'inherit' });
      assert.deepEqual(await once(run, 'exit'), [null, 'SIGKILL']);
      if (survive) await setTimeout(200);
      else
        await Promise.all(sleepers.map((sleeper) => sleeper.exitCode ?? sleeper.signalCode ?? once(sleeper, 'exit')));
      for (const { signalCode } of sleepers) assert.equal(signalCode, survive ? null : 'SIGKILL');
    } finally {
      for (const sleeper of sleepers) sleeper.kill('SIGKILL');
    }
  }
});

test('a tree that was to end, or to stay stopped, does so as a whole with a tideover that is killed meanwhile', async (t) => {
  const file = new URL('../../../src/process/allornone.ts', import.meta.url).href;
  for (const [signal, after, before, state] of [
    ['SIGKILL', '', '', 'S'],
    ['SIGKILL', 'guard.turn(tree());', '', 'gone'],
    ['SIGKILL', 'guard.turn(tree());', 'await grow();', 'gone'],
    ['SIGSTOP', 'guard.turn(tree());', '', 'T'],
  ] as const) {
    const target = Bench.of(t);
    const pid = target.start('bash', ['-c', GROWS]);
    await target.says('ready');
    const code = `
      const { AllOrNone } = await import('${file}');
      const { treeOf } = await import('${new URL('../../../src/process/freeze.ts', import.meta.url).href}');
      const tree = () => treeOf(${pid});
      const grow = async () => {
        process.kill(${pid}, 'SIGUSR1');
        while (tree().length < 4) await new Promise((done) => setTimeout(done, 5));
      };
      const guard = new AllOrNone(${pid}, ${constants.signals[signal]});
      ${before}
      ${after}
      process.kill(process.pid, 'SIGKILL');`;
    const run = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: 'inherit' });
    assert.deepEqual(await once(run, 'exit'), [null, 'SIGKILL']);
    await noneAbandoned();
    const states = () => idsBelow(pid).map((id) => field(id, 'State'));
    if (state === 'gone') await free(idsBelow(pid));
    else
      await until(
        () => states().length === 3 && states().every((each) => each === state),
        () => `${states()}`,
      );
  }
});

/** Two children, and a third one when it is told so. */
const GROWS = `
trap 'sleep 1000 &' USR1
sleep 1000 & sleep 1000 &
echo ready
while :; do wait; done
`;

test(`kill -9 at ${KILLS / 4} moments of a checkpoint that ends a tree with a client in a PID namespace: one of the two is there`, async (t) => {
  const target = Bench.of(t);
  const outer = target.start('sh', [
    '-c',
    'exec "$@" 2>/dev/null',
    'sh',
    'unshare',
    '--pid',
    '--fork',
    'setsid',
    'python3',
    program('answers.py'),
    'terminal',
  ]);
  const port = Number(/port (\d+)/.exec(await target.says(/port \d+\n/))![1]);
  const client = await Client.connect(port, '127.0.0.1');
  t.after(() => client.end());
  let pid = Number(readFileSync(`/proc/${outer}/task/${outer}/children`, 'utf8'));
  let asked = 0;
  const answered = async () => {
    assert.equal(await client.ask('again'), `${++asked} again`);
  };
  const checkpoint = ['checkpoint', '-t', `${pid}`, '-D', target.image, '--tcp-established'];
  await answered();
  const started = performance.now();
  const first = target.tideover(...checkpoint, '-R');
  assert.equal(first.status, 0, first.stderr);
  const duration = performance.now() - started;
  let [alive, restored] = [0, 0];
  for (let round = 0; round < KILLS / 4; round++) {
    const child = target.begin(...checkpoint.with(2, `${pid}`));
    const ended = once(child, 'exit');
    if (round % 2 === 0) await setTimeout(duration * (0.6 + (2 * round) / KILLS));
    else while (child.exitCode === null && !isWritten(target.image)) await setTimeout(0);
    child.kill('SIGKILL');
    await ended;
    // What stands by ends all of it then, or none.
    await noneAbandoned();
    await until(() => living([pid]).length === 0 || !isEnding(pid), 'it does not end');
    if (living([pid]).length > 0) alive++;
    else {
      restored++;
      const { status, stdout, stderr } = target.tideover('restore', '-D', target.image, '-d', '--json');
      assert.equal(status, 0, stderr);
      pid = (JSON.parse(stdout) as { pid: number }).pid;
    }
    await answered();
  }
  assert.equal(client.ended, false);
  t.diagnostic(`${alive} times it went on, ${restored} times it was restored`);
  killTree(pid);
});

/** Whether the image that is being written has all its files. */
function isWritten(image: string): boolean {
  return readdirSync(image).some((name) => existsSync(join(image, name, 'tideover.sums')));
}
