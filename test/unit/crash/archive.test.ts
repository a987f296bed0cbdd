import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ArchiveWriter, archivedFiles, archivedFolder, dumpIn } from '../../../src/crash/archive.ts';
import { openDump } from '../../../src/crash/open.ts';
import { elfDump, memoryReader } from './dumps.ts';

const FOLDER = 'host-202611211430';
const date = new Date('2026-11-21T14:30:00Z');

interface Write {
  readonly position: number;
  readonly bytes: Uint8Array;
}

/** A device on which an earlier archive lies, with all that is written to it. */
function device(size: number) {
  const bytes = Buffer.alloc(size, 0x55);
  const writes: (Write | 'sync')[] = [];
  const output = {
    write(position: number, from: Uint8Array) {
      if (position + from.length > size) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      bytes.set(from, position);
      writes.push({ position, bytes: from.slice() });
    },
    sync: () => void writes.push('sync'),
  };
  return { bytes, writes, output };
}

const files = (bytes: Uint8Array) => {
  const reader = memoryReader(bytes, '/dev/disk');
  return Object.fromEntries(
    [...archivedFiles(reader)].map(({ name, file }) => {
      const content = Buffer.alloc(file.size);
      file.read(0, content);
      return [name, content.toString('latin1')];
    }),
  );
};

const log = 'panic\n'.repeat(300);
const memory = Uint8Array.from({ length: 0x1000 }, (_, i) => i & 0xff);
const dump = elfDump([{ paddr: 0x1000, bytes: memory }]);

async function written(to = device(64 << 10)) {
  const archive = new ArchiveWriter(to.output, FOLDER, date);
  await archive.add('vmcore-dmesg.txt', [Buffer.from(log)]);
  await archive.add('vmcore', [dump.subarray(0, 700), dump.subarray(700)]);
  return to;
}

test('tar brings the files of an archive, and a dump is read where it lies in one', async () => {
  const { bytes } = await written();
  assert.equal(archivedFolder(bytes), FOLDER);
  const folder = mkdtempSync(join(tmpdir(), 'tideover-archive-'));
  try {
    writeFileSync(join(folder, 'disk'), bytes);
    assert.equal(execFileSync('tar', ['-xvf', 'disk'], { cwd: folder, encoding: 'utf8' }).trim().split('\n').length, 3);
    assert.equal(readFileSync(join(folder, FOLDER, 'vmcore-dmesg.txt'), 'latin1'), log);
    assert.deepEqual(readFileSync(join(folder, FOLDER, 'vmcore')), dump);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const into = new Uint8Array(memory.length);
  assert.equal(openDump([memoryReader(bytes)]).readPhysical(0x1000, into), undefined);
  assert.deepEqual(into, memory);
});

test('whatever of it has reached the disk when power goes away, what is in the archive is whole', async () => {
  const { writes } = await written();
  const whole = { 'vmcore-dmesg.txt': log, vmcore: dump.toString('latin1') };
  const seen = new Set<string>();
  // Between two syncs writes come to the disk in any order: each of them alone, with all that was synced before.
  let synced = Buffer.alloc(64 << 10, 0x55);
  const look = (bytes: Uint8Array) => {
    for (const [name, content] of Object.entries(files(bytes))) {
      assert.equal(content, whole[name as keyof typeof whole]);
      seen.add(name);
    }
  };
  let since: Write[] = [];
  for (const step of writes) {
    if (step !== 'sync') {
      since.push(step);
      const alone = Buffer.from(synced);
      alone.set(step.bytes, step.position);
      look(alone);
      continue;
    }
    synced = Buffer.from(synced);
    for (const { position, bytes } of since) synced.set(bytes, position);
    since = [];
    look(synced);
  }
  assert.deepEqual([...seen], ['vmcore-dmesg.txt', 'vmcore']);
});

test('a device without room for the dump keeps the log, and takes the reason in place of it', async () => {
  const { bytes, output } = device(8 << 10);
  const archive = new ArchiveWriter(output, FOLDER, date);
  await archive.add('vmcore-dmesg.txt', [Buffer.from(log)]);
  await assert.rejects(
    archive.add(
      'vmcore',
      Array.from({ length: 8 }, () => Buffer.alloc(1024, 1)),
    ),
    { code: 'ENOSPC' },
  );
  assert.deepEqual(files(bytes), { 'vmcore-dmesg.txt': log });
  const tar = spawnSync('tar', ['-tf', '-'], { input: bytes, encoding: 'utf8' });
  assert.deepEqual([tar.stdout, tar.stderr], [`${FOLDER}/\n${FOLDER}/vmcore-dmesg.txt\n`, '']);
  await archive.add('why.txt', [Buffer.from('sysrq')]);
  assert.deepEqual(files(bytes), { 'vmcore-dmesg.txt': log, 'why.txt': 'sysrq' });
  assert.throws(() => dumpIn(memoryReader(bytes, '/dev/disk')), /vmcore-dmesg\.txt, why\.txt: tar -xf \/dev\/disk/);
});

test('a file beyond 8 GiB has its size in binary, as tar reads it', async () => {
  const heads: Buffer[] = [];
  const piece = { length: 9 * 2 ** 30 } as Uint8Array;
  const keep = (position: number, bytes: Uint8Array) => {
    if (position === 0 || position === 512) heads[position / 512] = Buffer.from(bytes.subarray(0, 512));
  };
  await new ArchiveWriter({ write: keep, sync() {} }, FOLDER, date).add('vmcore', [piece]);
  const listed = execFileSync('sh', ['-c', 'tar -tvf - 2>/dev/null || :'], { input: Buffer.concat(heads) });
  assert.match(listed.toString(), / 9663676416 .*host-202611211430\/vmcore\n/);
  const sizes = [...archivedFiles(memoryReader(Buffer.concat(heads)))].map(({ file }) => file.size);
  assert.deepEqual(sizes, [piece.length]);
});
