import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { correct, parityOf } from '../../../src/crash/codec/reedsolomon.ts';

test('as many errors as half of the parity are put right, wherever they are', () => {
  const cases = fc.record({
    data: fc.uint8Array({ minLength: 1, maxLength: 200 }),
    size: fc.integer({ min: 2, max: 32 }),
    wrong: fc.array(fc.record({ at: fc.nat(), by: fc.integer({ min: 1, max: 255 }) }), { maxLength: 16 }),
  });
  fc.assert(
    fc.property(cases, ({ data, size, wrong }) => {
      const word = Buffer.concat([data, parityOf(data, size)]);
      const damaged = Buffer.from(word);
      const places = new Map(wrong.slice(0, size >> 1).map(({ at, by }) => [at % word.length, by]));
      for (const [at, by] of places) damaged[at]! ^= by;
      const [left, right] = [damaged.subarray(0, data.length), damaged.subarray(data.length)];
      assert.equal(correct(left, right), places.size);
      assert.deepEqual(damaged, word);
    }),
    { numRuns: 300 },
  );
});

test('too many errors are seen, and nothing is changed then', () => {
  const data = Uint8Array.from({ length: 128 }, (_, i) => (i * 7) & 0xff);
  const parity = parityOf(data, 16);
  const damaged = data.map((byte, i) => (i % 10 === 0 ? byte ^ 0x55 : byte));
  const before = damaged.slice();
  assert.equal(correct(damaged, parity.slice()), undefined);
  assert.deepEqual(damaged, before);
});

test('the words of a QR code of version 1-M, whose field and roots are the same', () => {
  // The example of ISO/IEC 18004, annex I: the digits 01234567.
  const data = Uint8Array.from([16, 32, 12, 86, 97, 128, 236, 17, 236, 17, 236, 17, 236, 17, 236, 17]);
  assert.deepEqual([...parityOf(data, 10)], [165, 36, 212, 193, 237, 54, 199, 135, 44, 85]);
});
