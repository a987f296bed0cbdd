/** Images of machines, with a file in place of physical memory. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { writeNote } from '../../../src/abi/elfnote.ts';
import { filterDump } from '../../../src/crash/filter/filter.ts';
import { openDumpFiles } from '../../../src/crash/open.ts';
import { FormatError } from '../../../src/errors.ts';
import {
  beginImage,
  clearImage,
  type Description,
  isUnfinished,
  openImage,
  parseDescription,
  ticketOf,
} from '../../../src/hibernate/image.ts';
import { openPhysical, WINDOW } from '../../../src/hibernate/physical.ts';
import { describeImage, markImage, restoreMemory } from '../../../src/hibernate/restore.ts';
import { saveMemory } from '../../../src/hibernate/save.ts';
import { subtract } from '../../../src/mem/range.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-hibernate-'));
after(() => rmSync(folder, { recursive: true }));

const PAGE = 4096;
const MB = 1 << 20;
const description: Description = {
  id: '0123456789abcdef'.repeat(2),
  saved: Date.UTC(2026, 10, 21),
  entry: 0x1234_5678,
  region: { start: 3 * MB, end: 4 * MB },
  fiveLevel: false,
  release: '7.2.13',
  saver: '6.12.9',
  cpu: { vendor: 'AuthenticAMD', model: 'a processor', count: 2, features: ['fpu', 'nx'] },
  firmware: [
    { start: 0, end: 0x9fc00, type: 1 },
    { start: MB, end: 9 * MB, type: 1 },
  ],
  fileSystems: [{ id: 'ext4 00', digest: 'a'.repeat(32), at: '/' }],
  mailbox: { address: MB, cookie: 'f'.repeat(32) },
};
/** The region in the middle is left out, and ranges begin and end inside of what is mapped at a time. */
const ranges = [
  { start: MB, end: 3 * MB },
  { start: 4 * MB, end: 4 * MB + 3 * PAGE },
  { start: 5 * MB, end: 5 * MB + WINDOW - PAGE },
];
const end = 9 * MB;

/** Memory of which each third page is zeros and each third repeats itself; with a megabyte of which no page does. */
const memory = Buffer.alloc(end);
for (let at = 0; at < end; at += PAGE) {
  const kind = at >= 6 * MB && at < 7 * MB ? 2 : (at / PAGE) % 3;
  if (kind === 1) memory.fill(`page ${at} `, at, at + PAGE);
  if (kind === 2) for (let i = 0; i < PAGE; i += 4) memory.writeUInt32LE(Math.imul(at + i, 2654435761) >>> 0, at + i);
}
const note = writeNote('VMCOREINFO', 0, Buffer.from('OSRELEASE=7.2.13\n'));
const vmcoreinfo = { address: 2 * MB, size: PAGE };
memory.fill(0, vmcoreinfo.address, vmcoreinfo.address + PAGE);
memory.set(note, vmcoreinfo.address);

const device = join(folder, 'memory');
writeFileSync(device, memory);
const image = join(folder, 'image');
writeFileSync(image, Buffer.alloc(3 * PAGE, 'what was there before'));
const request = {
  description,
  memory: ranges,
  vmcoreinfo,
  compression: 'zstd',
  keepFree: false,
  state: 'ready',
  device,
} as const;
const saved = await saveMemory({ path: image }, request, { threads: 2 });
const bytes = readFileSync(image);

/** A copy of the image to damage. */
function copyOfImage(): string {
  const path = join(folder, 'copy');
  copyFileSync(image, path);
  return path;
}

test('an image is a dump of the memory, with the description among its notes', () => {
  assert.equal(saved.size, bytes.length);
  assert.equal(saved.pages, (2 * MB + WINDOW - PAGE) / PAGE + 3);
  assert.deepEqual(describeImage({ path: image }), { description, state: 'ready', size: bytes.length });
  const source = openDumpFiles([image]);
  try {
    assert.equal(source.format, 'kdump');
    assert.deepEqual(source.ranges, ranges);
    for (const range of ranges) {
      const found = Buffer.alloc(range.end - range.start);
      assert.equal(source.readPhysical(range.start, found), undefined);
      assert.ok(found.equals(memory.subarray(range.start, range.end)));
    }
    assert.equal(source.readPhysical(description.region.start, Buffer.alloc(1))?.reason, 'missing');
    assert.equal(source.header.utsname?.release, '7.2.13');
  } finally {
    source.close();
  }
});

test('what is restored is the memory, and nothing beside it is touched', async () => {
  const target = join(folder, 'restored');
  writeFileSync(target, Buffer.alloc(end, 0xa5));
  await restoreMemory({ path: image }, { threads: 2 }, [], target);
  const found = readFileSync(target);
  const wanted = Buffer.alloc(end, 0xa5);
  for (const range of ranges) wanted.set(memory.subarray(range.start, range.end), range.start);
  assert.ok(found.equals(wanted));
});

for (const compression of ['none', 'lzo'] as const) {
  test(`compressed as ${compression}, all comes back, and a damaged page is found`, async () => {
    const [path, target] = [join(folder, compression), join(folder, 'target')];
    for (const file of [path, target]) writeFileSync(file, '');
    truncateSync(target, end);
    const { size } = await saveMemory({ path }, { ...request, compression }, { threads: 2 });
    await restoreMemory({ path }, { threads: 2 }, [], target);
    const back = readFileSync(target);
    for (const range of ranges) {
      assert.ok(back.subarray(range.start, range.end).equals(memory.subarray(range.start, range.end)));
    }
    const damaged = readFileSync(path);
    damaged[size - MB]! ^= 1;
    writeFileSync(path, damaged);
    await assert.rejects(restoreMemory({ path }, { threads: 2 }, [], target), /page at 0x[0-9a-f]+: expected it whole/);
  });
}

test('a plain ELF dump is restored as well, and not where the restoring kernel lives', async () => {
  const target = join(folder, 'restored');
  writeFileSync(target, Buffer.alloc(end, 0xa5));
  const elf = join(folder, 'vmcore');
  await filterDump({ paths: [image] }, [elf], {
    ...{ to: 'elf', compression: 'none', level: undefined, flattened: false, verify: true, threads: 2 },
  });
  const leave = [{ start: 2 * MB, end: 3 * MB }];
  await restoreMemory({ path: elf }, { threads: 2 }, leave, target);
  const found = readFileSync(target);
  const wanted = Buffer.alloc(end, 0xa5);
  for (const range of subtract(ranges, leave)) wanted.set(memory.subarray(range.start, range.end), range.start);
  assert.ok(found.equals(wanted));
});

test('a damaged page is named, and not taken for what it was', async () => {
  const target = join(folder, 'restored');
  writeFileSync(target, Buffer.alloc(end));
  const copy = copyOfImage();
  const damaged = Buffer.from(bytes);
  // Behind the last page there may be zeros.
  damaged[damaged.findLastIndex((byte) => byte !== 0)]! ^= 1;
  writeFileSync(copy, damaged);
  assert.equal(describeImage({ path: copy }).state, 'ready');
  await assert.rejects(
    restoreMemory({ path: copy }, { threads: 2 }, [], target),
    /page at 0x[0-9a-f]+: expected it whole/,
  );
});

test('any change of the head is found, and no cut is taken for an image', () => {
  const head = 4 * PAGE;
  fc.assert(
    fc.property(fc.integer({ min: 0, max: head - 1 }), fc.integer({ min: 0, max: 7 }), (at, bit) => {
      // Nothing stands between seal and state.
      if (at >= 592 && at < 3584) return;
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 1 << bit;
      assert.throws(() => openBytes(damaged), FormatError);
    }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 0, max: bytes.length - 1 }), (length) => {
      assert.throws(() => openBytes(bytes.subarray(0, length)), FormatError);
    }),
    { numRuns: 50 },
  );
});

function openBytes(content: Uint8Array) {
  return openImage({
    name: 'bytes',
    size: content.length,
    read(position, into) {
      const part = content.subarray(position, position + into.length);
      into.set(part);
      return part.length;
    },
    close() {},
  });
}

test('a state is written into one sector', () => {
  const copy = copyOfImage();
  for (const state of ['used', 'failed', 'tested', 'ready'] as const) {
    markImage({ path: copy }, state);
    assert.equal(describeImage({ path: copy }).state, state);
    const changed = [...readFileSync(copy)].flatMap((byte, i) => (byte === bytes[i] ? [] : [Math.floor(i / 512)]));
    assert.ok(changed.every((sector) => sector === 7));
  }
});

test('what was an image is none once it is cleared, and a ticket stands there', () => {
  const cleared = Buffer.from(bytes);
  clearImage({ write: (position, part) => cleared.set(part, position) }, 'a ticket');
  assert.equal(ticketOf(cleared.subarray(0, PAGE)), 'a ticket');
  assert.throws(() => openBytes(cleared), /seal/);
  assert.equal(isUnfinished(cleared), false);
  beginImage({ write: (position, part) => cleared.set(part, position) });
  assert.throws(() => openBytes(cleared), /seal/);
  assert.equal(isUnfinished(cleared), true);
  assert.equal(isUnfinished(bytes), false);
});

test('a description is believed only where it can be one', () => {
  const text = JSON.stringify(description);
  assert.deepEqual(parseDescription(text, 'file'), description);
  const without = (name: keyof Description) => JSON.stringify({ ...description, [name]: undefined });
  for (const name of Object.keys(description) as (keyof Description)[]) {
    assert.throws(() => parseDescription(without(name), 'file'), FormatError, name);
  }
  for (const wrong of ['', '[]', 'null', '{"id":', JSON.stringify({ ...description, region: { start: 2, end: 1 } })]) {
    assert.throws(() => parseDescription(wrong, 'file'), FormatError);
  }
});

test('memory is seen as a dump by windows, and only where it is', () => {
  const source = openPhysical({ ranges, notes: [], header: { incomplete: false, flattened: false, files: 1 }, device });
  try {
    const found = Buffer.alloc(ranges[2]!.end - ranges[2]!.start);
    assert.equal(source.readPhysical(ranges[2]!.start, found), undefined);
    assert.ok(found.equals(memory.subarray(ranges[2]!.start, ranges[2]!.end)));
    assert.equal(source.readPhysical(3 * MB - PAGE, Buffer.alloc(2 * PAGE))?.address, 3 * MB);
    const bits = new Uint8Array(1);
    source.storedPages((4 * MB) / PAGE, bits);
    assert.equal(bits[0], 0b111);
  } finally {
    source.close();
  }
});
