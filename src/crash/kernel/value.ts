/** Memory read as a type: for people as crash prints it, for programs as JSON. */
import { textOf } from '../../abi/text.ts';
import {
  BTF_KIND_ARRAY,
  BTF_KIND_ENUM,
  BTF_KIND_ENUM64,
  BTF_KIND_INT,
  BTF_KIND_PTR,
  BTF_KIND_STRUCT,
  BTF_KIND_UNION,
  type Btf,
  type Member,
} from './btf.ts';
import { typeName } from './ctype.ts';
import type { VirtualMemory } from './memory.ts';

/** Pointers are hexadecimal texts, whole numbers beyond 2^53 decimal ones. */
export type Value = number | boolean | string | null | readonly Value[] | { readonly [member: string]: Value };

/** What is printed of one thing, at most: members and elements. */
const MAX_PARTS = 65536;
const MAX_DEPTH = 32;

export class ValueReader {
  readonly #btf: Btf;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #parts = 0;

  /** @param bytes of the whole thing */
  constructor(btf: Btf, bytes: Uint8Array) {
    this.#btf = btf;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** @param bitOffset of the value within the bytes. @param bitSize of a bit field, or 0 */
  json(type: number, bitOffset = 0, bitSize = 0, depth = 0): Value {
    const btf = this.#btf;
    const id = btf.resolve(type);
    const at = Math.floor(bitOffset / 8);
    if (++this.#parts > MAX_PARTS || depth > MAX_DEPTH) return null;
    switch (btf.kind(id)) {
      case BTF_KIND_PTR:
        return `0x${this.#bits(bitOffset, 64).toString(16)}`;
      case BTF_KIND_STRUCT:
      case BTF_KIND_UNION: {
        const members: Record<string, Value> = {};
        for (const member of btf.members(id)) {
          const value = this.json(member.type, bitOffset + member.bitOffset, member.bitSize, depth + 1);
          if (member.name !== '') members[member.name] = value;
          else if (value !== null && typeof value === 'object') Object.assign(members, value);
        }
        return members;
      }
      case BTF_KIND_ARRAY: {
        const text = this.#text(id, at);
        if (text !== undefined) return text;
        const size = btf.size(btf.target(id)) ?? 0;
        const values: Value[] = [];
        for (let i = 0; i < btf.length(id) && this.#parts <= MAX_PARTS && size > 0; i++) {
          values.push(this.json(btf.target(id), bitOffset + i * size * 8, 0, depth + 1));
        }
        return values;
      }
      case BTF_KIND_ENUM:
      case BTF_KIND_ENUM64: {
        const bits = bitSize || (btf.size(id) ?? 4) * 8;
        const value = this.#bits(bitOffset, bits);
        const found = btf.enumerators(id).find((each) => BigInt.asUintN(bits, each.value) === value);
        return found?.name ?? exact(value);
      }
      case BTF_KIND_INT: {
        const { signed, bool } = btf.encoding(id);
        const bits = bitSize || (btf.size(id) ?? 4) * 8;
        const value = this.#bits(bitOffset, bits);
        if (bool) return value !== 0n;
        return exact(signed ? BigInt.asIntN(bits, value) : value);
      }
      default:
        return null;
    }
  }

  /** An array of `char` as text, where it is one up to its first NUL. */
  #text(array: number, at: number): string | undefined {
    const element = this.#btf.resolve(this.#btf.target(array));
    if (this.#btf.kind(element) !== BTF_KIND_INT || typeName(this.#btf, element) !== 'char') return undefined;
    const bytes = this.#bytes.subarray(at, at + this.#btf.length(array));
    const end = bytes.indexOf(0);
    return textOf(end < 0 ? bytes : bytes.subarray(0, end));
  }

  #bits(bitOffset: number, bits: number): bigint {
    let value = 0n;
    const first = Math.floor(bitOffset / 8);
    const last = Math.min(Math.floor((bitOffset + bits - 1) / 8), this.#bytes.length - 1);
    for (let at = last; at >= first; at--) value = (value << 8n) | BigInt(this.#view.getUint8(at));
    return BigInt.asUintN(bits, value >> BigInt(bitOffset % 8));
  }
}

/** What stands at an address, read as a type, or as that member of the struct there. @throws HoleError */
export function readValue(
  memory: VirtualMemory,
  btf: Btf,
  { type, bitOffset, bitSize }: Member,
  address: bigint,
): Value {
  const length = bitSize === 0 ? (btf.size(type) ?? 0) : Math.ceil(((bitOffset & 7) + bitSize) / 8);
  const bytes = memory.read(address + BigInt(bitOffset >> 3), length);
  return new ValueReader(btf, bytes).json(type, bitOffset & 7, bitSize);
}

function exact(value: bigint): Value {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : `${value}`;
}

/** Lines as crash prints a value: `name = value`, nested structs in braces. @param symbolOf gives `name+0x10` of an address */
export function valueLines(value: Value, symbolOf: (address: bigint) => string | undefined, name = ''): string[] {
  const lead = name === '' ? '' : `${name} = `;
  const inner = (parts: readonly (readonly [string, Value])[], open: string, close: string) => [
    `${lead}${open}`,
    ...parts.flatMap(([key, part]) => valueLines(part, symbolOf, key).map((line) => `  ${line}`)),
    close,
  ];
  if (Array.isArray(value)) {
    if (value.every((each) => typeof each !== 'object')) {
      return [`${lead}{${value.map((each) => scalar(each, symbolOf)).join(', ')}}`];
    }
    return inner(
      value.map((each, i) => [`[${i}]`, each]),
      '{',
      '}',
    );
  }
  if (value !== null && typeof value === 'object') return inner(Object.entries(value), '{', '}');
  return [`${lead}${scalar(value as Value, symbolOf)}`];
}

function scalar(value: Value, symbolOf: (address: bigint) => string | undefined): string {
  if (typeof value !== 'string') return value === null ? '?' : `${value}`;
  if (!/^0x[0-9a-f]+$/.test(value)) return /^-?\d+$/.test(value) ? value : JSON.stringify(value);
  const symbol = symbolOf(BigInt(value));
  return symbol === undefined ? value : `${value} <${symbol}>`;
}
