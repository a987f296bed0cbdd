import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bytesOf, textOf } from '../../../src/abi/text.ts';

test('UTF-8 is text as it is, and other bytes are escaped as PEP 383 says', () => {
  assert.equal(textOf(Buffer.from('/tmp/größe 日本 😀')), '/tmp/größe 日本 😀');
  assert.equal(textOf(Uint8Array.of(0x61, 0xff, 0x62)), 'a\udcffb');
  // A sequence that is cut off, and the UTF-8 of a surrogate, which is not valid UTF-8.
  assert.equal(textOf(Uint8Array.of(0xe6, 0x97)), '\udce6\udc97');
  assert.equal(textOf(Uint8Array.of(0xed, 0xb2, 0x80)), '\udced\udcb2\udc80');
});

test('every byte string comes back as it was', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      assert.deepEqual(Uint8Array.from(bytesOf(textOf(bytes))), bytes);
    }),
    { numRuns: 2000 },
  );
});

test('different byte strings are different texts', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 6 }), fc.uint8Array({ maxLength: 6 }), (a, b) => {
      assert.equal(textOf(a) === textOf(b), Buffer.compare(a, b) === 0);
    }),
    { numRuns: 2000 },
  );
});

test('text of valid Unicode comes back as it was', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => assert.equal(textOf(bytesOf(text)), text)));
});
