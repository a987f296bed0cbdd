/** Trees in namespaces of their own: checkpoint, death of the original, restore. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { rootTest as test } from '../root.ts';
import { abandoned, Bench, free, idsBelow } from './target.ts';

const KILLS = process.env.TIDEOVER_FULL ? 100 : 10;

/** Starts a tree whose init is not a child of what was started. */
async function startTree(t: TestContext, letters: string): Promise<{ target: Bench; init: number }> {
  const target = new Bench();
  const inits: number[] = [];
  t.after(async () => {
    for (const init of inits) kill(init);
    await target.dispose();
  });
  target.start(target.compile('namespaces'), [letters]);
  const init = Number(/init (\d+)/.exec(await target.says('ready'))![1]);
  inits.push(init);
  return { target, init };
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It is gone.
  }
}

/** @returns the id of the init that goes on */
function restore(target: Bench): number {
  const pidfile = join(target.folder, 'pid');
  const { status, stderr } = target.tideover('restore', '-D', target.image, '-d', '--pidfile', pidfile);
  assert.equal(status, 0, stderr);
  return Number(readFileSync(pidfile, 'utf8'));
}

for (const [letters, what] of [
  ['p', 'PID'],
  ['ui', 'UTS and IPC'],
  ['t', 'time'],
  ['puit', 'PID, UTS, IPC and time'],
] as const) {
  test(`a tree in its own ${what} namespace, twice`, async (t) => {
    const { target, init } = await startTree(t, letters);
    let pid = init;
    for (let round = 0; round < 2; round++) {
      const ids = idsBelow(pid);
      const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image);
      assert.equal(status, 0, stderr);
      await free(ids);
      pid = restore(target);
      t.after(() => kill(pid));
    }
    for (const name of ['pid', 'uts', 'ipc']) {
      const own = readlinkSync(`/proc/${pid}/ns/${name}`) !== readlinkSync(`/proc/self/ns/${name}`);
      assert.equal(own, letters.includes(name[0]!), name);
    }
    process.kill(pid, 'SIGTERM');
    assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
  });
}

test('a tree in its own namespaces goes on when it is left running', async (t) => {
  const { target, init } = await startTree(t, 'pui');
  const { status, stderr } = target.tideover('checkpoint', '-t', `${init}`, '-D', target.image, '--leave-running');
  assert.equal(status, 0, stderr);
  process.kill(init, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test(`kill -9 of tideover at ${KILLS} moments of a restore into new namespaces`, async (t) => {
  const { target, init } = await startTree(t, 'pui');
  const ids = idsBelow(init);
  assert.equal(target.tideover('checkpoint', '-t', `${init}`, '-D', target.image).status, 0);
  await free(ids);
  const started = performance.now();
  let pid = restore(target);
  const duration = performance.now() - started;
  for (let round = 0; round < KILLS; round++) {
    const now = idsBelow(pid);
    kill(pid);
    await free(now);
    const child = target.begin('restore', '-D', target.image, '-d');
    const ended = once(child, 'exit');
    await setTimeout(duration * (0.4 + (0.6 * round) / KILLS));
    child.kill('SIGKILL');
    await ended;
    pid = restore(target);
  }
  assert.deepEqual(abandoned(), []);
  assert.ok(existsSync(`/proc/${pid}`));
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});
