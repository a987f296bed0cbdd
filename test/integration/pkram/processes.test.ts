/** Processes checkpointed into preserved memory and restored out of it: -D pkram:NODE. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Bench } from '../process/target.ts';
import { rootTest as test } from '../root.ts';

test('a process goes into a node, which stays, and on from there; a name is used once', async (t) => {
  const target = Bench.of(t);
  process.env.TIDEOVER_PKRAM = join(target.folder, 'medium');
  const nodes = () => JSON.parse(target.tideover('pkram', 'ls', '--json').stdout).nodes;
  const pid = target.start(target.compile('state'));
  await target.says('ready');

  const saved = target.tideover('checkpoint', '-t', `${pid}`, '-D', 'pkram:state');
  assert.equal(saved.status, 0, saved.stderr);
  await target.gone(pid);
  assert.deepEqual([nodes()[0].name, nodes()[0].content], ['state', 'image']);
  const restored = target.tideover('restore', '-D', 'pkram:state', '-d');
  assert.equal(restored.status, 0, restored.stderr);
  assert.equal(nodes().length, 1);

  const again = target.tideover('checkpoint', '-t', `${pid}`, '-D', 'pkram:state');
  assert.equal(again.status, 3);
  assert.match(again.stderr, /there is a node of that name already; .*remove it/);
  const other = target.tideover('checkpoint', '-t', `${pid}`, '-D', 'pkram:other', '--leave-running');
  assert.equal(other.status, 0, other.stderr);
  assert.equal(nodes().length, 2);
  assert.equal(target.tideover('restore', '-D', 'pkram:third').status, 1);
  // What loads files and streams leaves an image alone.
  assert.equal(target.tideover('pkram', 'load', 'state', target.folder).status, 3);

  await setTimeout(100);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a node builds on others that were written while the process ran, in the medium and in what reads them', async (t) => {
  const target = Bench.of(t);
  const medium = join(target.folder, 'medium');
  process.env.TIDEOVER_PKRAM = medium;
  const pid = target.start(target.compile('written'));
  await target.says('ready');
  const args = [new URL('save-rounds.ts', import.meta.url).pathname, medium, `${pid}`];
  const saved = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 120_000, killSignal: 'SIGKILL' });
  assert.equal(saved.status, 0, saved.stderr);
  await target.gone(pid);
  const { memory, unchanged, unwatched } = JSON.parse(saved.stdout);
  assert.equal(unwatched, false);
  assert.ok(unchanged > 0 && memory > 0, `${unchanged} bytes before, ${memory} at last`);
  assert.equal(target.tideover('image', 'verify', 'pkram:last').status, 0);
  // What nobody can restore can be looked into all the same.
  const core = join(target.folder, 'core');
  const converted = target.tideover('image', 'convert', 'pkram:last', core, '--to', 'core');
  assert.equal(converted.status, 0, converted.stderr);
  assert.ok(statSync(core).size > memory + unchanged, 'it has the memory of all rounds');
  assert.equal(
    target.tideover('image', 'convert', 'pkram:last', join(target.folder, 'text'), '--to', 'json').status,
    0,
  );
  const restored = target.tideover('restore', '-D', 'pkram:last', '-d');
  assert.equal(restored.status, 0, restored.stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});
