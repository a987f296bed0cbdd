/** Range algebra against a naive model: the set of addresses of a small space, one by one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  alignDown,
  alignIn,
  alignOut,
  alignUp,
  contains,
  findHole,
  findOverlap,
  formatRange,
  intersect,
  normalise,
  overlaps,
  parseRange,
  type Range,
  range,
  sizeOf,
  subtract,
  total,
  union,
} from '../../../src/mem/range.ts';

const SPACE = 64;

/** Empty and reversed ranges too: sets leave them out. */
const loose = fc.record({ start: fc.nat(SPACE), end: fc.nat(SPACE) });
const set = fc.array(loose, { maxLength: 8 });
const proper = fc
  .tuple(fc.nat(SPACE - 1), fc.nat(SPACE - 1))
  .map(([a, b]): Range => ({ start: Math.min(a, b), end: Math.max(a, b) + 1 }));

/** Which addresses are in a set. */
function bits(ranges: readonly Range[]): boolean[] {
  return Array.from({ length: SPACE }, (_, at) => ranges.some(({ start, end }) => start <= at && at < end));
}

function assertNormal(ranges: readonly Range[]) {
  for (const [i, { start, end }] of ranges.entries()) {
    assert.ok(start < end, 'not empty');
    if (i > 0) assert.ok(ranges[i - 1]!.end < start, 'sorted, neither overlapping nor touching');
  }
}

test('union, intersection and difference are those of the addresses', () => {
  fc.assert(
    fc.property(set, set, (a, b) => {
      const [inA, inB] = [bits(a), bits(b)];
      for (const [result, expected] of [
        [normalise(a), inA],
        [union(a, b), inA.map((value, at) => value || inB[at]!)],
        [intersect(a, b), inA.map((value, at) => value && inB[at]!)],
        [subtract(a, b), inA.map((value, at) => value && !inB[at]!)],
      ] as const) {
        assertNormal(result);
        assert.deepEqual(bits(result), expected);
      }
      assert.equal(total(a), inA.filter(Boolean).length);
    }),
    { numRuns: 3000 },
  );
});

test('two ranges: overlap and membership', () => {
  fc.assert(
    fc.property(proper, proper, fc.nat(SPACE), (a, b, at) => {
      const [inA, inB] = [bits([a]), bits([b])];
      assert.equal(
        overlaps(a, b),
        inA.some((value, i) => value && inB[i]),
      );
      assert.equal(contains(a, at), inA[at] ?? false);
      assert.equal(sizeOf(a), inA.filter(Boolean).length);
    }),
    { numRuns: 1000 },
  );
});

test('alignment takes in or leaves out the blocks that are cut', () => {
  fc.assert(
    fc.property(proper, fc.integer({ min: 1, max: 20 }), (given, to) => {
      const blocks = Array.from({ length: Math.ceil(SPACE / to) }, (_, i) => range(i * to, (i + 1) * to));
      const touched = blocks.filter((block) => overlaps(block, given));
      const whole = blocks.filter(({ start, end }) => given.start <= start && end <= given.end);
      assert.deepEqual([alignOut(given, to)], normalise(touched));
      const inner = alignIn(given, to);
      assert.deepEqual(inner === undefined ? [] : [inner], normalise(whole));
    }),
  );
  assert.equal(alignUp(2 ** 52 + 1, 2 ** 21), 2 ** 52 + 2 ** 21);
  assert.equal(alignDown(2 ** 52 + 1, 4096), 2 ** 52);
});

test('the first overlap is found where there is one', () => {
  fc.assert(
    fc.property(fc.array(proper, { maxLength: 6 }), (ranges) => {
      const found = findOverlap(ranges);
      const any = ranges.some((a, i) => ranges.some((b, j) => i < j && overlaps(a, b)));
      assert.equal(found !== undefined, any);
      if (found) assert.ok(overlaps(...found) && found[0] !== found[1]);
    }),
    { numRuns: 1000 },
  );
});

test('a hole is the lowest or highest place there is, and none where there is none', () => {
  const request = fc.record({
    size: fc.integer({ min: 1, max: 20 }),
    align: fc.constantFrom(1, 2, 3, 4, 8),
    prefer: fc.constantFrom('lowest' as const, 'highest' as const),
  });
  const within = fc.option(proper, { nil: undefined });
  fc.assert(
    fc.property(set, request, within, set, (free, request, within, avoid) => {
      const usable = bits(free).map((value, at) => value && !bits(avoid)[at] && (!within || contains(within, at)));
      const fits = Array.from({ length: SPACE }, (_, at) => at).filter(
        (at) =>
          at % request.align === 0 &&
          at + request.size <= SPACE &&
          usable.slice(at, at + request.size).every((value) => value),
      );
      const best = request.prefer === 'lowest' ? fits[0] : fits.at(-1);
      const found = findHole(free, { ...request, avoid, ...(within && { within }) });
      assert.equal(found?.start, best);
      if (found) assert.equal(sizeOf(found), request.size);
    }),
    { numRuns: 2000 },
  );
});

test('text is what the kernel writes, and reads back', () => {
  assert.equal(formatRange(range(0x1000, 0x9fc00)), '0x1000-0x9fbff');
  assert.deepEqual(parseRange('00001000-0009fbff'), { start: 0x1000, end: 0x9fc00 });
  for (const wrong of ['', '0x1000', '0x2000-0x1000', '1000-', '0x1000-0x1fffffffffffff', '10 - 20', '-1-5']) {
    assert.equal(parseRange(wrong), undefined, wrong);
  }
  const wide = fc.tuple(fc.maxSafeNat(), fc.maxSafeNat()).filter(([a, b]) => a !== b);
  fc.assert(
    fc.property(wide, ([a, b]) => {
      const given = range(Math.min(a, b), Math.max(a, b));
      assert.deepEqual(parseRange(formatRange(given)), given);
    }),
  );
});

test('ends that are not exact, or no range, are refused', () => {
  assert.throws(() => range(0x2000, 0x1000), /from 0x2000 to before 0x1000 is not a range/);
  assert.throws(() => range(5, 5), RangeError);
  assert.throws(() => range(-1, 5), RangeError);
  assert.throws(() => range(0, 2 ** 53), RangeError);
  assert.throws(() => range(0.5, 2), RangeError);
});

test('thousands of ranges take milliseconds', () => {
  const many = (offset: number) =>
    Array.from({ length: 50_000 }, (_, i) => {
      const at = ((i * 7919) % 50_000) * 4096 + offset;
      return { start: at, end: at + 2048 };
    });
  const before = process.cpuUsage();
  assert.equal(subtract(many(0), many(1024)).length, 50_000);
  assert.equal(intersect(many(0), many(1024)).length, 50_000);
  assert.equal(subtract([{ start: 0, end: 50_000 * 4096 }], many(0)).length, 50_000);
  // Of the processor, which others use too. Every pair looked at would be minutes.
  assert.ok(process.cpuUsage(before).user < 20e6);
});
