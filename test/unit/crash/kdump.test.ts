import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { writeNote } from '../../../src/abi/elfnote.ts';
import type { Compression } from '../../../src/crash/codec/page.ts';
import { type FilterOptions, filterDump } from '../../../src/crash/filter/filter.ts';
import { FlattenedOutput, flattenedPieces, openFlattened, rearrange } from '../../../src/crash/kdump/flattened.ts';
import { disk_dump_header, kdump_sub_header, page_desc } from '../../../src/crash/kdump/format.ts';
import { openDump, openDumpFiles } from '../../../src/crash/open.ts';
import type { PageSource } from '../../../src/crash/source.ts';
import { vmcoreinfoOf } from '../../../src/crash/vmcoreinfo.ts';
import { FormatError } from '../../../src/errors.ts';
import { elfDump, memoryReader, type TestSegment } from './dumps.ts';

const PAGE = 4096;
const folder = mkdtempSync(join(tmpdir(), 'tideover-crash-'));
after(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);

/** 1500 pages in two pieces: noise, text, zeros. More than a chunk, and not from a page that is a multiple of 8 on. */
const memory = Buffer.alloc(1500 * PAGE);
for (let page = 0; page < 1500; page++) {
  const bytes = memory.subarray(page * PAGE, (page + 1) * PAGE);
  if (page % 5 === 0) randomFillSync(bytes);
  else if (page % 5 < 4) bytes.fill(`page ${page} says ${'and on '.repeat(page % 40)}`);
}
const segments: readonly TestSegment[] = [
  { paddr: 3 * PAGE, bytes: memory.subarray(0, 1100 * PAGE) },
  { paddr: 2000 * PAGE, bytes: memory.subarray(1100 * PAGE) },
];
const notes = Buffer.concat([
  writeNote('CORE', 1, new Uint8Array(336)),
  writeNote('VMCOREINFO', 0, Buffer.from('OSRELEASE=6.99.0\nNUMBER(x)=1\n')),
]);
writeFileSync(path('elf'), elfDump(segments, notes));

const options: FilterOptions = {
  to: 'kdump',
  compression: 'lzo',
  level: undefined,
  flattened: false,
  threads: 2,
  verify: true,
};

async function convert(name: string, more: Partial<FilterOptions>, from = 'elf'): Promise<string> {
  const result = await filterDump({ paths: [path(from)] }, [path(name)], { ...options, ...more });
  assert.deepEqual([result.written, result.zero, result.unreadable, result.partial], [1500, 300, 0, false]);
  assert.equal(statSync(path(name)).mode & 0o777, 0o600);
  return path(name);
}

/** That a dump has exactly the memory that all are made from. */
function assertMemory(source: PageSource): void {
  for (const { paddr, bytes } of segments) {
    const into = Buffer.alloc(bytes.length);
    assert.equal(source.readPhysical(paddr, into), undefined);
    assert.ok(into.equals(bytes));
    const [odd, expected] = [Buffer.alloc(10_000), bytes.subarray(1234, 11_234)];
    assert.equal(source.readPhysical(paddr + 1234, odd), undefined);
    assert.ok(odd.equals(expected));
  }
  assert.deepEqual(source.readPhysical(2 * PAGE, Buffer.alloc(1)), { reason: 'missing', address: 2 * PAGE });
  assert.equal(source.readPhysical(1102 * PAGE, Buffer.alloc(3 * PAGE))?.address, 1103 * PAGE);
  assert.equal(source.readPhysical(2 ** 46, Buffer.alloc(1))?.reason, 'missing');
  const bits = new Uint8Array(400);
  source.storedPages(8, bits);
  for (let pfn = 8; pfn < 8 + 3200; pfn++) {
    const isStored = (pfn < 1103 && pfn >= 3) || (pfn >= 2000 && pfn < 2400);
    assert.equal(((bits[(pfn - 8) >> 3]! >> ((pfn - 8) & 7)) & 1) === 1, isStored, `page ${pfn}`);
  }
}

for (const compression of ['none', 'zlib', 'lzo', 'snappy', 'zstd'] as const satisfies Compression[]) {
  test(`a kdump-compressed dump (${compression}) holds what it was made from, and turns into ELF again`, async () => {
    const source = openDumpFiles([await convert(`kdump ${compression}`, { compression })]);
    assertMemory(source);
    assert.equal(source.header.compression, compression);
    assert.equal(vmcoreinfoOf(source.notes)?.release, '6.99.0');
    assert.equal(source.notes.length, 2);
    assert.equal(source.header.cpus, 1);
    source.close();
    const back = openDumpFiles([await convert(`elf ${compression}`, { to: 'elf' }, `kdump ${compression}`)]);
    assertMemory(back);
    assert.deepEqual(back.notes, openDumpFiles([path('elf')]).notes);
    back.close();
  });
}

test('the file is the same, whatever the number of threads', async () => {
  const [one, five] = [await convert('one', { threads: 1 }), await convert('five', { threads: 5 })];
  assert.ok(readFileSync(one).equals(readFileSync(five)));
});

test('a flattened dump is read in place, of kdump and of ELF, and written from one', async () => {
  for (const to of ['kdump', 'elf'] as const) {
    const source = openDumpFiles([await convert(`flattened ${to}`, { to, flattened: true })]);
    assert.equal(source.header.flattened, true);
    assertMemory(source);
    source.close();
    const back = openDumpFiles([await convert(`unflattened ${to}`, { to: 'kdump' }, `flattened ${to}`)]);
    assert.equal(back.header.flattened, false);
    assertMemory(back);
    back.close();
  }
});

test('a split set is read in any order, and what a missing file holds is a hole', async () => {
  const names = ['part 1', 'part 2', 'part 3'].map(path) as [string, string, string];
  await filterDump({ paths: [path('elf')] }, names, options);
  const whole = openDumpFiles([names[2], names[0], names[1]]);
  assertMemory(whole);
  assert.deepEqual([whole.header.files, whole.header.incomplete], [3, false]);
  whole.close();
  const two = openDumpFiles([names[0], names[2]]);
  assert.equal(two.header.incomplete, true);
  const reasons = new Set<string | undefined>();
  for (let pfn = 3; pfn < 1103; pfn++) reasons.add(two.readPhysical(pfn * PAGE, Buffer.alloc(PAGE))?.reason);
  assert.deepEqual([...reasons], [undefined, 'incomplete']);
  two.close();
  assert.throws(() => openDumpFiles([names[0], names[0]]), FormatError);
  assert.throws(() => openDumpFiles([names[0], path('elf')]), FormatError);
});

test('an image of RAM has byte n at address n, or where it is said to be', async () => {
  const raw = await convert('raw', { to: 'raw' });
  const bytes = readFileSync(raw);
  assert.equal(bytes.length, 2400 * PAGE);
  for (const { paddr, bytes: part } of segments) assert.ok(bytes.subarray(paddr, paddr + part.length).equals(part));
  const ram = segments.map(({ paddr, bytes }) => ({ start: paddr, end: paddr + bytes.length }));
  const source = openDump([memoryReader(memory)], { ram });
  assertMemory(source);
  assert.deepEqual(source.notes, []);
});

/** A file of version 6 as one of an older version has it: what is newer is gone from the sub header. */
function olderVersion(file: Uint8Array, version: number): Buffer {
  const older = Buffer.from(file);
  older.writeInt32LE(version, disk_dump_header.offsets.header_version);
  const sub = kdump_sub_header.offsets;
  const newer = [sub.split, sub.split, sub.offset_vmcoreinfo, sub.offset_note, sub.offset_eraseinfo, sub.start_pfn_64];
  older.fill(0xee, PAGE + newer[version]!, PAGE + kdump_sub_header.size);
  if (version >= 2) older.fill(0, PAGE + sub.split, PAGE + sub.offset_vmcoreinfo);
  return older;
}

test('versions 1 to 5 lack what came later, and have the same memory', async () => {
  const file = readFileSync(await convert('version 6', {}));
  for (const version of [1, 2, 3, 4, 5]) {
    const source = openDump([memoryReader(olderVersion(file, version))]);
    assertMemory(source);
    assert.equal(vmcoreinfoOf(source.notes)?.release, version >= 3 ? '6.99.0' : undefined, `version ${version}`);
    assert.equal(source.notes.length, version >= 4 ? 2 : version >= 3 ? 1 : 0);
  }
});

test('pieces of a stream may come in any order and overlap: the later one counts', () => {
  const piece = fc.record({ offset: fc.nat(3000), bytes: fc.uint8Array({ minLength: 1, maxLength: 400 }) });
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 40 }), fc.nat(3400), (pieces, from) => {
      const parts: Uint8Array[] = [];
      const output = new FlattenedOutput((bytes) => void parts.push(bytes.slice()));
      const expected = Buffer.alloc(Math.max(...pieces.map(({ offset, bytes }) => offset + bytes.length)));
      output.begin();
      for (const { offset, bytes } of pieces) {
        output.write(offset, bytes);
        expected.set(bytes, offset);
      }
      output.end();
      const stream = Buffer.concat(parts);
      const { file, isWhole } = openFlattened(memoryReader(stream));
      assert.deepEqual([file.size, isWhole], [expected.length, true]);
      const into = Buffer.alloc(500);
      const count = file.read(from, into);
      assert.ok(into.subarray(0, count).equals(expected.subarray(from, from + 500)));
      assert.equal([...flattenedPieces(memoryReader(stream))].length, pieces.length);
      const cut = stream.subarray(0, stream.length - 5);
      assert.equal(openFlattened(memoryReader(cut)).isWhole, false);
      const together = Buffer.alloc(expected.length);
      const write = (at: number, bytes: Uint8Array) => together.set(bytes, at);
      rearrange('stream', nextOf(stream), { write });
      assert.ok(together.equals(expected));
      assert.throws(() => rearrange('stream', nextOf(cut), { write }), FormatError);
    }),
  );
});

/** Bytes as they come out of a pipe. */
function nextOf(bytes: Uint8Array): (into: Uint8Array) => number {
  let at = 0;
  return (into) => {
    const next = bytes.subarray(at, at + into.length);
    into.set(next);
    at += next.length;
    return next.length;
  };
}

/** Reads every nth page of a dump, as far as it can be opened. @returns how many could be read, or the error */
function look(bytes: Uint8Array, step: number): { pages: number; reasons: Set<string>; source: PageSource } | Error {
  let source: PageSource;
  try {
    source = openDump([memoryReader(bytes, 'cut')]);
    assert.ok(source.notes.length >= 0);
  } catch (error) {
    return error as Error;
  }
  const page = Buffer.alloc(PAGE);
  const found = { pages: 0, reasons: new Set<string>(), source };
  for (const { start, end } of source.ranges) {
    for (let at = start; at < Math.min(end, start + 2000 * PAGE); at += step * PAGE) {
      const hole = source.readPhysical(at, page);
      if (hole === undefined) found.pages++;
      else found.reasons.add(hole.reason);
    }
  }
  return found;
}

function isRefusal(error: Error): boolean {
  return error.name === 'FormatError' || error.name === 'UnsupportedError';
}

for (const [name, more] of [
  ['kdump', {}],
  ['ELF', { to: 'elf' }],
  ['flattened', { flattened: true }],
] as const) {
  test(`a ${name} dump that is cut at any 4 KiB is refused or has holes where it ends`, async () => {
    const file = readFileSync(await convert(`cut ${name}`, more));
    const whole = look(file, 1);
    assert.ok(!(whole instanceof Error) && whole.pages === 1500 && whole.reasons.size === 0);
    let last = -1;
    for (let length = 0; length < file.length - PAGE; length += PAGE) {
      const found = look(file.subarray(0, length), 10);
      if (found instanceof Error) {
        assert.ok(isRefusal(found), `${length}: ${found.stack}`);
        assert.equal(last, -1, 'what opens when it is shorter opens when it is longer');
        assert.match(found.message, /^cut/);
        continue;
      }
      assert.ok(found.source.header.incomplete || found.reasons.size === 0, `${length}`);
      assert.deepEqual(
        [...found.reasons].filter((reason) => reason !== 'incomplete'),
        [],
      );
      // A stream has its headers at its end.
      if (name !== 'flattened') assert.ok(found.pages >= last);
      last = found.pages;
    }
    assert.ok(name === 'flattened' || last > 100);
  });

  test(`any field of the headers of a ${name} dump may be wrong`, async () => {
    const file = readFileSync(await convert(`flipped ${name}`, more));
    const small = file.subarray(0, 600_000);
    const value = fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff));
    const change = fc.record({
      at: fc.nat(Math.min(16_000, small.length - 9)),
      bytes: fc.array(value, { minLength: 1, maxLength: 8 }),
    });
    const inHeader = fc.record({ at: fc.nat(9000), bytes: fc.array(value, { minLength: 1, maxLength: 8 }) });
    fc.assert(
      fc.property(fc.array(fc.oneof(change, inHeader), { minLength: 1, maxLength: 3 }), (changes) => {
        const wrong = Buffer.from(small);
        for (const { at, bytes } of changes) wrong.set(bytes, at);
        const found = look(wrong, 10);
        if (found instanceof Error) assert.ok(isRefusal(found), found.stack);
      }),
      { numRuns: 150 },
    );
  });
}

test('a page that is damaged is a hole of its own', async () => {
  const file = readFileSync(await convert('damaged', { compression: 'zlib' }));
  const blocks = file.readUInt32LE(disk_dump_header.offsets.sub_hdr_size) + 1;
  const descriptors = (blocks + file.readUInt32LE(disk_dump_header.offsets.bitmap_blocks)) * PAGE;
  // The second page that was stored: text.
  const at = descriptors + page_desc.size;
  file.fill(0xff, Number(file.readBigUInt64LE(at)), Number(file.readBigUInt64LE(at)) + 8);
  const source = openDump([memoryReader(file)]);
  const hole = source.readPhysical(3 * PAGE, Buffer.alloc(4 * PAGE));
  assert.deepEqual([hole?.reason, hole?.address], ['damaged', 4 * PAGE]);
  assert.match(hole!.detail!, /zlib does not decompress/);
  assert.equal(source.readPhysical(5 * PAGE, Buffer.alloc(PAGE)), undefined);
  // What cannot be read is not in what is made from it, and the result says so.
  writeFileSync(path('damaged'), file);
  const result = await filterDump({ paths: [path('damaged')] }, [path('less')], { ...options, verify: false });
  assert.deepEqual([result.written, result.unreadable, result.partial], [1499, 1, true]);
  const less = openDumpFiles([path('less')]);
  assert.equal(less.header.incomplete, true);
  assert.equal(less.readPhysical(4 * PAGE, Buffer.alloc(PAGE))?.reason, 'incomplete');
  assert.equal(less.readPhysical(5 * PAGE, Buffer.alloc(PAGE)), undefined);
  less.close();
});

test('what cannot be written leaves nothing', async () => {
  const { readdirSync } = await import('node:fs');
  const before = readdirSync(folder);
  await assert.rejects(filterDump({ paths: [path('elf')] }, ['/dev/full/x'], options), { code: 'ENOTDIR' });
  const controller = new AbortController();
  controller.abort();
  const signal = controller.signal;
  await assert.rejects(filterDump({ paths: [path('elf')] }, [path('never')], { ...options, signal }), {
    name: 'AbortError',
  });
  assert.deepEqual(readdirSync(folder), before);
});
