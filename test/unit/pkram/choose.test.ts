/** Which pages are kept of those that the kernel gave. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { choosePages, runCount, wholeBlocks } from '../../../src/pkram/choose.ts';

const HUGE = 2 << 20;
const block = 8 * HUGE;
const at = (...pages: number[]) => pages.map((page) => page * HUGE);

test('whole blocks come first, then the longest runs', () => {
  const given = at(1, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18);
  assert.equal(wholeBlocks(given, block), 1);
  assert.deepEqual(choosePages(given, 8, { block, maxRuns: 9 }), at(8, 9, 10, 11, 12, 13, 14, 15));
  assert.deepEqual(choosePages(given, 11, { block, maxRuns: 9 }), at(3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15));
  assert.deepEqual(choosePages(given, 4, { block, maxRuns: 9 }), at(8, 9, 10, 11), 'a part of a block is a run');
  assert.equal(choosePages(given, 14, { block, maxRuns: 3 }).length, 13, 'not more runs than allowed');
});

test('any choice is of what was given, and as much as can be had', () => {
  const pages = fc.uniqueArray(fc.nat(100), { maxLength: 60 });
  fc.assert(
    fc.property(pages, fc.nat(60), fc.integer({ min: 1, max: 70 }), (numbers, wanted, maxRuns) => {
      const given = numbers.map((page) => page * HUGE);
      const chosen = choosePages(given, wanted, { block, maxRuns });
      assert.ok(chosen.length <= wanted);
      assert.equal(new Set(chosen).size, chosen.length);
      assert.ok(chosen.every((page, i) => given.includes(page) && (i === 0 || page > chosen[i - 1]!)));
      const runs = chosen.filter((page) => !chosen.includes(page - HUGE)).length;
      assert.ok(runs <= maxRuns);
      assert.equal(runCount(chosen.toReversed()), runs);
      if (maxRuns > 60) assert.equal(chosen.length, Math.min(wanted, given.length));
      const blocks = wholeBlocks(given, block);
      if (maxRuns > 60) assert.ok(wholeBlocks(chosen, block) >= Math.min(blocks, Math.floor(wanted / 8)));
    }),
  );
});
