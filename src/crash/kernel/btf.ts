/**
 * BTF, the types that a kernel carries in its own memory (Documentation/bpf/btf.rst, include/uapi/linux/btf.h).
 *
 *   struct btf_header | types, one after the other | strings
 *
 * A module's types are split: their numbers and string offsets go on where those of the kernel end. Only where each type
 * stands is kept; what it says is read when it is asked for.
 */
import { struct, u8, u16, u32, viewOf } from '../../abi/struct.ts';
import { FormatError } from '../../errors.ts';
import { hashOf, NameIndex } from './names.ts';

export const btf_header = struct('btf_header', 24, {
  magic: u16,
  version: u8,
  flags: u8,
  hdr_len: u32,
  type_off: u32,
  type_len: u32,
  str_off: u32,
  str_len: u32,
});

export const BTF_MAGIC = 0xeb9f;

export const BTF_KIND_INT = 1;
export const BTF_KIND_PTR = 2;
export const BTF_KIND_ARRAY = 3;
export const BTF_KIND_STRUCT = 4;
export const BTF_KIND_UNION = 5;
export const BTF_KIND_ENUM = 6;
export const BTF_KIND_FWD = 7;
export const BTF_KIND_TYPEDEF = 8;
export const BTF_KIND_VOLATILE = 9;
export const BTF_KIND_CONST = 10;
export const BTF_KIND_RESTRICT = 11;
export const BTF_KIND_FUNC = 12;
export const BTF_KIND_FUNC_PROTO = 13;
export const BTF_KIND_VAR = 14;
export const BTF_KIND_DATASEC = 15;
export const BTF_KIND_FLOAT = 16;
export const BTF_KIND_DECL_TAG = 17;
export const BTF_KIND_TYPE_TAG = 18;
export const BTF_KIND_ENUM64 = 19;

/** Bytes behind struct btf_type, by kind: of the type itself, and of each of its vlen elements. */
const TAIL = [0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0] as const;
const ELEMENT = [0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12] as const;
const TYPE_SIZE = 12;
/** Kinds that only name another type or qualify it. */
const WRAPPERS = new Set([BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_TYPE_TAG]);
/** More than any chain of qualifiers or nest of anonymous structs in C that someone wrote. */
const MAX_DEPTH = 32;

/** A member of a struct or union, or a parameter of a function, whose offset is 0. */
export interface Member {
  /** Empty for an anonymous struct or union. */
  readonly name: string;
  readonly type: number;
  /** From the start of the struct that it was asked of, in bits. */
  readonly bitOffset: number;
  /** Bits of a bit field, or 0. */
  readonly bitSize: number;
}

export interface Enumerator {
  readonly name: string;
  readonly value: bigint;
}

export class Btf {
  readonly #base: Btf | undefined;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #strings: number;
  readonly #stringsLength: number;
  /** First string offset and first type number that are this one's own. */
  readonly #firstString: number;
  readonly #firstType: number;
  /** Where the types stand. */
  readonly #offsets: Uint32Array;
  readonly #names: NameIndex;

  /**
   * @param file name for messages
   * @param base the kernel's types, for those of a module
   * @throws FormatError
   */
  constructor(bytes: Uint8Array, file: string, base?: Btf) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.#base = base;
    const fail = (offset: number, field: string, expected: string, found: string): never => {
      throw new FormatError({ file, offset, field, expected, found });
    };
    if (bytes.length < btf_header.size) fail(0, 'btf_header', `${btf_header.size} bytes`, `${bytes.length}`);
    const header = btf_header.read(bytes);
    if (header.magic !== BTF_MAGIC) fail(0, 'magic', `0x${BTF_MAGIC.toString(16)}`, `0x${header.magic.toString(16)}`);
    const types = header.hdr_len + header.type_off;
    const end = types + header.type_len;
    this.#strings = header.hdr_len + header.str_off;
    this.#stringsLength = header.str_len;
    if (end > bytes.length) fail(12, 'type_len', `at most ${bytes.length - types}`, `${header.type_len}`);
    const stringsEnd = this.#strings + header.str_len;
    if (stringsEnd > bytes.length) fail(20, 'str_len', `at most ${bytes.length - this.#strings}`, `${header.str_len}`);
    this.#firstString = base === undefined ? 0 : base.stringsEnd;
    this.#firstType = base?.count ?? 1;

    const offsets = new Uint32Array(Math.floor(header.type_len / TYPE_SIZE));
    let count = 0;
    for (let at = types; at + TYPE_SIZE <= end; ) {
      const info = this.#view.getUint32(at + 4, true);
      const kind = kindOf(info);
      if (kind === 0 || kind >= TAIL.length) fail(at + 4, 'kind', `1 to ${TAIL.length - 1}`, `${kind}`);
      offsets[count++] = at;
      at += TYPE_SIZE + TAIL[kind]! + vlenOf(info) * ELEMENT[kind]!;
      if (at > end) fail(at, 'vlen', 'a type that ends with the others', 'one beyond their end');
    }
    this.#offsets = offsets.slice(0, count);
    this.#names = new NameIndex(count);
    for (let i = 0; i < count; i++) {
      const name = this.#view.getUint32(offsets[i]!, true) - this.#firstString;
      if (name > 0 && name < header.str_len) this.#names.add(this.#hash(name), this.#firstType + i);
    }
  }

  /** One more than the last type's number; types of modules begin here. 0 is void. */
  get count(): number {
    return this.#firstType + this.#offsets.length;
  }

  get stringsEnd(): number {
    return this.#firstString + this.#stringsLength;
  }

  /** Number of the type of this name and one of these kinds, or undefined. */
  find(name: string, ...kinds: readonly number[]): number | undefined {
    for (const id of this.#names.candidates(name)) {
      if (kinds.includes(this.kind(id)) && this.name(id) === name) return id;
    }
    return this.#base?.find(name, ...kinds);
  }

  /** BTF_KIND_*, or 0 for void and for numbers that no type has. */
  kind(id: number): number {
    const at = this.#at(id);
    return at === undefined ? (this.#lower(id)?.kind(id) ?? 0) : kindOf(this.#view.getUint32(at + 4, true));
  }

  name(id: number): string {
    const at = this.#at(id);
    return at === undefined ? (this.#lower(id)?.name(id) ?? '') : this.#string(this.#view.getUint32(at, true));
  }

  /** The type that a pointer, typedef, qualifier, variable or function leads to, or the element of an array. */
  target(id: number): number {
    const at = this.#at(id);
    if (at === undefined) return this.#lower(id)?.target(id) ?? 0;
    return this.#view.getUint32(this.kind(id) === BTF_KIND_ARRAY ? at + TYPE_SIZE : at + 8, true);
  }

  /** Without typedefs and qualifiers. */
  resolve(id: number): number {
    let type = id;
    for (let depth = 0; depth < MAX_DEPTH && WRAPPERS.has(this.kind(type)); depth++) type = this.target(type);
    return type;
  }

  /** Elements of an array. */
  length(id: number): number {
    const at = this.#at(id);
    return at === undefined ? (this.#lower(id)?.length(id) ?? 0) : this.#view.getUint32(at + TYPE_SIZE + 8, true);
  }

  /** sizeof in bytes; undefined for what has none, such as void and structs that are only declared. */
  size(id: number, depth = 0): number | undefined {
    const type = this.resolve(id);
    const at = this.#at(type);
    if (at === undefined) return this.#lower(type)?.size(type, depth);
    switch (this.kind(type)) {
      case BTF_KIND_PTR:
        return 8;
      case BTF_KIND_ARRAY: {
        const element = depth < MAX_DEPTH ? this.size(this.target(type), depth + 1) : undefined;
        return element === undefined ? undefined : element * this.length(type);
      }
      case BTF_KIND_INT:
      case BTF_KIND_STRUCT:
      case BTF_KIND_UNION:
      case BTF_KIND_ENUM:
      case BTF_KIND_ENUM64:
      case BTF_KIND_FLOAT:
        return this.#view.getUint32(at + 8, true);
      default:
        return undefined;
    }
  }

  /** Members of a struct or union as written, and parameters of a function's type. */
  members(id: number): Member[] {
    const at = this.#at(id);
    if (at === undefined) return this.#lower(id)?.members(id) ?? [];
    const info = this.#view.getUint32(at + 4, true);
    const kind = kindOf(info);
    if (kind === BTF_KIND_FUNC_PROTO) {
      return Array.from({ length: vlenOf(info) }, (_, i) => {
        const entry = at + TYPE_SIZE + i * 8;
        const [name, type] = [this.#view.getUint32(entry, true), this.#view.getUint32(entry + 4, true)];
        return { name: this.#string(name), type, bitOffset: 0, bitSize: 0 };
      });
    }
    if (kind !== BTF_KIND_STRUCT && kind !== BTF_KIND_UNION) return [];
    return Array.from({ length: vlenOf(info) }, (_, i) => this.#member(at, info, i));
  }

  /** A member by name, also one of an anonymous struct or union within, or undefined. */
  member(id: number, name: string, depth = 0): Member | undefined {
    const at = this.#at(id);
    if (at === undefined) return this.#lower(id)?.member(id, name, depth);
    const info = this.#view.getUint32(at + 4, true);
    const kind = kindOf(info);
    if ((kind !== BTF_KIND_STRUCT && kind !== BTF_KIND_UNION) || depth > MAX_DEPTH) return undefined;
    for (let i = 0; i < vlenOf(info); i++) {
      const entry = at + TYPE_SIZE + i * 12;
      const nameOffset = this.#view.getUint32(entry, true);
      if (nameOffset !== 0) {
        if (this.#equals(nameOffset, name)) return this.#member(at, info, i);
        continue;
      }
      const within = this.#member(at, info, i);
      const found = this.member(this.resolve(within.type), name, depth + 1);
      if (found !== undefined) return { ...found, bitOffset: found.bitOffset + within.bitOffset };
    }
    return undefined;
  }

  enumerators(id: number): Enumerator[] {
    const at = this.#at(id);
    if (at === undefined) return this.#lower(id)?.enumerators(id) ?? [];
    const info = this.#view.getUint32(at + 4, true);
    const wide = kindOf(info) === BTF_KIND_ENUM64;
    if (!wide && kindOf(info) !== BTF_KIND_ENUM) return [];
    const signed = info >>> 31 === 1;
    return Array.from({ length: vlenOf(info) }, (_, i) => {
      const entry = at + TYPE_SIZE + i * (wide ? 12 : 8);
      const low = this.#view.getUint32(entry + 4, true);
      const bits = wide ? (BigInt(this.#view.getUint32(entry + 8, true)) << 32n) | BigInt(low) : BigInt(low);
      const value = signed ? BigInt.asIntN(wide ? 64 : 32, bits) : bits;
      return { name: this.#string(this.#view.getUint32(entry, true)), value };
    });
  }

  /** Of an integer: whether it is signed, a `_Bool`, and how many bits it has. */
  encoding(id: number): { signed: boolean; bool: boolean; bits: number } {
    const at = this.#at(id);
    if (at === undefined) return this.#lower(id)?.encoding(id) ?? { signed: false, bool: false, bits: 64 };
    const word = this.#view.getUint32(at + TYPE_SIZE, true);
    return { signed: ((word >>> 24) & 1) !== 0, bool: ((word >>> 24) & 4) !== 0, bits: word & 0xff };
  }

  /** A type that is only declared: `struct` or `union`. */
  forward(id: number): 'struct' | 'union' {
    const at = this.#at(id);
    if (at === undefined) return this.#lower(id)?.forward(id) ?? 'struct';
    return this.#view.getUint32(at + 4, true) >>> 31 === 1 ? 'union' : 'struct';
  }

  /** Numbers of this one's own types that have a name, in order. */
  *named(...kinds: readonly number[]): Generator<number> {
    for (let id = this.#firstType; id < this.count; id++) {
      if (kinds.includes(this.kind(id)) && this.#view.getUint32(this.#at(id)!, true) !== 0) yield id;
    }
  }

  #at(id: number): number | undefined {
    return this.#offsets[id - this.#firstType];
  }

  /** The types to which a number belongs that is none of ours. */
  #lower(id: number): Btf | undefined {
    return id < this.#firstType ? this.#base : undefined;
  }

  #member(at: number, info: number, index: number): Member {
    const entry = at + TYPE_SIZE + index * 12;
    const offset = this.#view.getUint32(entry + 8, true);
    // With kind_flag the upper 8 bits are the size of a bit field.
    const packed = info >>> 31 === 1;
    return {
      name: this.#string(this.#view.getUint32(entry, true)),
      type: this.#view.getUint32(entry + 4, true),
      bitOffset: packed ? offset & 0xffffff : offset,
      bitSize: packed ? offset >>> 24 : 0,
    };
  }

  /** Position of a string of ours in the bytes, or -1. */
  #position(offset: number): number {
    const own = offset - this.#firstString;
    return own >= 0 && own < this.#stringsLength ? this.#strings + own : -1;
  }

  #string(offset: number): string {
    const start = this.#position(offset);
    if (start < 0) return offset < this.#firstString ? (this.#base?.string(offset) ?? '') : '';
    let end = start;
    const limit = this.#strings + this.#stringsLength;
    while (end < limit && this.#bytes[end] !== 0) end++;
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset + start, end - start).toString('latin1');
  }

  /** By offset in the strings. */
  string(offset: number): string {
    return this.#string(offset);
  }

  #equals(offset: number, name: string): boolean {
    const start = this.#position(offset);
    if (start < 0) return this.#string(offset) === name;
    for (let i = 0; i < name.length; i++) if (this.#bytes[start + i] !== name.charCodeAt(i)) return false;
    return start + name.length < this.#strings + this.#stringsLength && this.#bytes[start + name.length] === 0;
  }

  #hash(own: number): number {
    const start = this.#strings + own;
    const end = this.#bytes.indexOf(0, start);
    return hashOf(this.#bytes, start, end < 0 ? this.#strings + this.#stringsLength : end);
  }
}

function kindOf(info: number): number {
  return (info >>> 24) & 0x1f;
}

/** 16 bits; the 8 above them are unused, and zero. */
function vlenOf(info: number): number {
  return info & 0xffff;
}
