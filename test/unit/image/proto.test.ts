import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { FormatError } from '../../../src/errors.ts';
import { reg_file_entry } from '../../../src/image/messages/descriptors.ts';
import { vma_entry } from '../../../src/image/messages/memory.ts';
import { cgroup_dir_entry } from '../../../src/image/messages/namespaces.ts';
import { unix_sk_entry } from '../../../src/image/messages/sockets.ts';
import { pstree_entry } from '../../../src/image/messages/task.ts';
import * as proto from '../../../src/image/proto.ts';
import { Writer } from '../../../src/image/wire.ts';

const { bool, bytes, enumeration, fixed64, i32, i64n, message, repeated, required, s32, s64n, string, u32, u64, u64n } =
  proto;

const folder = new URL('../../../src/image/messages/', import.meta.url);
const exported = await Promise.all(readdirSync(folder).map((file) => import(new URL(file, folder).href)));
const messages: proto.Message<unknown>[] = exported
  .flatMap((module) => Object.values(module))
  .filter((value): value is proto.Message<unknown> => typeof value === 'object' && value !== null && 'table' in value);

/** Any value of a kind, by its name in the .proto language. */
function anyOf(kind: proto.Kind<unknown>, depth: number): fc.Arbitrary<unknown> {
  if ('table' in kind) return anyMessage(kind as proto.Message<unknown>, depth);
  if ('values' in kind) return fc.constantFrom(...Object.keys(kind.values as object));
  switch (kind.name) {
    case 'uint32':
      return fc.nat(0xffff_ffff);
    case 'int32':
    case 'sint32':
      return fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff });
    case 'uint64':
      return kind === u64 ? fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) : fc.maxSafeNat();
    case 'int64':
    case 'sint64':
      return fc.maxSafeInteger();
    case 'fixed64':
      return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    case 'bool':
      return fc.boolean();
    case 'string':
      return fc.string({ unit: 'binary' });
    case 'bytes':
      return fc.uint8Array({ maxLength: 300 });
    case 'cgroup_dir_entry':
      return depth > 2
        ? fc.constant({ dir_name: 'd', children: [], properties: [] })
        : anyMessage(cgroup_dir_entry, depth);
    default:
      return fc.constant({ name: 'n', policies: [], namespaces: [] });
  }
}

function anyMessage(of: proto.Message<never> | proto.Message<unknown>, depth = 0): fc.Arbitrary<unknown> {
  const model: Record<string, fc.Arbitrary<unknown>> = {};
  const optional: string[] = [];
  for (const [name, [, kind, option]] of Object.entries(of.table)) {
    const value = anyOf(kind, depth + 1);
    model[name] = option === repeated ? fc.array(value, { maxLength: 3 }) : value;
    if (option !== repeated && option !== required) optional.push(name);
  }
  const requiredKeys = Object.keys(model).filter((key) => !optional.includes(key));
  return fc.record(model, { requiredKeys }).map((value) => ({ ...value }));
}

test('every message comes back as it was written, also through JSON', () => {
  assert.ok(messages.length > 100);
  for (const each of messages) {
    fc.assert(
      fc.property(anyMessage(each), (value) => {
        const written = each.encode(value);
        const read = each.decode(written);
        assert.deepEqual(read, value);
        assert.deepEqual(each.encode(read), written);
        const json = each.fromJson(each.toJson(value), { file: 'f', field: each.name });
        assert.deepEqual(json, value);
      }),
      { numRuns: 30 },
    );
  }
});

const samples = message('samples', {
  a: [1, u32, required],
  b: [2, string],
  c: [3, i32],
  d: [4, s32],
  e: [5, u64],
  f: [6, fixed64],
  g: [7, bool],
  h: [8, bytes],
  i: [9, i64n],
  j: [10, s64n],
  k: [11, u32, repeated],
  l: [12, enumeration('letters', { A: 1, B: -1 })],
  m: [13, u64n, { default: 7 }],
});
const hex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));

test('bytes are those of the specification', () => {
  // The examples of protobuf.dev/programming-guides/encoding.
  assert.deepEqual(samples.decode(hex('08 9601')), { a: 150, k: [] });
  assert.deepEqual(samples.decode(hex('0800 12 07 74657374696e67')), { a: 0, b: 'testing', k: [] });
  const value = {
    a: 1,
    c: -2,
    d: -1,
    e: 2n ** 64n - 1n,
    f: 1n,
    g: true,
    h: hex('00ff'),
    i: -1,
    j: -3,
    k: [1, 300],
    l: 'B' as const,
    m: 2 ** 40,
  };
  const written = [
    '0801',
    '18 feffffffffffffffff01',
    '20 01',
    '28 ffffffffffffffffff01',
    '31 0100000000000000',
    '38 01',
    '42 02 00ff',
    '48 ffffffffffffffffff01',
    '50 05',
    '58 01 58 ac02',
    '60 ffffffffffffffffff01',
    '68 808080808020',
  ].join('');
  assert.equal(Buffer.from(samples.encode(value)).toString('hex'), written.replaceAll(' ', ''));
  assert.deepEqual(samples.decode(samples.encode(value)), value);
});

test('packed elements are read', () => {
  assert.deepEqual(samples.decode(hex('0801 5a 03 01 ac02')).k, [1, 300]);
});

test('elements that are one object are bytes like those of others', () => {
  const inner = message('inner', { text: [1, string], number: [2, u32] });
  const lists = message('lists', { inner: [1, inner, repeated], bytes: [17, bytes, repeated] });
  const [one, other] = [{ text: 'x'.repeat(200), number: 7 }, { number: 0 }];
  const raw = Uint8Array.of(1, 2);
  const value = { inner: [one, one, other, other, other, one, { ...one }], bytes: [raw, raw, Uint8Array.of(3)] };
  const apart = { inner: value.inner.map((each) => ({ ...each })), bytes: value.bytes.map((each) => each.slice()) };
  assert.deepEqual(lists.encode(value), lists.encode(apart));
  assert.deepEqual(lists.decode(lists.encode(value)), apart);
});

test('a message within another one is whole wherever room ends', () => {
  const inner = message('inner', {});
  const outer = message('outer', { text: [1, string], inner: [2, inner] });
  for (let length = 200; length < 300; length++) {
    const value = { text: 'x'.repeat(length), inner: { [proto.unknownFields]: Uint8Array.of(8, 5, 16, 6) } };
    assert.deepEqual(outer.decode(outer.encode(value)), value, `${length}`);
  }
});

test('zeros in lists are bytes like those of other numbers, wherever they stand', () => {
  const numbers = message('numbers', { near: [1, u32, repeated], wide: [2, u64, repeated], far: [17, i32, repeated] });
  const written = Buffer.from('08000805080008001000100710008801008801008801fffffffffffffffffF01880100', 'hex');
  const value = { near: [0, 5, 0, 0], wide: [0n, 7n, 0n], far: [0, 0, -1, 0] };
  assert.deepEqual(Buffer.from(numbers.encode(value)), written);
  assert.deepEqual(numbers.decode(written), value);
  const model = {
    near: fc.array(fc.constantFrom(0, 1, 300), { maxLength: 9 }),
    wide: fc.array(fc.constantFrom(0n, 1n, 2n ** 64n - 1n), { maxLength: 9 }),
    far: fc.array(fc.constantFrom(0, -1), { maxLength: 9 }),
  };
  const lists = fc.record(model, { noNullPrototype: true });
  fc.assert(fc.property(lists, (each) => assert.deepEqual(numbers.decode(numbers.encode(each)), each)));
  // A tag without its value.
  assert.throws(() => numbers.decode(Buffer.from('0800080008', 'hex')), FormatError);
});

test('an absent field stays absent, and its meaning is declared', () => {
  const file = reg_file_entry.decode(
    reg_file_entry.encode({
      id: 1,
      flags: 0,
      pos: 0,
      fown: { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 },
      name: '/',
      build_id: [],
    }),
  );
  assert.equal(file.mnt_id, undefined);
  assert.deepEqual(reg_file_entry.defaults, { mnt_id: -1 });
});

test('fields of a newer writer survive reading, writing and JSON', () => {
  const newer = message('pstree_entry', {
    pid: [1, u32, required],
    ppid: [2, u32, required],
    pgid: [3, u32, required],
    sid: [4, u32, required],
    threads: [5, u32, repeated],
    note: [300, string],
    mark: [17, fixed64],
  });
  const written = newer.encode({ pid: 1, ppid: 0, pgid: 1, sid: 1, threads: [1], note: 'new', mark: 5n });
  const read = pstree_entry.decode(written);
  assert.equal(read.pid, 1);
  assert.deepEqual(pstree_entry.encode({ ...read }), written);
  const json = pstree_entry.fromJson(pstree_entry.toJson(read), { file: 'f', field: 'x' });
  assert.deepEqual(pstree_entry.encode(json), written);
});

test('an enumeration keeps a number that has no name', () => {
  assert.equal(samples.decode(hex('0801 60 63')).l, 99);
  assert.deepEqual(samples.encode({ a: 1, k: [], l: 99 }), hex('0801 60 63'));
});

test('a name is kept byte for byte', () => {
  const read = samples.decode(hex('0801 12 03 61ff62'));
  assert.equal(read.b, 'a\udcffb');
  assert.deepEqual(samples.encode(read), hex('0801 12 03 61ff62'));
});

test('the vsyscall page has exact addresses, and a number that a double does not hold is refused', () => {
  const vsyscall = { start: 0xffffffffff600000, end: 0xffffffffff601000 };
  const value = { ...vsyscall, pgoff: 0, shmid: 0, prot: 5, flags: 0x22, status: 4, fd: -1 };
  assert.deepEqual(vma_entry.decode(vma_entry.encode(value)), value);
  assert.equal((vma_entry.toJson(value) as { start: unknown }).start, 0xffffffffff600000n);
  assert.throws(() => samples.decode(hex('0801 68 8180808080808010')), {
    name: 'FormatError',
    field: 'samples.m',
  });
  assert.throws(() => samples.encode({ a: 1, k: [], m: 1.5 }), /samples\.m: 1\.5 does not fit uint64/);
});

test('the address of a Unix socket is quoted-printable in JSON, as crit has it', () => {
  const kind = unix_sk_entry.table.name![1];
  const name = hex('00 61 3d 20 ff');
  assert.equal(kind.toJson(name), '=00a=3D=20=FF');
  assert.deepEqual(kind.fromJson('=00a=3D=\n=20=FF', { file: 'f', field: 'name' }), name);
});

test('what is damaged is named by file, byte and field', () => {
  const at = { file: 'x.img', offset: 100 };
  const cases: [string, string, RegExp, number][] = [
    ['', 'samples.a', /required/, 100],
    ['08', 'samples.a', /the end of the message/, 101],
    ['08 ff', 'samples.a', /the end of the message/, 101],
    ['08 ffffffffffffffffffff01', 'samples.a', /varint of 64 bits/, 101],
    ['08 8080808010', 'samples.a', /expected 32 bits, found 4294967296/, 101],
    ['0801 0802', 'samples.a', /a second one/, 102],
    ['0a 00', 'samples.a', /wire type 0, found 2/, 100],
    ['0801 12 ff01', 'samples.b', /a length of 255/, 103],
    ['0801 12 ffffffffffffffff7f', 'samples.b', /at most 0 bytes/, 103],
    ['0801 38 02', 'samples.g', /0 or 1/, 103],
    ['0801 31 00', 'samples.f', /8 bytes, found 1/, 103],
    ['0801 5a 05 01', 'samples.k', /at most 1 bytes/, 103],
    ['0801 5d 00000000', 'samples.k', /wire type 0 or 2, found 5/, 102],
    ['0801 9b 06', 'samples', /wire type 0, 1, 2 or 5, found 3/, 104],
    ['0801 00', 'samples', /field number/, 102],
  ];
  for (const [given, field, text, offset] of cases) {
    assert.throws(
      () => samples.decode(hex(given), at),
      (error: unknown) => {
        assert(error instanceof FormatError, given);
        assert.deepEqual([error.file, error.field, error.offset], ['x.img', field, offset], given);
        assert.match(error.message, text);
        return true;
      },
    );
  }
});

test('messages that nest without end are refused', () => {
  let nested: Uint8Array = Buffer.concat([hex('0a01'), Buffer.from('d')]);
  for (let depth = 0; depth < 1000; depth++) {
    const to = new Writer();
    to.raw(hex('0a0164 12'));
    to.blob(nested);
    nested = to.finish();
  }
  assert.throws(() => cgroup_dir_entry.decode(nested), /at most 100 messages within each other/);
});

test('any bytes at all give a value or a FormatError, and no large allocation', () => {
  for (const each of messages) {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (given) => {
        try {
          each.decode(given);
        } catch (error) {
          assert(error instanceof FormatError, `${error}`);
        }
      }),
      { numRuns: 40 },
    );
  }
});

test('what cannot be written is refused, by the name of the field', () => {
  assert.throws(() => samples.encode({ k: [] } as never), { name: 'TypeError', message: 'samples.a is required' });
  for (const value of [-1, 2 ** 32, 0.5, Number.NaN]) {
    assert.throws(() => samples.encode({ a: value, k: [] }), { name: 'RangeError', message: /^samples\.a: / });
  }
  assert.throws(() => samples.encode({ a: 1, k: [], e: 2n ** 64n }), /samples\.e: /);
  assert.throws(() => samples.encode({ a: 1, k: [], i: 2 ** 53 }), /samples\.i: /);
  assert.throws(() => samples.encode({ a: 1, k: [], l: 'C' as never }), /samples\.l: C does not fit letters/);
});

test('JSON of another shape is refused', () => {
  const at = { file: 'x.json', field: 'entry' };
  for (const json of [
    null,
    7,
    [],
    {},
    { a: '1' },
    { a: -1 },
    { a: 1, k: 1 },
    { a: 1, other: 1 },
    { a: 1, g: 1 },
    { a: 1, h: '!' },
    { a: 1, l: 'C' },
    { a: 1, b: 5 },
  ]) {
    assert.throws(() => samples.fromJson(json, at), { name: 'FormatError', file: 'x.json' }, JSON.stringify(json));
  }
});
