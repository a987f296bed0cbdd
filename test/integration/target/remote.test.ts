/** Files on other machines that are read and written at any place: by ssh, and in pieces over HTTP. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { httpServer, sshServer } from '../../../lab/servers.ts';
import type { SshPlace } from '../../../src/target/place.ts';
import { rootTest } from '../root.ts';
import type { Exercise } from './exercise.ts';
import { httpPlace, sshPlace } from './places.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-remote-'));
after(() => rmSync(folder, { recursive: true }));

const program = join(import.meta.dirname, '../../../src/cli/main.ts');

/** @returns what the file is then @throws Error that it met */
async function exercise(workerData: Exercise): Promise<Buffer> {
  const worker = new Worker(new URL('./exercise.ts', import.meta.url), { workerData });
  const [{ content, failure }] = await once(worker, 'message');
  await worker.terminate();
  if (failure !== undefined) throw new Error(failure);
  return Buffer.from(content);
}

rootTest('by ssh', async () => {
  const server = await sshServer();
  try {
    const { place, keys } = sshPlace(server, folder);
    const use = (each: SshPlace) => exercise({ place: each, keys, program });
    assert.ok((await use(place)).equals(readFileSync(place.path)));
    assert.equal(statSync(place.path).mode & 0o777, 0o600);
    await assert.rejects(use({ ...place, path: '/nonesuch/image' }), /ssh:storage:image: open: No such file/);
    await assert.rejects(use({ ...place, alias: 'another' }), /ssh:storage:image: the connection has ended/);
  } finally {
    server.close();
  }
});

test('over HTTP, in pieces', async () => {
  const server = await httpServer(folder, { isFull: (path) => path === '/small/00000001' });
  try {
    const content = await exercise({ place: httpPlace(server, 'pieces'), program });
    const at = join(folder, 'pieces');
    const pieces = readdirSync(at).sort();
    assert.deepEqual(pieces, ['00000000', '00000001', '00000002', '00000003']);
    assert.ok(Buffer.concat(pieces.map((name) => readFileSync(join(at, name)))).equals(content));
    const full = /http:\/\/storage\/: (write|sync): PUT .*small\/00000001: 507 Insufficient Storage/;
    await assert.rejects(exercise({ place: httpPlace(server, 'small'), program }), full);
  } finally {
    server.close();
  }
});
