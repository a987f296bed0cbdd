import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chain, list, ring } from '../../../../src/crash/kernel/lists.ts';
import { searchText, searchWords } from '../../../../src/crash/kernel/search.ts';
import { openRaw } from '../../../../src/crash/raw.ts';
import { HoleError } from '../../../../src/errors.ts';
import { memoryReader } from '../dumps.ts';
import { Machine } from './machine.ts';

const BASE = 0xffff_8880_0000_1000n;
const at = (i: number) => BASE + BigInt(i * 64);

/** Heads at 16 in structs of 64 bytes: each i leads to the next of `order`. */
function linked(order: readonly number[]): Machine {
  const machine = new Machine();
  for (const [i, from] of order.entries()) {
    const to = order[(i + 1) % order.length]!;
    machine.u64(at(from) + 16n, at(to) + 16n);
    machine.u64(at(to) + 24n, at(from) + 16n);
  }
  return machine;
}

/** What there is before an error, and that there is one. */
function collect(items: Iterable<bigint>): { found: bigint[]; failed: boolean } {
  const found: bigint[] = [];
  try {
    for (const item of items) found.push(item);
    return { found, failed: false };
  } catch (error) {
    assert.ok(error instanceof HoleError);
    return { found, failed: true };
  }
}

test('lists are followed to their end, in both directions', () => {
  const memory = linked([0, 3, 1, 2]).memory();
  assert.deepEqual([...list(memory, at(0) + 16n, 16n)], [at(3), at(1), at(2)]);
  assert.deepEqual([...list(memory, at(0) + 16n, 16n, 8n)], [at(2), at(1), at(3)]);
  assert.deepEqual([...ring(memory, at(1), 16n)], [at(1), at(2), at(0), at(3)]);
  assert.deepEqual([...ring(memory, at(1), 16n, 8n)], [at(1), at(3), at(0), at(2)]);
});

test('a chain ends with NULL', () => {
  const machine = new Machine();
  machine.u64(at(0), at(2));
  machine.u64(at(2), at(1));
  machine.u64(at(1), 0n);
  assert.deepEqual([...chain(machine.memory(), at(0), 0n)], [at(0), at(2), at(1)]);
  assert.deepEqual([...ring(machine.memory(), at(0), 0n)], [at(0), at(2), at(1)]);
  assert.deepEqual([...chain(machine.memory(), 0n, 0n)], []);
});

test('circles and holes end a list after what came before', () => {
  const circle = linked([0, 1, 2, 3]);
  circle.u64(at(3) + 16n, at(2) + 16n);
  assert.deepEqual(collect(list(circle.memory(), at(0) + 16n, 16n)), { found: [at(1), at(2), at(3)], failed: true });
  assert.deepEqual(collect(ring(circle.memory(), at(1), 16n)), { found: [at(1), at(2), at(3)], failed: true });
  const hole = linked([0, 1, 2, 3]);
  hole.u64(at(2) + 16n, 0xdead_0000_0000_0100n);
  assert.equal(collect(list(hole.memory(), at(0) + 16n, 16n)).failed, true);
  const itself = new Machine();
  itself.u64(at(0), at(1));
  itself.u64(at(1), at(1));
  assert.deepEqual(collect(chain(itself.memory(), at(0), 0n)), { found: [at(0), at(1)], failed: true });
});

test('memory is searched for words and for texts over the borders of pages and pieces', () => {
  const memory = new Uint8Array(3 * 2 ** 20);
  const view = new DataView(memory.buffer);
  const wanted = 0xffff_ffff_8123_4567n;
  for (const address of [0x1000, 0x1ff8, 0x10_0000, 0x2f_fff8]) view.setBigUint64(address, wanted, true);
  view.setBigUint64(0x5000, wanted ^ 1n, true);
  view.setBigUint64(0x6001, wanted, true);
  memory.set(Buffer.from('tideover'), 0x7ffc);
  memory.set(Buffer.from('tideover'), 0x10_0000 - 4);
  // A page that is not there, and RAM that begins at the second page.
  const ranges = [
    { start: 0x1000, end: 0x9000 },
    { start: 0xa000, end: 0x30_0000 },
  ];
  const bytes = Buffer.concat(ranges.map(({ start, end }) => memory.subarray(start, end)));
  const source = openRaw(memoryReader(bytes), ranges);
  const { signal } = new AbortController();
  // Among many others, and named twice.
  const others = Array.from({ length: 5000 }, (_, i) => 0xffff_8880_0000_0000n + BigInt(i * 8));
  const found = (mask: bigint) =>
    [...searchWords(source, [...others, wanted, wanted], mask, signal)].map(({ address }) => address);
  // The text lies over the word at 0x10_0000.
  const words = [0x1000, 0x1ff8, 0x2f_fff8];
  assert.deepEqual(found(0n), words);
  assert.deepEqual(found(1n), [0x1000, 0x1ff8, 0x5000, 0x2f_fff8]);
  const texts = [...searchText(source, Buffer.from('tideover'), signal)];
  assert.deepEqual(texts, [
    { address: 0x7ffc, found: undefined },
    { address: 0x10_0000 - 4, found: undefined },
  ]);
  assert.throws(() => [...searchWords(source, [1n], 0n, AbortSignal.abort())], /abort/i);
});
