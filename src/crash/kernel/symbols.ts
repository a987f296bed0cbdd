/** Names of addresses and addresses of names, of the kernel and of its modules. */
import type { Kallsyms } from './kallsyms.ts';
import { contains, type Module } from './modules.ts';
import type { Frame } from './unwind.ts';

export interface SymbolPlace {
  readonly name: string;
  /** Bytes from where the symbol begins, and up to where the next begins. */
  readonly offset: number;
  readonly size: number;
  readonly module?: string;
}

export class Symbols {
  readonly kernel: Kallsyms;
  readonly #modules: () => readonly Module[];
  readonly #image: readonly [bigint, bigint];
  readonly #text: readonly (readonly [bigint, bigint])[];

  /** @param modules asked for when an address is none of the kernel's own */
  constructor(kernel: Kallsyms, modules: () => readonly Module[]) {
    this.kernel = kernel;
    this.#modules = modules;
    this.#image = [kernel.find('_text') ?? kernel.find('_stext') ?? 0n, kernel.find('_end') ?? 0n];
    const range = (start: string, end: string) => {
      const [from, to] = [kernel.find(start), kernel.find(end)];
      return from === undefined || to === undefined ? [] : [[from, to] as const];
    };
    this.#text = [...range('_stext', '_etext'), ...range('_sinittext', '_einittext')];
  }

  /** Address of the first symbol of a name; the kernel's own before those of modules. */
  find(name: string): bigint | undefined {
    for (const address of this.all(name)) return address;
    return undefined;
  }

  *all(name: string): Generator<bigint> {
    for (const i of this.kernel.all(name)) yield this.kernel.address(i);
    for (const { symbols } of this.#modules()) yield* symbols?.all(name) ?? [];
  }

  lookup(address: bigint): SymbolPlace | undefined {
    if (this.#isImage(address)) {
      const found = this.kernel.lookup(address);
      return found === undefined ? undefined : { name: found.name, offset: found.offset, size: found.size };
    }
    const module = this.#modules().find((each) => contains(each, address));
    const region = module?.regions.find(({ start, size }) => address >= start && address < start + BigInt(size));
    if (module === undefined || region === undefined) return undefined;
    const place = module.symbols?.lookup(address, region.start + BigInt(region.size));
    const offset = Number(address - region.start);
    return { ...(place ?? { name: '', offset, size: region.size }), module: module.name };
  }

  /** Of a frame of a stack. Where a call returns to may be the next function already: the call itself is looked up. */
  ofFrame({ pc, interrupted }: Frame): SymbolPlace | undefined {
    if (interrupted) return this.lookup(pc);
    const place = this.lookup(pc - 1n);
    return place === undefined ? undefined : { ...place, offset: place.offset + 1 };
  }

  /** Whether code may run there: the kernel's text, its text of boot time, or a module. */
  isText(address: bigint): boolean {
    if (this.isKernelText(address)) return true;
    return this.#modules().some((module) => contains(module, address));
  }

  isKernelText(address: bigint): boolean {
    return this.#text.some(([start, end]) => address >= start && address < end);
  }

  #isImage(address: bigint): boolean {
    return address >= this.#image[0] && address < this.#image[1];
  }
}

/** `name+0x1f/0x30 [module]`, as the kernel prints it (%pS); without a name only the module. */
export function placeText({ name, offset, size, module }: SymbolPlace): string {
  const within = `0x${offset.toString(16)}/0x${size.toString(16)}`;
  const text = name === '' ? within : `${name}+${within}`;
  return module === undefined ? text : `${text} [${module}]`;
}
