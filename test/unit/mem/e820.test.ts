/** The e820 map against a naive model: the type of each address of a small space. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  E820_TYPE_NVS,
  E820_TYPE_PMEM,
  E820_TYPE_PRAM,
  E820_TYPE_RAM,
  E820_TYPE_RESERVED,
  E820_TYPE_SOFT_RESERVED,
  e820TypeOf,
} from '../../../src/abi/e820.ts';
import { FormatError } from '../../../src/errors.ts';
import {
  checkE820,
  type E820Entry,
  punch,
  rangesOfType,
  readE820,
  sortE820,
  writeE820,
} from '../../../src/mem/e820.ts';
import { total } from '../../../src/mem/range.ts';

const SPACE = 48;
const types = [E820_TYPE_RAM, E820_TYPE_RESERVED, E820_TYPE_SOFT_RESERVED];

/** A map as firmware may give it: any order, gaps, neighbours of one type not joined. */
const map = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 8 }), fc.constantFrom(undefined, ...types), fc.nat()), { maxLength: 12 })
  .map((parts) => {
    let at = 0;
    const entries = parts.map(([size, type, order]) => {
      at += size;
      return { start: at - size, end: at, type, order };
    });
    return entries
      .filter(({ type, end }) => type !== undefined && end <= SPACE)
      .sort((a, b) => a.order - b.order)
      .map(({ start, end, type }): E820Entry => ({ start, end, type: type! }));
  });

const ranges = fc.array(fc.record({ start: fc.nat(SPACE), end: fc.nat(SPACE) }), { maxLength: 5 });

function typesAt(entries: readonly E820Entry[]): (number | undefined)[] {
  return Array.from({ length: SPACE }, (_, at) => entries.find(({ start, end }) => start <= at && at < end)?.type);
}

function assertSorted(entries: readonly E820Entry[]) {
  for (const [i, entry] of entries.entries()) {
    const last = entries[i - 1];
    if (last === undefined) continue;
    assert.ok(last.end <= entry.start, 'sorted');
    assert.ok(last.end < entry.start || last.type !== entry.type, 'joined');
  }
}

test('sorting changes no type and joins what can be joined', () => {
  fc.assert(
    fc.property(map, (entries) => {
      const sorted = sortE820(entries);
      assertSorted(sorted);
      assert.deepEqual(typesAt(sorted), typesAt(entries));
    }),
  );
});

test('punching changes what has the one type and lies in the ranges, and nothing else', () => {
  fc.assert(
    fc.property(map, ranges, fc.constantFrom(...types, E820_TYPE_PRAM, E820_TYPE_PMEM), (entries, ranges, to) => {
      const punched = punch(entries, ranges, E820_TYPE_RAM, to);
      assertSorted(punched);
      const expected = typesAt(entries).map((type, at) =>
        type === E820_TYPE_RAM && ranges.some(({ start, end }) => start <= at && at < end) ? to : type,
      );
      assert.deepEqual(typesAt(punched), expected);
      for (const type of types) {
        assert.equal(total(rangesOfType(punched, type)), expected.filter((each) => each === type).length);
      }
    }),
    { numRuns: 1000 },
  );
});

test('overlapping and empty entries are refused with their place', () => {
  const ram = { start: 0x1000, end: 0x3000, type: E820_TYPE_RAM };
  const nvs = { start: 0x2000, end: 0x4000, type: E820_TYPE_NVS };
  assert.throws(
    () => checkE820([nvs, ram], 'memmap'),
    (error: unknown) =>
      error instanceof FormatError &&
      /^memmap: .*0x1000-0x2fff \(type 1\) and 0x2000-0x3fff \(type 4\)/.test(error.message),
  );
  assert.throws(() => checkE820([{ ...ram, end: 0x1000 }]), /entry 0: expected a start below its end/);
  checkE820([ram, { ...nvs, start: 0x3000 }]);
});

test('records read back as written, 20 bytes each', () => {
  const entry = fc
    .record({ start: fc.nat(), size: fc.maxSafeNat(), type: fc.nat() })
    .filter(({ start, size }) => Number.isSafeInteger(start + size))
    .map(({ start, size, type }) => ({ start, end: start + size, type }));
  fc.assert(
    fc.property(fc.array(entry), (entries) => {
      const bytes = writeE820(entries);
      assert.equal(bytes.length, entries.length * 20);
      assert.deepEqual(readE820(bytes, 'test'), entries);
    }),
  );
  const one = writeE820([{ start: 0x1_0000_0000, end: 0x1_0000_1000, type: E820_TYPE_SOFT_RESERVED }]);
  assert.equal(Buffer.from(one).toString('hex'), '00000000010000000010000000000000ffffffef');
  assert.throws(
    () => readE820(new Uint8Array(21), 'setup_data'),
    /setup_data: e820 entries: expected a multiple of 20/,
  );
});

test("types by the kernel's names", () => {
  assert.equal(e820TypeOf('System RAM'), E820_TYPE_RAM);
  assert.equal(e820TypeOf('Soft Reserved'), E820_TYPE_SOFT_RESERVED);
  assert.equal(e820TypeOf('Unknown E820 type'), E820_TYPE_RESERVED);
});
