import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Btf } from '../../../../src/crash/kernel/btf.ts';
import {
  Orc,
  type OrcEntry,
  OrcFormat,
  type OrcRegister,
  type OrcTable,
  type OrcType,
  orcRegisters,
} from '../../../../src/crash/kernel/orc.ts';
import { BtfWriter } from './btfwriter.ts';
import { Machine } from './machine.ts';

/** Generations of struct orc_entry: arch/x86/include/asm/orc_types.h of 6.1, 6.3, 6.4 and 7.2. */
const generations = {
  'until 6.2': { registers: 'until 6.x', end: 10, signal: undefined, types: 2 },
  'in 6.3': { registers: 'until 6.x', end: 11, signal: 10, types: 2 },
  'since 6.4': { registers: 'until 6.x', end: undefined, signal: 11, types: 3 },
  'since 7.x': { registers: 'since 7.x', end: undefined, signal: 11, types: 3 },
} as const;
type Generation = (typeof generations)[keyof typeof generations];

function types({ end, signal, types }: Generation): Btf {
  const writer = new BtfWriter();
  const int = writer.int('unsigned int', 4);
  const field = (name: string, bitOffset: number, bitSize: number) => ({ name, type: int, bitOffset, bitSize });
  writer.aggregate(4, 'orc_entry', 6, [
    field('sp_reg', 32, 4),
    field('bp_reg', 36, 4),
    field('type', 40, types),
    ...(signal === undefined ? [] : [field('signal', 32 + signal, 1)]),
    ...(end === undefined ? [] : [field('end', 32 + end, 1)]),
  ]);
  return new Btf(writer.bytes(), 'test');
}

function encode(entry: OrcEntry, { registers, end, signal }: Generation): Uint8Array {
  const bytes = new Uint8Array(6);
  const view = new DataView(bytes.buffer);
  view.setInt16(0, entry.spOffset, true);
  view.setInt16(2, entry.bpOffset, true);
  const number = (register: OrcRegister | undefined) => orcRegisters[registers].indexOf(register);
  const order: readonly OrcType[] =
    end === undefined ? ['undefined', 'end', 'call', 'regs', 'regs-partial'] : ['call', 'regs', 'regs-partial'];
  let word = number(entry.spRegister) | (number(entry.bpRegister) << 4) | (Math.max(0, order.indexOf(entry.type)) << 8);
  if (signal !== undefined && entry.signal) word |= 1 << signal;
  if (end !== undefined && entry.type === 'end') word |= 1 << end;
  view.setUint16(4, word, true);
  return bytes;
}

const offset = fc.integer({ min: -32768, max: 32767 });
const entryOf = (generation: Generation) => {
  const named = orcRegisters[generation.registers].filter((register) => register !== undefined);
  const fields = {
    spOffset: offset,
    bpOffset: offset,
    bpRegister: fc.constantFrom(...orcRegisters[generation.registers]),
    signal: generation.signal === undefined ? fc.constant(false) : fc.boolean(),
  };
  return fc.oneof(
    fc.record<OrcEntry>({
      ...fields,
      type: fc.constantFrom('call', 'regs', 'regs-partial'),
      spRegister: fc.constantFrom(...named),
    }),
    fc.record<OrcEntry>({ ...fields, type: fc.constantFrom('end', 'undefined'), spRegister: fc.constant(undefined) }),
  );
};
/** Nearly every entry of a kernel is like this one. */
const usual: OrcEntry = {
  type: 'call',
  spRegister: 'sp',
  spOffset: 8,
  bpRegister: 'prev-sp',
  bpOffset: -16,
  signal: false,
};

for (const [name, generation] of Object.entries(generations)) {
  test(`entries as kernels ${name} write them are decoded`, () => {
    const btf = types(generation);
    const sample = Buffer.concat(Array.from({ length: 20 }, () => encode(usual, generation)));
    const format = OrcFormat.detect(btf, sample)!;
    assert.equal(format.registers, generation.registers);
    fc.assert(
      fc.property(entryOf(generation), (entry) => {
        assert.deepEqual(format.decode(encode(entry, generation)), { ...entry });
      }),
    );
  });
}

test('the entry that holds at an address is the last one before it', () => {
  const generation = generations['since 6.4'];
  const [ips, entries, text] = [0xffff_ffff_8200_0ffcn, 0xffff_ffff_8210_0000n, 0xffff_ffff_8100_0000n];
  const gaps = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 100 });
  fc.assert(
    fc.property(gaps, (lengths) => {
      const machine = new Machine();
      let at = 100;
      const starts = lengths.map((length) => {
        at += length;
        return at - length;
      });
      machine.u32(ips, ...starts.map((start, i) => Number(text + BigInt(start) - ips) - i * 4));
      for (const i of starts.keys()) {
        machine.write(entries + BigInt(i * 6), encode({ ...usual, spOffset: i }, generation));
      }
      const memory = machine.memory();
      const table: OrcTable = { contains: (pc) => pc >= text && pc < ips, ips, entries, count: starts.length };
      const orc = new Orc(memory, OrcFormat.detect(types(generation), Orc.sample(memory, table))!, [table]);
      assert.equal(orc.find(text + 99n), undefined);
      assert.equal(orc.find(entries), undefined);
      for (const [i, start] of starts.entries()) {
        assert.equal(orc.find(text + BigInt(start))?.spOffset, i);
        assert.equal(orc.find(text + BigInt(start + lengths[i]! - 1))?.spOffset, i);
      }
    }),
    { numRuns: 30 },
  );
});

test('without types of entries there is no format', () => {
  assert.equal(OrcFormat.detect(new Btf(new BtfWriter().bytes(), 'test'), new Uint8Array(6)), undefined);
});
