/** Whatever a medium holds, reading it ends, and with an error that says what is wrong. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { crc32 } from 'node:zlib';
import { TideoverError } from '../../../src/errors.ts';
import { FileMedium, openPkram, PhysicalMedium, type Pkram } from '../../../src/pkram/index.ts';
import { contentOf, expected, MemoryMedium, type ObjectContent, open, randomFrom, saveNode } from './medium.ts';

const SLOT = 64 << 10;
const text = (of: string) => new Uint8Array(Buffer.from(of));
const contents: Record<string, ObjectContent[]> = {
  first: [
    { pages: [{ index: 1n, flags: 2, fill: [1, 2, 3] }], bytes: text('first '.repeat(900)) },
    { pages: Array.from({ length: 140 }, (_, i) => ({ index: BigInt(2 * i), flags: 0, fill: [i] })), bytes: text('') },
  ],
  second: [{ pages: [], bytes: text('second '.repeat(2000)) }],
  third: [{ pages: [{ index: 0n, flags: 0, fill: [9, 9] }], bytes: text('third') }],
};

function prepared(): Uint8Array {
  const medium = MemoryMedium.formatted(3 << 19);
  const pkram = openPkram(medium);
  for (const [name, objects] of Object.entries(contents)) saveNode(pkram, name, objects);
  return medium.bytes;
}

/** Pages of metadata: those with a magic number. */
function metadataOf(bytes: Uint8Array): number[] {
  const found = [0, SLOT];
  for (let at = 2 * SLOT; at < bytes.length; at += 4096) {
    if (Buffer.from(bytes.buffer, at, 4).toString('latin1') === 'PKRP') found.push(at);
  }
  return found;
}

function reseal(bytes: Uint8Array, page: number): void {
  const sum = crc32(bytes.subarray(page, page + 4092));
  new DataView(bytes.buffer).setUint32(page + 4092, sum, true);
}

const folder = fs.mkdtempSync('/dev/shm/pkram-fuzz-');
after(() => fs.rmSync(folder, { recursive: true }));

/** What a medium is read from: memory, and those that map what they read. */
const media: Record<string, (bytes: Uint8Array) => Pkram> = {
  memory: open,
  file: (bytes) => openPkram(FileMedium.open(written(bytes))),
  physical: (bytes) => openPkram(new PhysicalMedium(0, { device: written(bytes) })),
};

function written(bytes: Uint8Array): string {
  const path = join(folder, 'medium');
  fs.writeFileSync(path, bytes);
  return path;
}

/** Reads all there is. @returns names of the nodes that came whole */
function readAll(bytes: Uint8Array, openIn = open): string[] {
  let pkram: Pkram;
  try {
    pkram = openIn(bytes);
  } catch (error) {
    assert.ok(error instanceof TideoverError, String((error as Error).stack));
    return [];
  }
  const whole: string[] = [];
  for (const { name, fault } of pkram.nodes()) {
    if (name === undefined) continue;
    try {
      const content = contentOf(pkram, name);
      assert.equal(fault, undefined);
      if (name in contents && isDeepStrictEqual(content, expected(contents[name]!))) whole.push(name);
    } catch (error) {
      assert.ok(error instanceof TideoverError, String((error as Error).stack));
    }
  }
  // It can be gone on with, or says why not.
  try {
    for (const { id } of pkram.nodes()) pkram.remove(id);
    saveNode(pkram, 'after', contents.third!);
    assert.deepEqual(contentOf(pkram, 'after'), expected(contents.third!));
  } catch (error) {
    assert.ok(error instanceof TideoverError, String((error as Error).stack));
  }
  pkram.close();
  return whole;
}

describe('a medium with damage', () => {
  const base = prepared();
  const pages = metadataOf(base);
  it('that is any byte of metadata loses at most the node it belongs to', () => {
    const random = randomFrom(1);
    for (const page of pages) {
      // Where there is something and where there is nothing.
      for (let i = 0; i < 8; i++) {
        const bytes = base.slice();
        bytes[page + Math.floor(random() * (i < 4 ? 256 : 4096))]! ^= 1 << Math.floor(random() * 8);
        const whole = readAll(bytes);
        const isList = Buffer.from(bytes.buffer, page + 4, 2).readUInt16LE() === 1;
        // The superblock before the last names one node less.
        if (page >= 2 * SLOT && !isList) assert.ok(whole.length >= 2, `${page}: ${whole}`);
      }
    }
  });

  it('with right checksums ends with an error, or reads', () => {
    for (let seed = 1; seed <= 400; seed++) {
      const random = randomFrom(seed);
      const bytes = base.slice();
      const times = 1 + Math.floor(random() * 3);
      for (let i = 0; i < times; i++) {
        const page = pages[Math.floor(random() * pages.length)]!;
        const at = page + Math.floor((random() * (random() < 0.7 ? 160 : 4092)) / 4) * 4;
        const view = new DataView(bytes.buffer);
        const values = [
          0,
          1,
          0xffff_ffff,
          0x1000,
          128 << 10,
          pages[Math.floor(random() * pages.length)]!,
          random() * 2 ** 32,
        ];
        view.setUint32(at, values[Math.floor(random() * values.length)]!, true);
        reseal(bytes, page);
      }
      readAll(bytes, media[['memory', 'file', 'physical'][seed % 3]!]);
    }
  });

  it('that says it lies anywhere, with right checksums, ends with an error, or reads', () => {
    for (const [name, openIn] of Object.entries(media)) {
      for (let seed = 1; seed <= 60; seed++) {
        const random = randomFrom(seed);
        const bytes = base.slice();
        const view = new DataView(bytes.buffer);
        const count = Math.floor(random() * 4);
        for (const slot of [0, SLOT]) {
          for (let i = 0; i < count; i++) {
            const [start, pages] = [
              random() < 0.6 ? 0 : random() * 2 ** (random() * 52),
              random() * 2 ** (random() * 32),
            ];
            view.setBigUint64(slot + 4096 + 16 * i, BigInt(Math.floor(start / 4096)) * 4096n, true);
            view.setUint32(slot + 4096 + 16 * i + 8, random() < 0.3 ? base.length / 4096 : pages, true);
          }
          view.setUint32(slot + 40, count, true);
          view.setUint32(slot + 44, crc32(bytes.subarray(slot + 4096, slot + 4096 + 16 * count)), true);
          reseal(bytes, slot);
        }
        if (name !== 'memory' || count === 1) readAll(bytes, openIn);
      }
    }
  });

  it('with pages that point at each other ends', () => {
    for (const from of pages.slice(2)) {
      for (const to of pages.slice(2)) {
        const bytes = base.slice();
        new DataView(bytes.buffer).setBigUint64(from + 32, BigInt(to), true);
        reseal(bytes, from);
        readAll(bytes);
      }
    }
  });

  it('that is cut off anywhere, or made of noise, ends with an error', () => {
    const random = randomFrom(7);
    for (let i = 0; i < 60; i++) {
      const openIn = media[['memory', 'file', 'physical'][i % 3]!];
      readAll(base.slice(0, 2 * SLOT + 4096 * Math.floor((random() * (base.length - 2 * SLOT)) / 4096)), openIn);
      readAll(
        Uint8Array.from({ length: 3 * SLOT }, () => random() * 256),
        openIn,
      );
    }
  });
});

describe('another version', () => {
  it('of the medium is refused, if greater in the major number, and read if in the minor', () => {
    const bytes = prepared();
    for (const [at, value, readable] of [
      [8, 2, false],
      [10, 9, true],
      [12, 16384, false],
      [168, 1, false],
    ] as const) {
      const other = bytes.slice();
      for (const page of [0, SLOT]) {
        new DataView(other.buffer).setUint16(page + at, value, true);
        reseal(other, page);
      }
      if (readable) assert.equal(readAll(other).length, 3);
      else assert.throws(() => open(other), { code: 'unsupported' }, `at ${at}`);
    }
  });

  it('of a node is named; the others can be loaded, and nothing is written over it', () => {
    const bytes = prepared();
    const node = metadataOf(bytes).find(
      (page) => page >= 2 * SLOT && bytes[page + 4] === 2 && Buffer.from(bytes.buffer, page, 4096).includes('second'),
    )!;
    bytes[node + 64] = 2;
    reseal(bytes, node);
    const pkram = open(bytes);
    assert.match(pkram.nodes()[1]!.fault!, /node "second" .* version 2\.0/);
    assert.deepEqual(contentOf(pkram, 'first'), expected(contents.first!));
    assert.throws(() => pkram.prepareSave('new'), { code: 'unsupported' });
  });

  it('whose entries are longer is read', () => {
    const medium = MemoryMedium.formatted(1 << 20);
    saveNode(openPkram(medium), 'third', contents.third!);
    const { bytes } = medium;
    for (const page of metadataOf(bytes).slice(2)) {
      const view = new DataView(bytes.buffer, page, 4096);
      const size = view.getUint16(6, true);
      if (size === 0) continue;
      view.setUint16(6, size + 8, true);
      reseal(bytes, page);
    }
    assert.deepEqual(contentOf(open(bytes), 'third'), expected(contents.third!));
  });
});
