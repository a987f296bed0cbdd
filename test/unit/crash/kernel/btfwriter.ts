/** Writes BTF, for tests: include/uapi/linux/btf.h */
import { BTF_MAGIC, btf_header } from '../../../../src/crash/kernel/btf.ts';

export interface WrittenMember {
  readonly name: string;
  readonly type: number;
  readonly bitOffset: number;
  readonly bitSize?: number;
}

export class BtfWriter {
  readonly #types: number[] = [];
  readonly #strings: number[] = [0];
  #next: number;
  readonly #firstString: number;

  /** @param base number of types and bytes of strings that these go on from */
  constructor(base: { count: number; stringsEnd: number } = { count: 1, stringsEnd: 0 }) {
    this.#next = base.count;
    this.#firstString = base.stringsEnd;
  }

  int(name: string, size: number, signed = false): number {
    return this.#add(name, 1, 0, false, size, [((signed ? 1 : 0) << 24) | (size * 8)]);
  }

  /** Pointers, typedefs and qualifiers. */
  reference(kind: number, target: number, name = ''): number {
    return this.#add(name, kind, 0, false, target, []);
  }

  array(element: number, length: number): number {
    return this.#add('', 3, 0, false, 0, [element, element, length]);
  }

  aggregate(kind: 4 | 5, name: string, size: number, members: readonly WrittenMember[]): number {
    const packed = members.some(({ bitSize }) => bitSize !== undefined);
    const words = members.flatMap((each) => [
      this.#string(each.name),
      each.type,
      packed ? ((each.bitSize ?? 0) << 24) | each.bitOffset : each.bitOffset,
    ]);
    return this.#add(name, kind, members.length, packed, size, words);
  }

  enumeration(name: string, values: readonly (readonly [string, number])[]): number {
    const words = values.flatMap(([each, value]) => [this.#string(each), value]);
    return this.#add(name, 6, values.length, true, 4, words);
  }

  /** The type of a function. A parameter of type 0 stands for any more. */
  prototype(result: number, parameters: readonly (readonly [string, number])[]): number {
    const words = parameters.flatMap(([name, type]) => [this.#string(name), type]);
    return this.#add('', 13, parameters.length, false, result, words);
  }

  bytes(): Uint8Array {
    const [type_len, str_len] = [this.#types.length * 4, this.#strings.length];
    const hdr_len = btf_header.size;
    const header = btf_header.write({ magic: BTF_MAGIC, version: 1, hdr_len, type_len, str_off: type_len, str_len });
    return Buffer.concat([header, new Uint8Array(Uint32Array.from(this.#types).buffer), Buffer.from(this.#strings)]);
  }

  #add(name: string, kind: number, vlen: number, flag: boolean, sizeOrType: number, words: readonly number[]): number {
    this.#types.push(this.#string(name), (((flag ? 1 : 0) << 31) | (kind << 24) | vlen) >>> 0, sizeOrType, ...words);
    return this.#next++;
  }

  #string(text: string): number {
    if (text === '') return 0;
    const at = this.#firstString + this.#strings.length;
    this.#strings.push(...Buffer.from(`${text}\0`, 'latin1'));
    return at;
  }
}
