import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { crc32 as byZlib } from 'node:zlib';
import fc from 'fast-check';
import { crc32 } from '../../../src/crc32.ts';
import { crc32sHere, useProcessor } from '../../../src/sys/crc32.ts';

const skip = /^flags\s*:.* pclmulqdq /m.test(readFileSync('/proc/cpuinfo', 'latin1')) ? false : 'no carry-less product';

test('whatever this processor has sums up as zlib does, at any place, of any size, behind anything', { skip }, () => {
  const all = crc32sHere();
  assert.ok(all.length > 0);
  const bytes = fc.uint8Array({ maxLength: 1400 });
  fc.assert(
    fc.property(bytes, fc.nat(64), fc.nat(0xffff_ffff), (data, from, value) => {
      const part = data.subarray(Math.min(from, data.length));
      for (const own of all) assert.equal(own(part, value), byZlib(part, value));
    }),
    { numRuns: 2000 },
  );
  const much = Uint8Array.from({ length: (1 << 20) + 77 }, (_, i) => (i * 2654435761) >>> 13);
  for (const own of all) assert.equal(own(much), byZlib(much));
});

test('what sums up much is used from then on, and sums go on from one to the other', { skip }, () => {
  const data = Uint8Array.from({ length: 3 << 15 }, (_, i) => (i * i) >>> 3);
  const before = crc32(data);
  useProcessor();
  assert.equal(crc32(data), before);
  for (const at of [1, 4095, 4096, 5000, 90_000]) {
    assert.equal(crc32(data.subarray(at), crc32(data.subarray(0, at))), before);
  }
});
