import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addressOf, PAGE_SHIFT, PAGE_SIZE, pfn, pfnOf, physAddr, userAddr } from '../../../src/mem/address.ts';

test('an address lies in the page that its number says', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      const address = physAddr(value);
      const page = pfnOf(address);
      assert.equal(BigInt(page), BigInt(value) >> BigInt(PAGE_SHIFT));
      assert.equal(pfn(page), page);
      const offset = address - addressOf(page);
      assert.ok(offset >= 0 && offset < PAGE_SIZE);
    }),
  );
});

test('what is not exact is no address', () => {
  assert.throws(() => physAddr(2 ** 53), /9007199254740992 is not a physical address/);
  assert.throws(() => userAddr(-1), /-1 is not a user address/);
  assert.throws(() => physAddr(Number.NaN), RangeError);
  assert.throws(() => pfn(2 ** 41), RangeError);
  assert.throws(() => pfn(0.5), RangeError);
});
