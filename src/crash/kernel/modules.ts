/**
 * Modules (include/linux/module.h): where their code and data lie, their symbols, unwind entries and what uses them.
 *
 * Memory is `mem[]`, one region for each kind, since 6.4 (ac3b43283923); before it `core_layout` and `init_layout`.
 */
import { Elf64_Sym } from '../../abi/elf.ts';
import { FormatError } from '../../errors.ts';
import { BTF_KIND_ARRAY, BTF_KIND_ENUM } from './btf.ts';
import type { Gaps } from './gaps.ts';
import type { Place } from './kallsyms.ts';
import { list } from './lists.ts';
import type { VirtualMemory } from './memory.ts';
import type { OrcTable } from './orc.ts';
import type { Types } from './types.ts';

export interface Region {
  /** `text`, `data`, `rodata`, `ro_after_init`, `init_text`, ...; `core` and `init` before 6.4 */
  readonly kind: string;
  readonly start: bigint;
  /** In bytes. */
  readonly size: number;
}

export interface Module {
  /** Of its struct module. */
  readonly address: bigint;
  readonly name: string;
  readonly regions: readonly Region[];
  readonly state: 'live' | 'coming' | 'going' | 'unformed';
  /** TAINT_* bits that it set. */
  readonly taints: bigint;
  readonly usedBy: readonly string[];
  readonly symbols: ModuleSymbols | undefined;
  readonly orc: OrcTable | undefined;
}

/** MODULE_STATE_*: include/linux/module.h */
const STATES = ['live', 'coming', 'going', 'unformed'] as const;
/** A region of a module, its symbols, its unwind entries: the largest ones that exist are a tenth of it. */
const MAX_REGION = 2 ** 28;
const MAX_SYMBOLS = 2 ** 19;
const MAX_NAME = 512;
const SHN_UNDEF = 0;

export function readModules(memory: VirtualMemory, types: Types, head: bigint, gaps: Gaps): Module[] {
  const modules: Module[] = [];
  for (const address of gaps.each('list of modules', list(memory, head, types.offset('module', 'list')))) {
    const module = gaps.try(`module at 0x${address.toString(16)}`, () => readModule(memory, types, address, gaps));
    if (module !== undefined) modules.push(module);
  }
  return modules;
}

/** Whether an address lies in one of a module's regions. */
export function contains({ regions }: Pick<Module, 'regions'>, address: bigint): boolean {
  return regions.some(({ start, size }) => address >= start && address < start + BigInt(size));
}

function readModule(memory: VirtualMemory, types: Types, address: bigint, gaps: Gaps): Module {
  const at = (path: string) => address + types.offset('module', path);
  const name = memory.string(at('name'), 64);
  const regions = readRegions(memory, types, address);
  return {
    address,
    name,
    regions,
    state: STATES[memory.u32(at('state'))] ?? 'unformed',
    taints: memory.u64(at('taints')),
    usedBy: gaps.try(`users of module ${name}`, () => readUsers(memory, types, address)) ?? [],
    symbols: gaps.try(`symbols of module ${name}`, () => readSymbols(memory, types, at('kallsyms'))),
    orc: gaps.try(`unwind entries of module ${name}`, () => readOrc(memory, types, address, regions)),
  };
}

function readRegions(memory: VirtualMemory, types: Types, module: bigint): Region[] {
  const region = (kind: string, at: bigint, struct: string): Region => {
    const start = memory.u64(at + types.offset(struct, 'base'));
    const size = memory.u32(at + types.offset(struct, 'size'));
    if (size <= MAX_REGION) return { kind, start, size };
    const expected = `at most ${MAX_REGION} bytes`;
    throw new FormatError({ file: 'module', field: `${struct}.size`, expected, found: `${size}` });
  };
  const found: Region[] = [];
  if (types.has('module', 'mem')) {
    const { btf } = types;
    const array = btf.resolve(types.member('module', 'mem').type);
    const count = btf.kind(array) === BTF_KIND_ARRAY ? btf.length(array) : 0;
    const kinds = btf.find('mod_mem_type', BTF_KIND_ENUM);
    const names = kinds === undefined ? [] : btf.enumerators(kinds);
    for (let i = 0; i < Math.min(count, 32); i++) {
      const name = names.find(({ value }) => value === BigInt(i))?.name ?? `${i}`;
      const at = module + types.offset('module', 'mem') + BigInt(i * types.size('module_memory'));
      found.push(region(name.replace(/^MOD_/, '').toLowerCase(), at, 'module_memory'));
    }
  } else {
    for (const kind of ['core', 'init'] as const) {
      found.push(region(kind, module + types.offset('module', `${kind}_layout`), 'module_layout'));
    }
  }
  return found.filter(({ start, size }) => start !== 0n && size > 0);
}

function readUsers(memory: VirtualMemory, types: Types, module: bigint): string[] {
  if (!types.has('module', 'source_list')) return [];
  const head = module + types.offset('module', 'source_list');
  const names: string[] = [];
  for (const use of list(memory, head, types.offset('module_use', 'source_list'))) {
    const user = memory.u64(use + types.offset('module_use', 'source'));
    names.push(memory.string(user + types.offset('module', 'name'), 64));
  }
  return names;
}

function readOrc(
  memory: VirtualMemory,
  types: Types,
  address: bigint,
  regions: readonly Region[],
): OrcTable | undefined {
  if (!types.has('mod_arch_specific', 'orc_unwind')) return undefined;
  const arch = address + types.offset('module', 'arch');
  const field = (name: string) => arch + types.offset('mod_arch_specific', name);
  const count = memory.u32(field('num_orcs'));
  if (count === 0 || count > MAX_REGION / 4) return undefined;
  const [ips, entries] = [memory.u64(field('orc_unwind_ip')), memory.u64(field('orc_unwind'))];
  return { contains: (pc) => contains({ regions }, pc), ips, entries, count };
}

function readSymbols(memory: VirtualMemory, types: Types, pointer: bigint): ModuleSymbols | undefined {
  const table = memory.u64(pointer);
  if (table === 0n) return undefined;
  const field = (name: string) => table + types.offset('mod_kallsyms', name);
  const count = memory.u32(field('num_symtab'));
  if (count > MAX_SYMBOLS) {
    const expected = `at most ${MAX_SYMBOLS}`;
    throw new FormatError({ file: 'mod_kallsyms', field: 'num_symtab', expected, found: `${count}` });
  }
  const symbols = memory.read(memory.u64(field('symtab')), count * Elf64_Sym.size);
  return new ModuleSymbols(memory, symbols, memory.u64(field('strtab')));
}

/** An ELF symbol table as a module keeps it. */
class ModuleSymbols {
  readonly count: number;
  readonly #memory: VirtualMemory;
  readonly #view: DataView;
  readonly #strings: bigint;
  readonly #names = new Map<number, string>();

  /** @param strings address of the string table */
  constructor(memory: VirtualMemory, symbols: Uint8Array, strings: bigint) {
    this.#memory = memory;
    this.#view = new DataView(symbols.buffer, symbols.byteOffset, symbols.length);
    this.#strings = strings;
    this.count = Math.floor(symbols.length / Elf64_Sym.size);
  }

  address(index: number): bigint {
    return this.#view.getBigUint64(index * Elf64_Sym.size + Elf64_Sym.offsets.st_value, true);
  }

  /** Empty where the name is missing. */
  name(index: number): string {
    let name = this.#names.get(index);
    if (name === undefined) {
      const at = this.#view.getUint32(index * Elf64_Sym.size + Elf64_Sym.offsets.st_name, true);
      try {
        name = this.#memory.string(this.#strings + BigInt(at), MAX_NAME);
      } catch {
        name = '';
      }
      this.#names.set(index, name);
    }
    return name;
  }

  /** Whether the symbol is one of the module's own, with a name. */
  isDefined(index: number): boolean {
    const section = this.#view.getUint16(index * Elf64_Sym.size + Elf64_Sym.offsets.st_shndx, true);
    return section !== SHN_UNDEF && !/^(?:$|\.L|L0|\$[axdt](?:$|\.))/.test(this.name(index));
  }

  *all(name: string): Generator<bigint> {
    for (let i = 1; i < this.count; i++) if (this.isDefined(i) && this.name(i) === name) yield this.address(i);
  }

  /** The symbol that an address lies in, by kernel/module/kallsyms.c. @param end of the region that it lies in */
  lookup(address: bigint, end: bigint): Place | undefined {
    let [best, from, to] = [0, 0n, end];
    for (let i = 1; i < this.count; i++) {
      const at = this.address(i);
      if (at <= address ? at <= from : at >= to) continue;
      if (!this.isDefined(i)) continue;
      if (at <= address) [best, from] = [i, at];
      else to = at;
    }
    return best === 0 ? undefined : { name: this.name(best), offset: Number(address - from), size: Number(to - from) };
  }
}
