import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { lzoBound, lzoCompress, lzoDecompress, lzoTable } from '../../../src/crash/codec/lzo.ts';
import { snappyBound, snappyCompress, snappyDecompress, snappyTable } from '../../../src/crash/codec/snappy.ts';

interface Codec {
  bound(length: number): number;
  compress(from: Uint8Array, into: Uint8Array): number;
  decompress(from: Uint8Array, into: Uint8Array): number;
}

const [lzo, snappy] = [lzoTable(), snappyTable()];
const codecs: Readonly<Record<string, Codec>> = {
  LZO: { bound: lzoBound, compress: (from, into) => lzoCompress(from, into, lzo), decompress: lzoDecompress },
  snappy: {
    bound: snappyBound,
    compress: (from, into) => snappyCompress(from, into, snappy),
    decompress: snappyDecompress,
  },
};

/** Text-like bytes: pieces of an alphabet of few letters, repeats of what went before, runs and noise. */
const page = fc
  .array(
    fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      fc.record({ byte: fc.nat(255), count: fc.integer({ min: 1, max: 3000 }) }),
      fc.record({ back: fc.integer({ min: 1, max: 60_000 }), count: fc.integer({ min: 1, max: 600 }) }),
      fc.array(fc.constantFrom(0, 1, 32, 97), { minLength: 1, maxLength: 200 }),
    ),
    { maxLength: 60 },
  )
  .map((pieces) => {
    const bytes: number[] = [];
    for (const piece of pieces) {
      if ('byte' in piece) for (let i = 0; i < piece.count; i++) bytes.push(piece.byte);
      else if ('back' in piece) for (let i = 0; i < piece.count; i++) bytes.push(bytes[bytes.length - piece.back] ?? 7);
      else bytes.push(...piece);
    }
    return Uint8Array.from(bytes.slice(0, 0xffff));
  });

for (const [name, { bound, compress, decompress }] of Object.entries(codecs)) {
  test(`${name}: what was compressed comes back, within the bound`, () => {
    fc.assert(
      fc.property(page, (bytes) => {
        const into = new Uint8Array(bound(bytes.length) + 1).fill(0xa5);
        const length = compress(bytes, into);
        assert.ok(length <= bound(bytes.length));
        assert.equal(into[bound(bytes.length)], 0xa5);
        const back = new Uint8Array(bytes.length);
        assert.equal(decompress(into.subarray(0, length), back), bytes.length);
        assert.deepEqual(back, bytes);
      }),
      { numRuns: 300 },
    );
  });

  test(`${name}: noise fits the bound, and a page of zeros is small`, () => {
    const noise = randomFillSync(new Uint8Array(65535));
    const into = new Uint8Array(bound(noise.length));
    assert.ok(compress(noise, into) > noise.length);
    assert.ok(compress(new Uint8Array(4096), into) < 256);
  });

  test(`${name}: a stream that is cut, changed or too long for its page gives -1 or other bytes, and stays inside`, () => {
    fc.assert(
      fc.property(page, fc.nat(), fc.integer({ min: 1, max: 255 }), (bytes, where, change) => {
        const into = new Uint8Array(bound(bytes.length));
        const stream = into.slice(0, compress(bytes, into));
        assert.equal(decompress(stream.subarray(0, where % stream.length), new Uint8Array(bytes.length)), -1);
        if (bytes.length > 0) assert.equal(decompress(stream, new Uint8Array(bytes.length - 1)), -1);
        stream[where % stream.length]! ^= change;
        const guarded = new Uint8Array(bytes.length + 16).fill(0xa5);
        assert.ok(decompress(stream, guarded.subarray(0, bytes.length)) <= bytes.length);
        assert.deepEqual(guarded.subarray(bytes.length), new Uint8Array(16).fill(0xa5));
      }),
      { numRuns: 300 },
    );
  });

  test(`${name}: any bytes are answered`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        assert.ok(decompress(bytes, new Uint8Array(4096)) >= -1);
      }),
      { numRuns: 2000 },
    );
  });
}
