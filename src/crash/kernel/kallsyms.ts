/**
 * kallsyms, the kernel's table of its own symbols (kernel/kallsyms.c; written by scripts/kallsyms.c). VMCOREINFO names its parts
 * since 6.0 (5fd8fea935a1).
 *
 *   kallsyms_names         for each symbol its length, and that many numbers of tokens. The first character is nm's letter. A
 *                          length of 128 and more takes two bytes, low 7 bits first (since 6.1, 73bbb94466fd).
 *   kallsyms_token_index   256 offsets into
 *   kallsyms_token_table   the texts that the tokens stand for, each with a NUL
 *   kallsyms_offsets       for each symbol 32 bits, which give its address in one of three ways
 *
 * Names stay compressed: 200,000 of them as strings would take 20 MB.
 */

import { FormatError, HoleError } from '../../errors.ts';
import type { Vmcoreinfo } from '../vmcoreinfo.ts';
import type { VirtualMemory } from './memory.ts';
import { HASH_BASE, HASH_BASE_INVERSE, hashOf, NameIndex } from './names.ts';

/**
 * - `absolute-percpu`: from 0 on the address itself; below it, kallsyms_relative_base - 1 - offset (until 6.14)
 * - `base-relative`: kallsyms_relative_base + offset, unsigned (since 6.15, 01157ddc58dc)
 * - `place-relative`: the address of the offset + offset (7.x, which has no kallsyms_relative_base)
 */
export const encodings = ['absolute-percpu', 'base-relative', 'place-relative'] as const;
export type Encoding = (typeof encodings)[number];

/** A kernel with everything built in has some 500,000. */
const MAX_SYMBOLS = 2 ** 22;
/** KSYM_NAME_LEN is 512, and nm's letter. */
const MAX_NAME = 1024;
const TWO32 = 2 ** 32;

/** Where an address lies. */
export interface Place {
  readonly name: string;
  /** Bytes from where the symbol begins. */
  readonly offset: number;
  /** Bytes up to the next symbol. */
  readonly size: number;
}

/** A symbol's place in the table. */
export type SymbolIndex = number;

export class Kallsyms {
  readonly encoding: Encoding;
  readonly count: number;
  /** How many have a name: fewer than `count` where a page of kallsyms_names is missing. */
  readonly named: number;
  /** Why the names end before they all are known. */
  readonly firstMissing: HoleError | undefined;
  readonly #names: Uint8Array;
  /** Where each name's length stands; one more for the end of the last. */
  readonly #starts: Uint32Array;
  readonly #tokens: Tokens;
  readonly #index: NameIndex;
  readonly #high: Uint32Array;
  readonly #low: Uint32Array;
  /** Symbols by address. */
  readonly #order: Uint32Array;

  /**
   * @throws HoleError where one of the small tables is missing
   * @throws FormatError where no encoding gives the addresses that VMCOREINFO knows
   */
  constructor(memory: VirtualMemory, info: Vmcoreinfo) {
    const symbol = (name: string) => {
      const address = info.symbol(name);
      if (address !== undefined) return address;
      const field = `SYMBOL(${name})`;
      throw new FormatError({ file: 'VMCOREINFO', field, expected: 'the address of the symbol table', found: 'none' });
    };
    this.count = memory.u32(symbol('kallsyms_num_syms'));
    if (this.count === 0 || this.count > MAX_SYMBOLS) {
      const expected = `1 to ${MAX_SYMBOLS}`;
      throw new FormatError({ file: 'kallsyms', field: 'kallsyms_num_syms', expected, found: `${this.count}` });
    }
    this.#tokens = readTokens(memory, symbol('kallsyms_token_index'), symbol('kallsyms_token_table'));
    const names = readNames(memory, symbol('kallsyms_names'), this.count);
    this.#names = names.bytes;
    this.#starts = names.starts;
    this.named = names.count;
    this.firstMissing = names.hole;
    this.#index = new NameIndex(this.named);
    for (let i = 0; i < this.named; i++) this.#index.add(this.#hash(i), i);

    const table = symbol('kallsyms_offsets');
    const offsets = memory.view(table, this.count * 4);
    const baseAt = info.symbol('kallsyms_relative_base');
    const base = baseAt === undefined ? undefined : memory.u64(baseAt);
    this.#high = new Uint32Array(this.count);
    this.#low = new Uint32Array(this.count);
    this.encoding = this.#decode(offsets, table, base, info);
    this.#order = this.#sorted();
  }

  address(index: SymbolIndex): bigint {
    return (BigInt(this.#high[index]!) << 32n) | BigInt(this.#low[index]!);
  }

  /** Empty for a symbol whose name is missing. */
  name(index: SymbolIndex): string {
    return this.#expand(index).slice(1);
  }

  /** nm's letter: `T` text, `D` data, `R` read-only, `B` bss, small for what is local; empty where it is missing. */
  type(index: SymbolIndex): string {
    return this.#expand(index).slice(0, 1);
  }

  /** Symbols of this name; static ones may have the same. */
  *all(name: string): Generator<SymbolIndex> {
    for (const i of this.#index.candidates(name)) if (this.name(i) === name) yield i;
  }

  /** Address of the first symbol of this name. */
  find(name: string): bigint | undefined {
    for (const i of this.all(name)) return this.address(i);
    return undefined;
  }

  /**
   * The symbol that an address lies in, as the kernel prints it: the first of those that begin at the same place.
   * What is no address of the kernel's own image lies in the last symbol before it; the caller asks for those that are.
   */
  lookup(address: bigint): (Place & { readonly index: SymbolIndex }) | undefined {
    const high = Number(address >> 32n);
    const low = Number(address & 0xffffffffn);
    const order = this.#order;
    let [first, last] = [0, order.length];
    while (first < last) {
      const middle = (first + last) >>> 1;
      const i = order[middle]!;
      const isBefore = this.#high[i]! < high || (this.#high[i]! === high && this.#low[i]! <= low);
      if (isBefore) first = middle + 1;
      else last = middle;
    }
    if (first === 0) return undefined;
    const next = order[first];
    let at = first - 1;
    while (at > 0 && this.#distance(order[at - 1]!, order[at]!) === 0) at--;
    const index = order[at]!;
    const offset = (high - this.#high[index]!) * TWO32 + low - this.#low[index]!;
    const size = next === undefined ? offset + 1 : this.#distance(index, next);
    return { index, name: this.name(index), offset, size };
  }

  /** Symbols in the order of their addresses. */
  *sorted(): Generator<SymbolIndex> {
    yield* this.#order;
  }

  #distance(from: SymbolIndex, to: SymbolIndex): number {
    return (this.#high[to]! - this.#high[from]!) * TWO32 + this.#low[to]! - this.#low[from]!;
  }

  #expand(index: SymbolIndex): string {
    if (index >= this.named) return '';
    const { text, start } = this.#tokens;
    let name = '';
    const end = this.#starts[index + 1]!;
    for (let at = this.#first(index); at < end; at++) {
      const token = this.#names[at]!;
      name += text.slice(start[token]!, start[token + 1]! - 1);
      if (name.length > MAX_NAME) break;
    }
    return name;
  }

  /** Where a name's first token stands, behind its length. */
  #first(index: SymbolIndex): number {
    const start = this.#starts[index]!;
    return start + (this.#names[start]! < 0x80 ? 1 : 2);
  }

  /** Of the name without nm's letter. */
  #hash(index: SymbolIndex): number {
    const { bytes, start, hash, power } = this.#tokens;
    const [first, end] = [this.#first(index), this.#starts[index + 1]!];
    let whole = 0;
    let high = 1;
    for (let at = first; at < end; at++) {
      const token = this.#names[at]!;
      whole = (Math.imul(whole, power[token]!) + hash[token]!) | 0;
      high = Math.imul(high, power[token]!);
    }
    const letter = bytes[start[this.#names[first]!]!]!;
    return (whole - Math.imul(letter, Math.imul(high, HASH_BASE_INVERSE))) | 0;
  }

  /** The addresses by the encoding that agrees with what VMCOREINFO says of the most symbols. */
  #decode(offsets: DataView, table: bigint, base: bigint | undefined, info: Vmcoreinfo): Encoding {
    const anchors: [SymbolIndex, bigint][] = [];
    for (const [, name] of info.text.matchAll(/^SYMBOL\((\w+)\)=/gm)) {
      const address = info.symbol(name!);
      for (const i of this.all(name!)) if (address !== undefined) anchors.push([i, address]);
    }
    const right = (encoding: Encoding) => {
      const decode = decoder(encoding, offsets, table, base);
      return anchors.filter(([i, address]) => {
        const [high, low] = decode(i);
        return ((BigInt(high) << 32n) | BigInt(low)) === address;
      }).length;
    };
    const possible = encodings.filter((each) => (each === 'place-relative') === (base === undefined));
    const encoding = possible.map((each) => ({ each, right: right(each) })).sort((a, b) => b.right - a.right)[0]!;
    if (encoding.right === 0) {
      const expected = `${possible.join(' or ')} addresses that agree with VMCOREINFO`;
      throw new FormatError({ file: 'kallsyms', field: 'kallsyms_offsets', expected, found: 'none that do' });
    }
    const decode = decoder(encoding.each, offsets, table, base);
    for (let i = 0; i < this.count; i++) {
      const [high, low] = decode(i);
      this.#high[i] = high;
      this.#low[i] = low;
    }
    return encoding.each;
  }

  #sorted(): Uint32Array {
    const order = Uint32Array.from({ length: this.count }, (_, i) => i);
    for (let i = 1; i < this.count; i++) {
      // The sort keeps the order of those at the same address, as the kernel's table does.
      if (this.#distance(i - 1, i) < 0) return order.sort((a, b) => this.#distance(b, a) || a - b);
    }
    return order;
  }
}

interface Tokens {
  readonly bytes: Uint8Array;
  readonly text: string;
  /** Where each of the 256 begins; the 257th is one beyond the NUL of the last. */
  readonly start: Uint32Array;
  /** Of each, and HASH_BASE to the power of its length. */
  readonly hash: Int32Array;
  readonly power: Int32Array;
}

function readTokens(memory: VirtualMemory, indexAt: bigint, tableAt: bigint): Tokens {
  const index = memory.view(indexAt, 512);
  const start = new Uint32Array(257);
  for (let i = 0; i < 256; i++) {
    start[i] = index.getUint16(i * 2, true);
    if (i === 0 || start[i]! > start[i - 1]!) continue;
    const found = `${start[i]} after ${start[i - 1]}`;
    throw new FormatError({ file: 'kallsyms', field: 'kallsyms_token_index', expected: 'growing offsets', found });
  }
  // Of the last token only the start is known.
  const last = memory.string(tableAt + BigInt(start[255]!), MAX_NAME);
  start[256] = start[255]! + last.length + 1;
  const bytes = memory.read(tableAt, start[256]!);
  const hash = new Int32Array(256);
  const power = new Int32Array(256).fill(1);
  for (let i = 0; i < 256; i++) {
    const [from, to] = [start[i]!, start[i + 1]! - 1];
    hash[i] = hashOf(bytes, from, to);
    for (let at = from; at < to; at++) power[i] = Math.imul(power[i]!, HASH_BASE);
  }
  return { bytes, text: Buffer.from(bytes).toString('latin1'), start, hash, power };
}

interface Names {
  /** kallsyms_names as it is, as far as it is there. */
  readonly bytes: Uint8Array;
  /** Where each name's length stands; one more for the end of the last. */
  readonly starts: Uint32Array;
  readonly count: number;
  readonly hole: HoleError | undefined;
}

/** How long the names are is known when the last has been found. */
function readNames(memory: VirtualMemory, address: bigint, count: number): Names {
  const starts = new Uint32Array(count + 1);
  let bytes = new Uint8Array(2 ** 21);
  let filled = 0;
  let hole: HoleError | undefined;
  /** Whether there are so many bytes. */
  const reach = (wanted: number): boolean => {
    while (filled < wanted) {
      const at = address + BigInt(filled);
      const page = new Uint8Array(4096 - Number(at & 0xfffn));
      const missing = memory.space.read(at, page);
      if (missing !== undefined) {
        hole = new HoleError(at, missing.reason, missing.detail);
        return false;
      }
      if (filled + page.length > bytes.length) bytes = grown(bytes);
      bytes.set(page, filled);
      filled += page.length;
    }
    return true;
  };
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 2 > filled && !reach(at + 2)) return { bytes, starts, count: i, hole };
    const low = bytes[at]!;
    const end = low < 0x80 ? at + 1 + low : at + 2 + ((low & 0x7f) | (bytes[at + 1]! << 7));
    if (low === 0) hole = new HoleError(address + BigInt(at), 'damaged', 'a symbol without a name');
    if (low === 0 || (end > filled && !reach(end))) return { bytes, starts, count: i, hole };
    at = end;
    starts[i + 1] = at;
  }
  return { bytes: bytes.slice(0, at), starts, count, hole };
}

function grown(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(bytes.length * 2);
  larger.set(bytes);
  return larger;
}

/** Upper and lower half of a symbol's address. */
function decoder(encoding: Encoding, offsets: DataView, table: bigint, base: bigint | undefined) {
  const from = encoding === 'place-relative' ? table : (base ?? 0n);
  const high = Number(from >> 32n);
  const low = Number(from & 0xffffffffn);
  return (i: SymbolIndex): [number, number] => {
    const signed = offsets.getInt32(i * 4, true);
    if (encoding === 'absolute-percpu' && signed >= 0) return [0, signed];
    let sum = low;
    if (encoding === 'absolute-percpu') sum += -1 - signed;
    else if (encoding === 'base-relative') sum += signed >>> 0;
    else sum += i * 4 + signed;
    return [(high + Math.floor(sum / TWO32)) >>> 0, sum >>> 0];
  };
}
