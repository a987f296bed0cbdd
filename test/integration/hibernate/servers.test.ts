/** Images of machines on servers, with files in place of physical memory. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { httpServer, sshServer } from '../../../lab/servers.ts';
import { openDumpFiles } from '../../../src/crash/open.ts';
import { rootTest } from '../root.ts';
import { httpPlace, sshPlace } from '../target/places.ts';
import { NOTE, note, RANGES, type Task } from './machine.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-image-'));
after(() => rmSync(folder, { recursive: true }));
const program = join(import.meta.dirname, '../../../src/cli/main.ts');

const end = RANGES.at(-1)!.end;
const memory = Buffer.alloc(end);
for (let at = 0, x = 1; at < end; at += 4) {
  x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  memory.writeUInt32LE(x, at);
}
memory.fill(0, NOTE.address, NOTE.address + NOTE.size);
memory.set(note, NOTE.address);
memory.fill('this page is like others ', 9 << 20, 12 << 20);
const device = join(folder, 'memory');
writeFileSync(device, memory);

async function saveAndRestore(task: Pick<Task, 'server' | 'keys'>): Promise<number> {
  const back = join(folder, 'back');
  writeFileSync(back, '');
  truncateSync(back, end);
  const workerData: Task = { ...task, program, memory: device, back };
  const worker = new Worker(new URL('./machine.ts', import.meta.url), { workerData });
  const [{ result, failure }] = await once(worker, 'message');
  await worker.terminate();
  if (failure !== undefined) throw new Error(failure);
  assert.equal(result.described, 'ready');
  assert.equal(result.state, 'used');
  const found = readFileSync(back);
  for (const { start, end } of RANGES) assert.ok(found.subarray(start, end).equals(memory.subarray(start, end)));
  return result.size;
}

function isWhole(image: string): void {
  const source = openDumpFiles([image]);
  const page = Buffer.alloc(4096);
  assert.equal(source.readPhysical(10 << 20, page), undefined);
  assert.ok(page.equals(memory.subarray(10 << 20, (10 << 20) + 4096)));
  source.close();
}

test('over HTTP; its pieces together are the image', async () => {
  const server = await httpServer(folder);
  try {
    const size = await saveAndRestore({ server: httpPlace(server, 'machine') });
    const pieces = readdirSync(join(folder, 'machine')).sort();
    assert.equal(pieces.length, Math.ceil(size / (2 << 20)));
    const whole = join(folder, 'whole');
    writeFileSync(whole, Buffer.concat(pieces.map((name) => readFileSync(join(folder, 'machine', name)))));
    isWhole(whole);
  } finally {
    server.close();
  }
});

rootTest('by ssh', async () => {
  const server = await sshServer();
  try {
    const { place, keys } = sshPlace(server, folder);
    await saveAndRestore({ server: place, keys });
    isWhole(place.path);
  } finally {
    server.close();
  }
});
