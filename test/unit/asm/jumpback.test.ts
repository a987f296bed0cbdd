import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { jumpBackHelper, jumpBackHelperSize } from '../../../src/asm/jumpback.ts';

const GB = 2 ** 30;

/** Walks page tables as the processor does (SDM Vol. 3, 5.5.4). */
function translate(memory: Uint8Array, at: number, table: number, levels: number, address: number): number | undefined {
  const view = new DataView(memory.buffer);
  let base = table;
  for (let level = levels; level >= 2; level--) {
    const index = Math.floor(address / 2 ** (12 + 9 * (level - 1))) % 512;
    const entry = view.getBigUint64(base - at + index * 8, true);
    if ((entry & 1n) === 0n) return undefined;
    const frame = Number(entry & 0xffffffffff000n);
    if (level === 2) {
      assert.equal(entry & 0x80n, 0x80n, 'a page of 2 MB');
      return frame + (address % 2 ** 21);
    }
    base = frame;
  }
  return undefined;
}

test('its page tables map every address below the limit to itself, four and five levels deep', () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 2 ** 20 }).map((page) => page * 4096),
      fc.integer({ min: 1, max: 700 }).map((gigabytes) => gigabytes * GB - 4096),
      fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { minLength: 1, maxLength: 20 }),
      (at, limit, places) => {
        const helper = jumpBackHelper(at, 0x12345012d, limit);
        assert.equal(helper.length, jumpBackHelperSize(limit));
        for (const place of places) {
          const address = Math.floor(place * limit);
          assert.equal(translate(helper, at, at + 4096, 4, address), address);
          assert.equal(translate(helper, at, at + helper.length - 4096, 5, address), address);
        }
        assert.equal(translate(helper, at, at + 4096, 4, Math.ceil(limit / GB) * GB), undefined);
      },
    ),
    { numRuns: 20 },
  );
});
