/**
 * ORC, by which a kernel unwinds its stacks (arch/x86/include/asm/orc_types.h, Documentation/arch/x86/orc-unwinder.rst):
 * two tables side by side, sorted by address.
 *
 *   .orc_unwind_ip   32 bits each: where in the text, relative to the place of the number itself
 *   .orc_unwind      struct orc_entry, 6 bytes each: what holds from there to the next
 *
 * The fields' places come from BTF. What their values mean changed three times and is told apart by the data:
 *   `end`, and types 0 call, 1 regs, 2 partial regs; a register of 0 is undefined      until 6.3
 *   types 0 undefined, 1 end of stack, 2 call, 3 regs, 4 partial regs                  since 6.4 (fb799447ae29)
 *   registers numbered anew                                                            7.x
 */
import type { Btf, Member } from './btf.ts';
import { BTF_KIND_STRUCT } from './btf.ts';
import type { VirtualMemory } from './memory.ts';

export type OrcRegister = 'prev-sp' | 'dx' | 'di' | 'bp' | 'sp' | 'r10' | 'r13' | 'ax' | 'bp-indirect' | 'sp-indirect';
export type OrcType = 'undefined' | 'end' | 'call' | 'regs' | 'regs-partial';

export interface OrcEntry {
  readonly type: OrcType;
  readonly spRegister: OrcRegister | undefined;
  readonly spOffset: number;
  /** undefined where bp is as it was. */
  readonly bpRegister: OrcRegister | undefined;
  readonly bpOffset: number;
  /** The frame was interrupted: the address is that of the next instruction and not one after a call. */
  readonly signal: boolean;
}

export const ORC_ENTRY_SIZE = 6;

/** By number; arch/x86/include/asm/orc_types.h before and since 7.x. */
export const orcRegisters: Readonly<Record<'until 6.x' | 'since 7.x', readonly (OrcRegister | undefined)[]>> = {
  'until 6.x': [undefined, 'prev-sp', 'dx', 'di', 'bp', 'sp', 'r10', 'r13', 'bp-indirect', 'sp-indirect'],
  'since 7.x': [undefined, 'ax', 'dx', 'sp', 'bp', 'di', 'r10', 'r13', 'prev-sp', 'sp-indirect', 'bp-indirect'],
};

const oldTypes: readonly OrcType[] = ['call', 'regs', 'regs-partial'];
const types: readonly OrcType[] = ['undefined', 'end', 'call', 'regs', 'regs-partial'];

/** Entries that are looked at to tell the numbering of registers. */
const SAMPLE = 8192;

/** How one kernel writes struct orc_entry. */
export class OrcFormat {
  readonly registers: keyof typeof orcRegisters;
  readonly #spReg: Member;
  readonly #bpReg: Member;
  readonly #type: Member;
  readonly #end: Member | undefined;
  readonly #signal: Member | undefined;

  /** @param sample entries, of which nearly all find their frame by sp */
  static detect(btf: Btf, sample: Uint8Array): OrcFormat | undefined {
    const id = btf.find('orc_entry', BTF_KIND_STRUCT);
    if (id === undefined) return undefined;
    const member = (name: string) => btf.member(id, name);
    const [spReg, bpReg, type] = [member('sp_reg'), member('bp_reg'), member('type')];
    if (spReg === undefined || bpReg === undefined || type === undefined) return undefined;
    const seen = new Map<OrcFormat['registers'], number>();
    const names = Object.keys(orcRegisters) as OrcFormat['registers'][];
    for (const name of names) seen.set(name, 0);
    for (let at = 0; at + ORC_ENTRY_SIZE <= sample.length; at += ORC_ENTRY_SIZE) {
      const number = bits(sample, at, spReg);
      for (const name of names) if (orcRegisters[name][number] === 'sp') seen.set(name, seen.get(name)! + 1);
    }
    const [registers] = names.toSorted((a, b) => seen.get(b)! - seen.get(a)!);
    return new OrcFormat(registers!, spReg, bpReg, type, member('end'), member('signal'));
  }

  private constructor(
    registers: OrcFormat['registers'],
    spReg: Member,
    bpReg: Member,
    type: Member,
    end: Member | undefined,
    signal: Member | undefined,
  ) {
    this.registers = registers;
    this.#spReg = spReg;
    this.#bpReg = bpReg;
    this.#type = type;
    this.#end = end;
    this.#signal = signal;
  }

  decode(entry: Uint8Array): OrcEntry {
    const view = new DataView(entry.buffer, entry.byteOffset, ORC_ENTRY_SIZE);
    const registers = orcRegisters[this.registers];
    const spRegister = registers[bits(entry, 0, this.#spReg)];
    const number = bits(entry, 0, this.#type);
    let type = types[number] ?? 'undefined';
    if (this.#end !== undefined) {
      type = oldTypes[number] ?? 'undefined';
      if (spRegister === undefined) type = bits(entry, 0, this.#end) === 1 ? 'end' : 'undefined';
    }
    return {
      type,
      spRegister,
      spOffset: view.getInt16(0, true),
      bpRegister: registers[bits(entry, 0, this.#bpReg)],
      bpOffset: view.getInt16(2, true),
      signal: this.#signal !== undefined && bits(entry, 0, this.#signal) === 1,
    };
  }
}

/** The unwind entries of the kernel or of a module. */
export interface OrcTable {
  /** Text that the entries are for. */
  readonly contains: (pc: bigint) => boolean;
  readonly ips: bigint;
  readonly entries: bigint;
  readonly count: number;
}

/** A few thousand places are asked for again and again: stacks are alike. */
const CACHE = 16384;

export class Orc {
  readonly format: OrcFormat;
  readonly #memory: VirtualMemory;
  readonly #tables: readonly OrcTable[];
  readonly #known = new Map<bigint, OrcEntry | undefined>();

  constructor(memory: VirtualMemory, format: OrcFormat, tables: readonly OrcTable[]) {
    this.#memory = memory;
    this.format = format;
    this.#tables = tables;
  }

  /** The first entries, by which OrcFormat.detect() goes. */
  static sample(memory: VirtualMemory, { entries, count }: OrcTable): Uint8Array {
    return memory.read(entries, Math.min(count, SAMPLE) * ORC_ENTRY_SIZE);
  }

  /** What holds at an address; undefined for text without entries. @throws HoleError where they are missing */
  find(pc: bigint): OrcEntry | undefined {
    if (this.#known.has(pc)) return this.#known.get(pc);
    const table = this.#tables.find(({ contains }) => contains(pc));
    const entry = table === undefined ? undefined : this.#search(table, pc);
    if (this.#known.size >= CACHE) this.#known.clear();
    this.#known.set(pc, entry);
    return entry;
  }

  #search({ ips, entries, count }: OrcTable, pc: bigint): OrcEntry | undefined {
    let [low, high] = [0, count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const at = ips + BigInt(middle * 4);
      if (BigInt.asUintN(64, at + BigInt(this.#memory.i32(at))) <= pc) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return undefined;
    return this.format.decode(this.#memory.read(entries + BigInt((low - 1) * ORC_ENTRY_SIZE), ORC_ENTRY_SIZE));
  }
}

/** Bits of a little-endian struct, at most 8 of them. */
function bits(bytes: Uint8Array, at: number, { bitOffset, bitSize }: Member): number {
  const first = at + (bitOffset >> 3);
  const word = bytes[first]! | ((bytes[first + 1] ?? 0) << 8);
  return (word >> (bitOffset & 7)) & ((1 << bitSize) - 1);
}
