/** Memory that goes to a page server while it is saved: ours and CRIU's, each with what the other one sends. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, readdirSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { fetchCriu } from '../../../lab/criu.ts';
import { rootTest as test } from '../root.ts';
import { Bench } from './target.ts';

/** Starts what waits for a checkpoint. @returns its port, and its end */
async function waiting(
  t: TestContext,
  [file, ...args]: readonly [string, ...string[]],
  says: RegExp,
): Promise<{ port: string; ended: Promise<unknown[]>; said(): string }> {
  const child: ChildProcess = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  let text = '';
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (part) => (text += part));
  while (!says.test(text)) {
    assert.ok(child.exitCode === null, text);
    await setTimeout(5);
  }
  return { port: says.exec(text)![1]!, ended, said: () => text };
}

function ours(t: TestContext, target: Bench, directory: string) {
  const line = [target.node, target.main, 'page-server', '-D', directory, '--port', '0'] as const;
  return waiting(t, line, /waiting on 127\.0\.0\.1 port (\d+)/);
}

function bench(t: TestContext): Bench {
  const target = new Bench();
  t.after(() => target.dispose());
  return target;
}

/** Where the image is put together. */
const placeOf = (target: Bench) => join(target.folder, 'pages');
const bring = (target: Bench) => cpSync(target.image, placeOf(target), { recursive: true });

test('a checkpoint sends memory, shared one too, to a page server, and a restore finds all of it', async (t) => {
  const target = bench(t);
  const pid = target.start(target.compile('state'));
  await target.says('ready');
  const server = await ours(t, target, placeOf(target));
  const to = ['--page-server', '--address', '127.0.0.1', '--port', server.port];
  const saved = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, ...to);
  assert.equal(saved.status, 0, saved.stderr);
  assert.deepEqual(await server.ended, [0, null], server.said());
  await target.gone(pid);
  assert.deepEqual(
    readdirSync(target.image).filter((file) => /^page/.test(file)),
    [],
  );
  assert.ok(readdirSync(placeOf(target)).some((file) => /^pagemap-shmem-/.test(file)));
  bring(target);
  const verified = target.tideover('image', 'verify', placeOf(target));
  assert.equal(verified.status, 0, verified.stderr);
  const restored = target.tideover('restore', '-D', placeOf(target), '-d');
  assert.equal(restored.status, 0, restored.stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('CRIU sends to our page server, and what comes is restored', async (t) => {
  const { criu } = await fetchCriu();
  const target = bench(t);
  const pid = target.start(target.compile('written'));
  await target.says('ready');
  const server = await ours(t, target, placeOf(target));
  target.shell(`mkdir -p ${target.image}`);
  const to = ['--page-server', '--address', '127.0.0.1', '--port', server.port];
  criu('dump', '-t', `${pid}`, '-D', target.image, ...to);
  assert.deepEqual(await server.ended, [0, null], server.said());
  await target.gone(pid);
  bring(target);
  const restored = target.tideover('restore', '-D', placeOf(target), '-d');
  assert.equal(restored.status, 0, restored.stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test("we send to CRIU's page server, and what comes is restored", async (t) => {
  const { command } = await fetchCriu();
  const target = bench(t);
  const pid = target.start(target.compile('written'));
  await target.says('ready');
  target.shell(`mkdir -p ${placeOf(target)}`);
  const line = [...command, 'page-server', '-D', placeOf(target), '--address', '127.0.0.1', '-v3'];
  const server = await waiting(t, line as [string, ...string[]], /Using (\d+) port/);
  const to = ['--page-server', '--port', server.port];
  const saved = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, ...to);
  assert.equal(saved.status, 0, saved.stderr);
  assert.deepEqual(await server.ended, [0, null], server.said());
  await target.gone(pid);
  bring(target);
  const restored = target.tideover('restore', '-D', placeOf(target), '-d');
  assert.equal(restored.status, 0, restored.stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a page server that goes away, or is none, changes nothing; one whose client goes away leaves nothing', async (t) => {
  const target = bench(t);
  const pid = target.start(target.compile('state'));
  await target.says('ready');
  const server = await ours(t, target, placeOf(target));
  const client = createConnection(Number(server.port), '127.0.0.1');
  client.write(Buffer.alloc(48));
  client.end();
  assert.notDeepEqual(await server.ended, [0, null]);
  assert.deepEqual(readdirSync(placeOf(target)), []);
  const to = ['--page-server', '--port', server.port];
  const saved = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, ...to);
  assert.equal(saved.status, 1, saved.stderr);
  assert.match(saved.stderr, /connect.*ECONNREFUSED/);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});
