import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IORING_OFF_SQES } from '../../../src/abi/io_uring.ts';
import type { ImageTask } from '../../../src/image/tree.ts';
import { type MappedRing, RingPointers } from '../../../src/process/ringpointers.ts';

/** A ring of 8 requests and 16 completions, as Linux 6.1 and 6.12 lay it out. */
const OLD = [0, 64, 256, 264, 276, 272, 576, 128, 192, 260, 268, 284, 320, 280];
const NEW = [0, 4, 16, 24, 36, 32, 320, 8, 12, 20, 28, 44, 64, 40];
const [SQ_TAIL, CQ_HEAD, CQ_TAIL, CQES, ARRAY] = [64, 128, 192, 320, 576];

const START = 0x7f12_3456_7000;
const ring: MappedRing = {
  ...{ sq_entries: 8, cq_entries: 16, setup_flags: 0, start: START, end: START + 4096, pgoff: 0, offsets: OLD },
};
const pointersTo = (rings: readonly MappedRing[], here = NEW) => new RingPointers(7, rings, () => here);

const bytesOf = (...words: readonly number[]) => new Uint8Array(BigUint64Array.from(words, BigInt).buffer);
const wordsOf = (bytes: Uint8Array) => [...new BigUint64Array(bytes.buffer)].map(Number);

test('pointers to parts of a ring follow them, within completions too; other words stay', () => {
  const pointers = pointersTo([ring]);
  const others = [START, START - 8, START + 1, START + 68, START + 4096, 64, 2 ** 64 - 2048, 0];
  const bytes = bytesOf(
    ...[SQ_TAIL, CQ_HEAD, CQ_TAIL, CQES, CQES + 16 * 15, ARRAY, ARRAY + 4].map((offset) => START + offset),
    ...others,
  );
  pointers.move(bytes);
  const moved = [4, 8, 12, 64, 64 + 16 * 15, 320, 324].map((offset) => START + offset);
  assert.deepEqual(wordsOf(bytes), [...moved, ...others]);
  pointers.demandFound(false);
});

test('pointers in registers', () => {
  const gpregs = { ax: BigInt(START + CQ_TAIL), bx: 5n, sp: 2n ** 64n - 1n, mode: 'NATIVE' };
  const task = { threads: [{ core: { thread_info: { gpregs } } }] } as unknown as ImageTask;
  pointersTo([ring]).moveRegisters(task);
  assert.deepEqual(gpregs, { ax: BigInt(START + 12), bx: 5n, sp: 2n ** 64n - 1n, mode: 'NATIVE' });
});

test('two rings, one across a border of 4 GiB, there and back', () => {
  const two = [
    ring,
    { ...ring, start: 0x7fff_ffff_f000, end: 0x8000_0000_0000 },
    { ...ring, start: 0xffff_ff00, end: 0x1_0000_1000 },
  ];
  const before = two.flatMap(({ start }) => [SQ_TAIL, CQ_HEAD, CQ_TAIL, CQES + 16].map((offset) => start + offset));
  const bytes = bytesOf(...before);
  pointersTo(two).move(bytes);
  const after = two.flatMap(({ start }) => [4, 8, 12, 64 + 16].map((offset) => start + offset));
  assert.deepEqual(wordsOf(bytes), after);
  pointersTo(
    two.map((each) => ({ ...each, offsets: NEW })),
    OLD,
  ).move(bytes);
  assert.deepEqual(wordsOf(bytes), before);
});

test('a program that has no pointer to a counter that is elsewhere is refused', () => {
  const pointers = pointersTo([ring]);
  pointers.move(bytesOf(...[SQ_TAIL, CQ_TAIL, CQES].map((offset) => START + offset)));
  assert.throws(() => pointers.demandFound(false), /cq_off\.head/);
});

test('memory that comes later, and a mapping that is too small, are refused', () => {
  assert.throws(() => pointersTo([ring]).demandFound(true), /comes later/);
  assert.throws(() => pointersTo([{ ...ring, end: START + 256 }]), /this kernel lays it out otherwise: it takes 352/);
});

test('the same layout, an unknown one and the requests themselves need nothing', () => {
  const alike = [
    { ...ring, offsets: NEW },
    { ...ring, offsets: [] },
    { ...ring, pgoff: IORING_OFF_SQES },
  ];
  const pointers = pointersTo(alike);
  assert.equal(pointers.areMoved, false);
  pointers.demandFound(true);
});
