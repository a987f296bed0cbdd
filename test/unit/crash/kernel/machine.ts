/** A machine's memory that a test writes by virtual address, with the page tables of x86-64 that lead to it. */
import type { Note } from '../../../../src/abi/elfnote.ts';
import { VirtualMemory } from '../../../../src/crash/kernel/memory.ts';
import { AddressSpace, PhysicalMemory } from '../../../../src/crash/memory.ts';
import { openRaw } from '../../../../src/crash/raw.ts';
import type { PageSource } from '../../../../src/crash/source.ts';
import { memoryReader } from '../dumps.ts';

const PAGE = 4096;
const PRESENT = 1n;

export class Machine {
  readonly #pages: Uint8Array[] = [];
  readonly #levels: 4 | 5;
  readonly #root: number;

  constructor(levels: 4 | 5 = 4) {
    this.#levels = levels;
    this.#root = this.#newPage();
  }

  write(virtual: bigint, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = BigInt.asUintN(64, virtual + BigInt(done));
      const within = Number(at & 0xfffn);
      const part = bytes.subarray(done, done + PAGE - within);
      this.#pages[this.#page(at)]!.set(part, within);
      done += part.length;
    }
  }

  u64(virtual: bigint, ...values: bigint[]): void {
    this.write(virtual, new Uint8Array(BigUint64Array.from(values).buffer));
  }

  u32(virtual: bigint, ...values: number[]): void {
    this.write(virtual, new Uint8Array(Uint32Array.from(values).buffer));
  }

  text(virtual: bigint, text: string): void {
    this.write(virtual, Buffer.from(`${text}\0`, 'latin1'));
  }

  /** Takes the page that an address lies in out of the dump. */
  drop(virtual: bigint): void {
    this.#dropped.add(this.#page(virtual));
  }

  readonly #dropped = new Set<number>();

  /** What was written until now. */
  source(notes: readonly Note[] = []): PageSource {
    const kept = [...this.#pages.keys()].filter((page) => !this.#dropped.has(page));
    const bytes = Buffer.concat(kept.map((page) => this.#pages[page]!));
    const ranges = kept.map((page) => ({ start: page * PAGE, end: (page + 1) * PAGE }));
    return { ...openRaw(memoryReader(bytes), ranges), notes };
  }

  memory(): VirtualMemory {
    const tables = { root: this.#root * PAGE, levels: this.#levels };
    return new VirtualMemory(new AddressSpace(new PhysicalMemory(this.source()), tables));
  }

  #newPage(): number {
    return this.#pages.push(new Uint8Array(PAGE)) - 1;
  }

  /** The page of an address, made with the tables that lead there if it is new. */
  #page(virtual: bigint): number {
    let page = this.#root;
    for (let level = this.#levels - 1; level >= 0; level--) {
      const view = new DataView(this.#pages[page]!.buffer);
      const slot = Number((virtual >> BigInt(12 + 9 * level)) & 511n) * 8;
      let entry = view.getBigUint64(slot, true);
      if (entry === 0n) {
        entry = BigInt(this.#newPage() * PAGE) | PRESENT;
        view.setBigUint64(slot, entry, true);
      }
      page = Number(entry >> 12n);
    }
    return page;
  }
}
