/** Where members stand, by name: from the kernel's own types, so that no version is asked for. */
import { FormatError } from '../../errors.ts';
import {
  BTF_KIND_ARRAY,
  BTF_KIND_ENUM,
  BTF_KIND_ENUM64,
  BTF_KIND_STRUCT,
  BTF_KIND_TYPEDEF,
  BTF_KIND_UNION,
  BTF_KIND_VAR,
  type Btf,
  type Member,
} from './btf.ts';

const AGGREGATES = [BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_VAR, BTF_KIND_TYPEDEF] as const;

export class Types {
  readonly btf: Btf;
  readonly #known = new Map<string, Member | undefined>();

  constructor(btf: Btf) {
    this.btf = btf;
  }

  /** `has('module', 'mem')`, `has('mm_struct')`; a path goes through nested structs: `thread.sp`. */
  has(type: string, path?: string): boolean {
    return path === undefined ? this.btf.find(type, ...AGGREGATES) !== undefined : this.#find(type, path) !== undefined;
  }

  /** Number of a struct, union, enum or typedef by its name, or undefined. */
  named(type: string): number | undefined {
    return this.btf.find(type, ...AGGREGATES, BTF_KIND_ENUM, BTF_KIND_ENUM64);
  }

  /** The type of a variable that each CPU has of its own, which are the ones that BTF knows. */
  variable(name: string): Member | undefined {
    const id = this.btf.find(name, BTF_KIND_VAR);
    return id === undefined ? undefined : { name, type: this.btf.target(id), bitOffset: 0, bitSize: 0 };
  }

  /** Offset of a member, in bytes, to be added to an address. @throws FormatError where the kernel has no such member */
  offset(type: string, path: string): bigint {
    return BigInt(this.member(type, path).bitOffset >> 3);
  }

  /** @throws FormatError */
  member(type: string, path: string): Member {
    const found = this.#find(type, path);
    if (found !== undefined) return found;
    throw new FormatError({ file: 'BTF', field: `${type}.${path}`, expected: 'a member', found: 'none' });
  }

  /** sizeof(struct TYPE), in bytes. @throws FormatError */
  size(type: string): number {
    const id = this.btf.find(type, ...AGGREGATES);
    const size = id === undefined ? undefined : this.btf.size(id);
    if (size !== undefined) return size;
    throw new FormatError({ file: 'BTF', field: type, expected: 'a struct', found: 'none' });
  }

  /** The value of an enumerator, or undefined where the kernel has no such name. `type` is the enum's name. */
  enumerator(type: string, name: string): number | undefined {
    const id = this.btf.find(type, BTF_KIND_ENUM, BTF_KIND_ENUM64);
    const found = id === undefined ? undefined : this.btf.enumerators(id).find((each) => each.name === name);
    return found === undefined ? undefined : Number(found.value);
  }

  #find(type: string, path: string): Member | undefined {
    const key = `${type}.${path}`;
    if (this.#known.has(key)) return this.#known.get(key);
    const start = this.btf.find(type, ...AGGREGATES);
    let found: Member | undefined =
      start === undefined ? undefined : { name: '', type: start, bitOffset: 0, bitSize: 0 };
    for (const name of path.split('.')) {
      if (found === undefined) break;
      let within = this.btf.resolve(found.type);
      while (this.btf.kind(within) === BTF_KIND_ARRAY) within = this.btf.resolve(this.btf.target(within));
      const next = this.btf.member(within, name);
      found = next === undefined ? undefined : { ...next, bitOffset: next.bitOffset + found.bitOffset };
    }
    this.#known.set(key, found);
    return found;
  }
}
