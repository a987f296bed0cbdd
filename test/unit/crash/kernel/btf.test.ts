import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  BTF_KIND_CONST,
  BTF_KIND_PTR,
  BTF_KIND_STRUCT,
  BTF_KIND_TYPEDEF,
  Btf,
} from '../../../../src/crash/kernel/btf.ts';
import { Types } from '../../../../src/crash/kernel/types.ts';
import { FormatError } from '../../../../src/errors.ts';
import { BtfWriter } from './btfwriter.ts';

const identifier = fc.stringMatching(/^[a-z_][a-z0-9_]{0,20}$/);

test('members of structs are found by name with what was written of them', () => {
  const member = fc.record({ name: identifier, bitOffset: fc.integer({ min: 0, max: 2 ** 20 }) });
  const struct = fc.record({
    name: identifier,
    size: fc.integer({ min: 0, max: 2 ** 20 }),
    members: fc.uniqueArray(member, { selector: ({ name }) => name, maxLength: 20 }),
  });
  fc.assert(
    fc.property(fc.uniqueArray(struct, { selector: ({ name }) => name, maxLength: 20 }), (structs) => {
      const writer = new BtfWriter();
      const int = writer.int('int', 4, true);
      for (const { name, size, members } of structs) {
        writer.aggregate(
          4,
          name,
          size,
          members.map((each) => ({ ...each, type: int })),
        );
      }
      const btf = new Btf(writer.bytes(), 'test');
      for (const { name, size, members } of structs) {
        const id = btf.find(name, BTF_KIND_STRUCT)!;
        assert.equal(btf.size(id), size);
        assert.deepEqual(
          btf.members(id).map((each) => each.name),
          members.map((each) => each.name),
        );
        for (const each of members) {
          assert.deepEqual(btf.member(id, each.name), { ...each, type: int, bitSize: 0 });
        }
      }
      assert.equal(btf.find('no such type', BTF_KIND_STRUCT), undefined);
    }),
  );
});

test('offsets go through anonymous unions, typedefs, qualifiers and arrays; bit fields have their bits', () => {
  const writer = new BtfWriter();
  const int = writer.int('unsigned int', 4);
  const inner = writer.aggregate(4, 'inner', 16, [
    { name: 'low', type: int, bitOffset: 0, bitSize: 3 },
    { name: 'high', type: int, bitOffset: 3, bitSize: 5 },
    { name: 'word', type: int, bitOffset: 96 },
  ]);
  const anonymous = writer.aggregate(5, '', 16, [{ name: 'deep', type: inner, bitOffset: 0 }]);
  const alias = writer.reference(BTF_KIND_TYPEDEF, writer.reference(BTF_KIND_CONST, inner), 'inner_t');
  writer.aggregate(4, 'outer', 80, [
    { name: '', type: anonymous, bitOffset: 64 },
    { name: 'list', type: writer.array(alias, 3), bitOffset: 256 },
    { name: 'self', type: writer.reference(BTF_KIND_PTR, 0), bitOffset: 640 },
  ]);
  writer.enumeration('kinds', [
    ['FIRST', 0],
    ['LAST', -1],
  ]);
  const types = new Types(new Btf(writer.bytes(), 'test'));
  assert.equal(types.offset('outer', 'deep.word'), 20n);
  assert.equal(types.offset('outer', 'list.word'), 44n);
  assert.equal(types.member('inner', 'high').bitOffset, 3);
  assert.equal(types.member('inner', 'high').bitSize, 5);
  assert.equal(types.size('inner_t'), 16);
  assert.equal(types.btf.size(types.member('outer', 'list').type), 48);
  assert.equal(types.btf.size(types.member('outer', 'self').type), 8);
  assert.equal(types.enumerator('kinds', 'LAST'), -1);
  assert.equal(types.has('outer', 'nothing'), false);
  assert.throws(() => types.offset('outer', 'nothing'), FormatError);
});

test("a module's types go on where the kernel's end", () => {
  const kernel = new BtfWriter();
  const int = kernel.int('int', 4, true);
  kernel.aggregate(4, 'base', 4, [{ name: 'value', type: int, bitOffset: 0 }]);
  const base = new Btf(kernel.bytes(), 'kernel');
  const module = new BtfWriter(base);
  const inner = base.find('base', BTF_KIND_STRUCT)!;
  const own = module.aggregate(4, 'own', 8, [{ name: 'first', type: inner, bitOffset: 32 }]);
  const split = new Btf(module.bytes(), 'module', base);
  assert.equal(split.find('own', BTF_KIND_STRUCT), own);
  assert.equal(split.find('base', BTF_KIND_STRUCT), inner);
  assert.equal(new Types(split).offset('own', 'first.value'), 4n);
  assert.equal(split.name(split.members(own)[0]!.type), 'base');
});

test('damaged types are a FormatError or are read, in bounded time', () => {
  const writer = new BtfWriter();
  const int = writer.int('int', 4, true);
  const self = writer.aggregate(4, 'loop', 8, [{ name: '', type: 3, bitOffset: 0 }]);
  writer.reference(BTF_KIND_TYPEDEF, 3, 'itself');
  writer.array(int, 2 ** 31);
  const bytes = writer.bytes();
  // Types that contain themselves.
  const looped = new Btf(bytes, 'test');
  assert.equal(looped.member(self, 'absent'), undefined);
  assert.equal(looped.size(3), undefined);
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, value, length) => {
      const damaged = bytes.slice(0, length);
      if (at < length) damaged[at] = value;
      try {
        const btf = new Btf(damaged, 'test');
        for (let id = 0; id < btf.count + 2; id++) {
          btf.name(id);
          btf.size(id);
          btf.members(id);
          btf.enumerators(id);
        }
      } catch (error) {
        assert.ok(error instanceof FormatError, `${error}`);
      }
    }),
    { numRuns: 500 },
  );
});
