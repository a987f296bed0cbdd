import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { SummedSource } from '../../../src/image/checked.ts';

test('the sum is that of the whole file, wherever it was read; with small gaps each byte is read once', () => {
  const bytes = Buffer.from(Array.from({ length: 3000 }, (_, i) => (i * 7 + (i >> 8)) & 0xff));
  const part = fc.record({ gap: fc.nat(100), length: fc.integer({ min: 1, max: 200 }) });
  fc.assert(
    fc.property(fc.array(part, { maxLength: 20 }), fc.array(fc.nat(2900), { maxLength: 3 }), (parts, again) => {
      let total = 0;
      const read = (into: Uint8Array, position: number) => {
        const got = bytes.copy(into, 0, position);
        total += got;
        return got;
      };
      const source = new SummedSource({ name: 'pages-1.img', size: bytes.length, read, close() {} });
      let at = 0;
      for (const { gap, length } of parts) {
        const into = Buffer.alloc(length);
        const got = source.read(into, at + gap);
        assert.deepEqual(into.subarray(0, got), bytes.subarray(at + gap, at + gap + got));
        at += gap + got;
        if (got < length) break;
      }
      for (const position of again) source.read(Buffer.alloc(100), position);
      assert.deepEqual(source.sum(), { size: bytes.length, crc32: crc32(bytes) });
      if (again.length === 0) assert.equal(total, bytes.length);
    }),
  );
});
