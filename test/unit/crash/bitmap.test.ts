import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FileBitmap, runsOfBits, setBits } from '../../../src/crash/bitmap.ts';
import { memoryReader } from './dumps.ts';

/** Bitmaps of some runs, over more than one block that is counted. */
const bitmap = fc
  .record({
    length: fc.integer({ min: 1, max: 40_000 }),
    runs: fc.array(fc.tuple(fc.nat(40_000), fc.integer({ min: 1, max: 9000 })), { maxLength: 12 }),
  })
  .map(({ length, runs }) => {
    const bits = new Uint8Array(5200);
    for (const [start, size] of runs) setBits(bits, start, Math.min(start + size, 41_000));
    return { length, bits, has: (i: number) => i < length && ((bits[i >> 3]! >> (i & 7)) & 1) === 1 };
  });

test('bits, how many are before them, runs and copies agree with each bit by itself', () => {
  fc.assert(
    fc.property(bitmap, fc.nat(4999), fc.integer({ min: 1, max: 300 }), ({ length, bits, has }, first, bytes) => {
      const reader = memoryReader(Buffer.concat([new Uint8Array(3), bits]));
      const file = new FileBitmap(reader, 3, length);
      let count = 0;
      const runs: { start: number; end: number }[] = [];
      for (let i = 0; i < length; i++) {
        if (i % 997 === 0 || i > length - 3) assert.equal(file.rank(i), count);
        if (i % 997 === 0) assert.equal(file.has(i), has(i));
        if (!has(i)) continue;
        count++;
        if (runs.at(-1)?.end === i) runs.at(-1)!.end = i + 1;
        else runs.push({ start: i, end: i + 1 });
      }
      assert.equal(file.count, count);
      assert.equal(file.rank(length + 5), count);
      assert.equal(file.has(length), false);
      assert.deepEqual(runsOfBits(reader, 3, length, 100), runs);
      if (runs.length > 0) assert.equal(runsOfBits(reader, 3, length, runs.length - 1), undefined);
      const copy = new Uint8Array(bytes).fill(0xa5);
      file.copy(first * 8, copy);
      for (let i = 0; i < bytes * 8; i++) assert.equal((copy[i >> 3]! >> (i & 7)) & 1, has(first * 8 + i) ? 1 : 0);
    }),
    { numRuns: 60 },
  );
});
