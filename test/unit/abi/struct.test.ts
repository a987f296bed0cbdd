import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  aligned,
  array,
  bytes,
  chars,
  i8,
  i16,
  i32,
  i64n,
  struct,
  u8,
  u16,
  u32,
  u64,
  u64n,
} from '../../../src/abi/struct.ts';

const everything = struct('everything', 80, {
  a: u8,
  b: u16,
  c: u32,
  d: u64,
  e: u64n,
  f: i8,
  g: i16,
  h: i32,
  i: i64n,
  name: chars(6),
  raw: bytes(5),
  list: array(u16, 3),
  nested: struct('nested', 16, { x: u8, y: u64n }),
});

test('fields lie where the x86-64 psABI puts them', () => {
  assert.deepEqual(
    { ...everything.offsets },
    { a: 0, b: 2, c: 4, d: 8, e: 16, f: 24, g: 26, h: 28, i: 32, name: 40, raw: 46, list: 52, nested: 64 },
  );
});

test('a declaration that lays out to another size than the ABI throws', () => {
  assert.throws(() => struct('iovec', 12, { iov_base: u64n, iov_len: u64n }), /struct iovec: .* 16 bytes.* 12/);
});

test('packed and aligned', () => {
  assert.equal(struct('p', 7, { a: u8, b: u32, c: u16 }, { packed: true }).offsets.b, 1);
  assert.equal(struct('al', 32, { a: u8, b: aligned(u32, 16) }).offsets.b, 16);
});

test('what is written is read, at any offset, and its surroundings stay', () => {
  const u = (bits: number) => fc.integer({ min: 0, max: 2 ** bits - 1 });
  const s = (bits: number) => fc.integer({ min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 });
  const value = fc.record(
    {
      a: u(8),
      b: u(16),
      c: u(32),
      d: fc.bigInt(0n, 2n ** 64n - 1n),
      e: fc.maxSafeNat(),
      f: s(8),
      g: s(16),
      h: s(32),
      i: fc.maxSafeInteger(),
      name: fc.string({ unit: fc.constantFrom('a', 'Z', '0', ' ', 'é'), maxLength: 6 }),
      raw: fc.uint8Array({ minLength: 5, maxLength: 5 }),
      list: fc.array(u(16), { minLength: 3, maxLength: 3 }),
      nested: fc.record({ x: u(8), y: fc.maxSafeNat() }, { noNullPrototype: true }),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(value, fc.nat(9), (given, at) => {
      const buffer = new Uint8Array(everything.size + 20).fill(0xaa);
      everything.write(given, buffer, at);
      assert.deepEqual(everything.read(buffer, at), given);
      assert.ok(buffer.subarray(0, at).every((byte) => byte === 0xaa));
      assert.ok(buffer.subarray(at + everything.size).every((byte) => byte === 0xaa));
    }),
  );
});

test('big-endian and little-endian differ by the order of bytes alone', () => {
  const fields = { a: u64n, b: i64n, c: u32 };
  const value = { a: 0x1234_5678_9abc, b: -2, c: 0xdeadbeef };
  const big = struct('big', 24, fields, { endian: 'big' });
  assert.deepEqual(big.read(big.write(value)), value);
  assert.deepEqual([...big.write(value).subarray(0, 8)], [0, 0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
  assert.deepEqual([...struct('little', 24, fields).write(value).subarray(0, 4)], [0xbc, 0x9a, 0x78, 0x56]);
});

test('a value that is not exact or does not fit is refused', () => {
  const pair = struct('pair', 16, { n: u64n, m: u32 });
  assert.throws(() => pair.read(new Uint8Array(16).fill(0xff)), RangeError);
  assert.throws(() => pair.write({ n: -1 }), RangeError);
  assert.throws(() => pair.write({ n: 2 ** 53 }), RangeError);
  assert.throws(() => pair.write({ m: 2 ** 32 }), RangeError);
  assert.throws(() => pair.write({ m: Number.NaN }), RangeError);
  assert.throws(() => pair.read(new Uint8Array(15)), RangeError);
});

test('a window into a larger buffer is not overrun', () => {
  const named = struct('named', 12, { n: u32, name: chars(8) });
  const buffer = new Uint8Array(32).fill(0xaa);
  assert.throws(() => named.write({ n: 1, name: 'x' }, buffer.subarray(0, 11)), RangeError);
  assert.throws(() => named.read(buffer.subarray(8, 18)), RangeError);
  assert.ok(buffer.every((byte) => byte === 0xaa));
});

test('fields that are not given become zero', () => {
  const buffer = new Uint8Array(80).fill(0xff);
  everything.write({ b: 1 }, buffer);
  assert.equal(
    buffer.reduce((sum, byte) => sum + byte),
    1,
  );
});
