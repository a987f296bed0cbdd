import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BTF_KIND_CONST,
  BTF_KIND_FWD,
  BTF_KIND_PTR,
  BTF_KIND_TYPEDEF,
  BTF_KIND_VOLATILE,
  Btf,
} from '../../../../src/crash/kernel/btf.ts';
import { declaration, definition } from '../../../../src/crash/kernel/ctype.ts';
import { ValueReader, valueLines } from '../../../../src/crash/kernel/value.ts';
import { BtfWriter } from './btfwriter.ts';

function types() {
  const writer = new BtfWriter();
  const int = writer.int('int', 4, true);
  const char = writer.int('char', 1);
  const long = writer.int('unsigned long', 8);
  const pointer = (to: number) => writer.reference(BTF_KIND_PTR, to);
  const kind = writer.enumeration('kind', [
    ['NONE', 0],
    ['SOME', 5],
  ]);
  const function_ = writer.prototype(int, [
    ['text', pointer(writer.reference(BTF_KIND_CONST, char))],
    ['', 0],
  ]);
  const anonymous = writer.aggregate(5, '', 8, [
    { name: 'word', type: long, bitOffset: 0 },
    { name: 'half', type: int, bitOffset: 0 },
  ]);
  const flags = writer.aggregate(4, 'flags', 4, [
    { name: 'low', type: int, bitOffset: 0, bitSize: 3 },
    { name: 'high', type: int, bitOffset: 3, bitSize: 5 },
  ]);
  const forward = writer.reference(BTF_KIND_FWD, 0, 'elsewhere');
  const outer = writer.aggregate(4, 'outer', 80, [
    { name: 'print', type: pointer(function_), bitOffset: 0 },
    { name: 'name', type: writer.array(char, 8), bitOffset: 64 },
    { name: '', type: anonymous, bitOffset: 128 },
    { name: 'grid', type: writer.array(writer.array(int, 2), 3), bitOffset: 192 },
    { name: 'kind', type: kind, bitOffset: 384 },
    { name: 'flags', type: flags, bitOffset: 416 },
    { name: 'other', type: pointer(forward), bitOffset: 448 },
    { name: 'rows', type: pointer(writer.array(int, 2)), bitOffset: 512 },
    {
      name: 'fixed',
      type: writer.reference(BTF_KIND_CONST, pointer(writer.reference(BTF_KIND_VOLATILE, int))),
      bitOffset: 576,
    },
  ]);
  const alias = writer.reference(BTF_KIND_TYPEDEF, pointer(outer), 'outer_t');
  return { btf: new Btf(writer.bytes(), 'test'), outer, alias, flags, kind };
}

test('types are written as C', () => {
  const { btf, outer, alias, flags, kind } = types();
  assert.equal(
    definition(btf, outer),
    `struct outer {
    int (*print)(const char *text, ...);
    char name[8];
    union {
        unsigned long word;
        int half;
    };
    int grid[3][2];
    enum kind kind;
    struct flags flags;
    struct elsewhere *other;
    int (*rows)[2];
    volatile int *const fixed;
}`,
  );
  assert.equal(definition(btf, alias), 'typedef struct outer *outer_t');
  assert.equal(definition(btf, kind), 'enum kind { NONE = 0, SOME = 5 }');
  assert.equal(definition(btf, flags), 'struct flags {\n    int low : 3;\n    int high : 5;\n}');
  assert.equal(declaration(btf, alias, 'x'), 'outer_t x');
  assert.equal(declaration(btf, 0), 'void');
});

test('memory is read as a type', () => {
  const { btf, outer } = types();
  const bytes = new Uint8Array(80);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, 0xffff_ffff_8100_0000n, true);
  bytes.set(Buffer.from('name\0!!!'), 8);
  view.setBigUint64(16, 2n ** 63n + 1n, true);
  for (let i = 0; i < 6; i++) view.setInt32(24 + i * 4, i - 3, true);
  view.setUint32(48, 5, true);
  view.setUint32(52, 0b11111_101, true);
  const value = new ValueReader(btf, bytes).json(outer);
  assert.deepEqual(value, {
    print: '0xffffffff81000000',
    name: 'name',
    word: '9223372036854775809',
    half: 1,
    grid: [
      [-3, -2],
      [-1, 0],
      [1, 2],
    ],
    kind: 'SOME',
    flags: { low: -3, high: -1 },
    other: '0x0',
    rows: '0x0',
    fixed: '0x0',
  });
  const lines = valueLines(value, (address) => (address === 0xffff_ffff_8100_0000n ? 'printer' : undefined), 'outer');
  assert.deepEqual(lines.slice(0, 3), ['outer = {', '  print = 0xffffffff81000000 <printer>', '  name = "name"']);
  assert.ok(lines.includes('    [1] = {-1, 0}'));
});

test('what has no end is cut', () => {
  const writer = new BtfWriter();
  const int = writer.int('int', 4);
  const huge = writer.array(int, 2 ** 31);
  writer.aggregate(4, 'loop', 8, [{ name: 'again', type: 3, bitOffset: 0 }]);
  const btf = new Btf(writer.bytes(), 'test');
  assert.ok((new ValueReader(btf, new Uint8Array(8)).json(huge) as number[]).length <= 65536);
  assert.ok(JSON.stringify(new ValueReader(btf, new Uint8Array(8)).json(3)).length < 1000);
  assert.ok(definition(btf, 3).length < 100_000);
});
