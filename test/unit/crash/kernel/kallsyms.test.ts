import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Encoding, encodings, Kallsyms } from '../../../../src/crash/kernel/kallsyms.ts';
import { Vmcoreinfo } from '../../../../src/crash/vmcoreinfo.ts';
import { FormatError, HoleError } from '../../../../src/errors.ts';
import { Machine } from './machine.ts';

interface Symbol {
  readonly type: string;
  readonly name: string;
  readonly address: bigint;
}

const BASE = 0xffff_ffff_8100_0000n;
const TABLES = BASE + 0x100_0000n;
const tables = {
  kallsyms_names: TABLES + 0x123n,
  kallsyms_num_syms: TABLES + 0x20_0000n,
  kallsyms_token_table: TABLES + 0x20_1000n,
  kallsyms_token_index: TABLES + 0x20_3000n,
  kallsyms_offsets: TABLES + 0x20_4000n,
  kallsyms_relative_base: TABLES + 0x30_0000n,
};
/** Tokens of several characters; the others stand for one each. */
const long = ['T_', 'sched', 'unregister_', '__x64_sys_'];

/** scripts/kallsyms.c, without looking for the best tokens. */
function place(machine: Machine, symbols: readonly Symbol[], encoding: Encoding): Vmcoreinfo {
  const token = (i: number) => long[i - 1] ?? String.fromCharCode(i);
  let table = '';
  const index: number[] = [];
  for (let i = 0; i < 256; i++) {
    index.push(table.length);
    table += `${token(i)}\0`;
  }
  const names: number[] = [];
  for (const { type, name } of symbols) {
    const codes: number[] = [];
    for (let rest = type + name; rest !== ''; ) {
      const at = long.findIndex((each) => rest.startsWith(each));
      codes.push(at < 0 ? rest.charCodeAt(0) : at + 1);
      rest = rest.slice(at < 0 ? 1 : long[at]!.length);
    }
    names.push(...(codes.length < 128 ? [codes.length] : [(codes.length & 0x7f) | 0x80, codes.length >> 7]), ...codes);
  }
  const offset = ({ address }: Symbol, i: number) => {
    if (encoding === 'base-relative') return Number(address - BASE);
    if (encoding === 'place-relative') return Number(address - tables.kallsyms_offsets) - i * 4;
    return address < 2n ** 31n ? Number(address) : Number(BASE - 1n - address);
  };
  machine.write(tables.kallsyms_names, Uint8Array.from(names));
  machine.u32(tables.kallsyms_num_syms, symbols.length);
  machine.write(tables.kallsyms_token_table, Buffer.from(table, 'latin1'));
  machine.write(tables.kallsyms_token_index, new Uint8Array(Uint16Array.from(index).buffer));
  machine.u32(tables.kallsyms_offsets, ...symbols.map((each, i) => offset(each, i) >>> 0));
  machine.u64(tables.kallsyms_relative_base, BASE);
  const known = Object.entries(tables).filter(
    ([name]) => encoding !== 'place-relative' || name !== 'kallsyms_relative_base',
  );
  const anchor = symbols.find(({ address }) => address >= BASE)!;
  const lines = [...known, [anchor.name, anchor.address] as const];
  return new Vmcoreinfo(lines.map(([name, address]) => `SYMBOL(${name})=${address.toString(16)}\n`).join(''));
}

const name = fc.oneof(
  fc.stringMatching(/^[a-z_][a-zA-Z0-9_.]{0,30}$/),
  fc.stringMatching(/^[a-z_]{125,135}$/),
  fc.stringMatching(/^(sched|unregister_|__x64_sys_){1,3}[a-z]{1,5}$/),
);
const above = fc.uniqueArray(fc.integer({ min: 0, max: 0x7f_ffff }), { minLength: 1, maxLength: 60 });

test('what scripts/kallsyms.c encodes is decoded, in each of its encodings', () => {
  for (const encoding of encodings) {
    fc.assert(
      fc.property(above, fc.infiniteStream(name), fc.nat(3), (offsets, names, absolute) => {
        const addresses = offsets.toSorted((a, b) => a - b).map((each) => BASE + BigInt(each));
        // Before 6.15, variables of CPUs are numbers from 0 on.
        if (encoding === 'absolute-percpu') addresses.unshift(...[0n, 0x1000n, 0x2a000n].slice(0, absolute));
        const symbols = addresses.map((address, i) => {
          const isFirst = address === addresses.find((each) => each >= BASE);
          return { type: 'T', name: isFirst ? '_stext' : `${names.next().value}_${i}`, address };
        });
        const machine = new Machine();
        const info = place(machine, symbols, encoding);
        const kallsyms = new Kallsyms(machine.memory(), info);
        assert.equal(kallsyms.encoding, encoding);
        assert.equal(kallsyms.named, symbols.length);
        for (const [i, symbol] of symbols.entries()) {
          assert.equal(kallsyms.name(i), symbol.name);
          assert.equal(kallsyms.type(i), 'T');
          assert.equal(kallsyms.address(i), symbol.address);
          assert.equal(kallsyms.find(symbol.name), symbol.address);
          const next = symbols[i + 1]?.address;
          if (next === undefined) continue;
          const at = symbol.address + (next - symbol.address - 1n);
          const size = Number(next - symbol.address);
          assert.deepEqual(kallsyms.lookup(at), { index: i, name: symbol.name, offset: size - 1, size });
        }
        assert.equal(kallsyms.find('no such symbol'), undefined);
      }),
      { numRuns: 30 },
    );
  }
});

const some = (count: number): Symbol[] =>
  Array.from({ length: count }, (_, i) => ({ type: 't', name: `symbol_${i}`, address: BASE + BigInt(i * 16) }));

test('of symbols at one address the first counts, as in the kernel', () => {
  const machine = new Machine(5);
  const symbols = [...some(3), { type: 't', name: 'alias', address: BASE + 32n }, ...some(9).slice(4)];
  const info = place(machine, symbols, 'place-relative');
  const kallsyms = new Kallsyms(machine.memory(), info);
  assert.deepEqual(kallsyms.lookup(BASE + 40n), { index: 2, name: 'symbol_2', offset: 8, size: 32 });
  assert.equal(kallsyms.lookup(BASE - 1n), undefined);
});

test('where a page of names is missing, those before it are known', () => {
  const machine = new Machine();
  const info = place(machine, some(2000), 'base-relative');
  machine.drop(tables.kallsyms_names + 0x1000n);
  const kallsyms = new Kallsyms(machine.memory(), info);
  assert.ok(kallsyms.named > 100 && kallsyms.named < 1000, `${kallsyms.named}`);
  assert.equal(kallsyms.name(50), 'symbol_50');
  assert.equal(kallsyms.name(1999), '');
  assert.equal(kallsyms.find('symbol_1999'), undefined);
  assert.equal(kallsyms.address(1999), BASE + 1999n * 16n);
});

test('tables that are missing or contradict VMCOREINFO are refused', () => {
  const make = (change: (machine: Machine) => void) => {
    const machine = new Machine();
    const info = place(machine, some(100), 'absolute-percpu');
    change(machine);
    return () => new Kallsyms(machine.memory(), info);
  };
  assert.throws(
    make((machine) => machine.drop(tables.kallsyms_offsets)),
    HoleError,
  );
  assert.throws(
    make((machine) => machine.drop(tables.kallsyms_token_table)),
    HoleError,
  );
  assert.throws(
    make((machine) => machine.u32(tables.kallsyms_num_syms, 0xffffffff)),
    FormatError,
  );
  assert.throws(
    make((machine) => machine.u32(tables.kallsyms_token_index, 0xffff)),
    FormatError,
  );
  assert.throws(
    make((machine) => machine.u64(tables.kallsyms_relative_base, 0n)),
    /VMCOREINFO/,
  );
});
