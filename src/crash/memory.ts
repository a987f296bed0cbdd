/**
 * Memory of a dump by physical and by virtual address.
 *
 * A virtual address goes through the page tables of x86-64, with 4 or 5 levels (Intel SDM Vol. 3, 4.5). Every read answers with
 * the Hole where it stopped, or undefined; nothing here throws because of what a dump holds.
 */
import { PAGE_SIZE } from '../mem/address.ts';
import type { Hole, PageSource } from './source.ts';

const CACHE_PAGES = 4096;
const TLB_ENTRIES = 65536;

/** Slots that are allocated together. */
const CHUNK_PAGES = 64;

/** A page source with its last pages at hand: 16 MB at most, whatever the size of the dump, and little of it for a few pages. */
export class PhysicalMemory {
  readonly source: PageSource;
  readonly #chunks = new Array<DataView | undefined>(CACHE_PAGES / CHUNK_PAGES).fill(undefined);
  /** Page number that each slot holds, or -1. A page has one slot that it can be in. */
  readonly #tags = new Float64Array(CACHE_PAGES).fill(-1);
  readonly #pages = new Array<Uint8Array | undefined>(CACHE_PAGES).fill(undefined);

  constructor(source: PageSource) {
    this.source = source;
  }

  /** A whole page, valid until the next call of anything here. */
  page(pfn: number): Uint8Array | Hole {
    const slot = pfn % CACHE_PAGES;
    if (this.#tags[slot] === pfn) return this.#pages[slot]!;
    const page = this.#pages[slot] ?? this.#place(slot);
    this.#tags[slot] = -1;
    const hole = this.source.readPhysical(pfn * PAGE_SIZE, page);
    if (hole !== undefined) return hole;
    this.#tags[slot] = pfn;
    return page;
  }

  #place(slot: number): Uint8Array {
    const chunk = Math.floor(slot / CHUNK_PAGES);
    this.#chunks[chunk] ??= new DataView(new ArrayBuffer(CHUNK_PAGES * PAGE_SIZE));
    const page = new Uint8Array(this.#chunks[chunk].buffer, (slot % CHUNK_PAGES) * PAGE_SIZE, PAGE_SIZE);
    this.#pages[slot] = page;
    return page;
  }

  /** Fills `into`; what is not a whole page at the ends of RAM is read too. */
  read(address: number, into: Uint8Array): Hole | undefined {
    for (let done = 0; done < into.length; ) {
      const at = address + done;
      const within = at % PAGE_SIZE;
      const length = Math.min(PAGE_SIZE - within, into.length - done);
      const page = this.page((at - within) / PAGE_SIZE);
      if (page instanceof Uint8Array) into.set(page.subarray(within, within + length), done);
      else {
        const hole = this.source.readPhysical(at, into.subarray(done, done + length));
        if (hole !== undefined) return hole;
      }
      done += length;
    }
    return undefined;
  }

  /** 64 bits at a multiple of 8, or the hole. */
  u64(address: number): bigint | Hole {
    const pfn = Math.floor(address / PAGE_SIZE);
    const page = this.page(pfn);
    if (!(page instanceof Uint8Array)) return page;
    const slot = pfn % CACHE_PAGES;
    const chunk = this.#chunks[Math.floor(slot / CHUNK_PAGES)]!;
    return chunk.getBigUint64((slot % CHUNK_PAGES) * PAGE_SIZE + (address % PAGE_SIZE), true);
  }
}

/** Page table entries: arch/x86/include/asm/pgtable_types.h */
const PRESENT = 1n;
const PSE = 1n << 7n;
/** _PAGE_PROTNONE: in no hardware's sense present, and still a page of the process. */
const PROTNONE = 1n << 8n;
const ADDRESS_BITS = 0x000f_ffff_ffff_f000n;
const LEVELS_4 = [39n, 30n, 21n, 12n] as const;
const LEVELS_5 = [48n, ...LEVELS_4] as const;

/** Where a virtual address leads: the physical address, and how many bytes from there on are mapped by the same entry. */
export interface Translation {
  readonly physical: number;
  readonly length: number;
  /** Of the page that the entry maps, in bytes: 4 KB, 2 MB or 1 GB. */
  readonly pageSize: number;
}

export interface PageTables {
  /** Physical address of the top table. */
  readonly root: number;
  readonly levels: 4 | 5;
  /** Bits of entries that are no address: AMD's SME mask (`NUMBER(sme_mask)`). */
  readonly encryption?: bigint;
}

export function isHole(value: object): value is Hole {
  return 'reason' in value;
}

export class AddressSpace {
  readonly memory: PhysicalMemory;
  readonly tables: PageTables;
  readonly #shifts: readonly bigint[];
  readonly #mask: bigint;
  /** Physical address of virtual pages, by virtual address / 4096 (52 bits: exact). */
  readonly #tlb = new Map<number, number>();

  constructor(memory: PhysicalMemory, tables: PageTables) {
    this.memory = memory;
    this.tables = tables;
    this.#shifts = tables.levels === 5 ? LEVELS_5 : LEVELS_4;
    this.#mask = ADDRESS_BITS & ~(tables.encryption ?? 0n);
  }

  /** @param virtual taken modulo 2^64 */
  translate(virtual: bigint): Translation | Hole {
    const address = BigInt.asUintN(64, virtual);
    let table = this.tables.root;
    for (const shift of this.#shifts) {
      const entry = this.memory.u64(table + Number((address >> shift) & 511n) * 8);
      if (typeof entry !== 'bigint') return entry;
      const isLeaf = shift === 12n || ((shift === 21n || shift === 30n) && (entry & PSE) !== 0n);
      if ((entry & PRESENT) === 0n && !(isLeaf && (entry & PROTNONE) !== 0n)) {
        return { reason: 'unmapped', address: table };
      }
      if (isLeaf) {
        const within = address & ((1n << shift) - 1n);
        const physical = Number((entry & this.#mask & ~((1n << shift) - 1n)) | within);
        return { physical, length: Number((1n << shift) - within), pageSize: Number(1n << shift) };
      }
      table = Number(entry & this.#mask);
    }
    throw new Error('the last level is a leaf');
  }

  /** Fills `into` with memory from a virtual address on. In a Hole `address` is the physical one of where it stopped. */
  read(virtual: bigint, into: Uint8Array): Hole | undefined {
    for (let done = 0; done < into.length; ) {
      const at = BigInt.asUintN(64, virtual + BigInt(done));
      const physical = this.physical(at);
      if (typeof physical !== 'number') return physical;
      const length = Math.min(PAGE_SIZE - (physical % PAGE_SIZE), into.length - done);
      const hole = this.memory.read(physical, into.subarray(done, done + length));
      if (hole !== undefined) return hole;
      done += length;
    }
    return undefined;
  }

  /** 64 bits at any address. */
  u64(virtual: bigint): bigint | Hole {
    const physical = this.physical(BigInt.asUintN(64, virtual));
    if (typeof physical !== 'number') return physical;
    if (physical % 8 === 0) return this.memory.u64(physical);
    const bytes = new Uint8Array(8);
    return this.read(virtual, bytes) ?? new DataView(bytes.buffer).getBigUint64(0, true);
  }

  /** Physical address of a virtual one, by way of the last translations. */
  physical(virtual: bigint): number | Hole {
    const page = Number(virtual >> 12n);
    const within = Number(virtual & 0xfffn);
    const known = this.#tlb.get(page);
    if (known !== undefined) return known + within;
    const found = this.translate(virtual);
    if (isHole(found)) return found;
    if (this.#tlb.size >= TLB_ENTRIES) this.#tlb.clear();
    this.#tlb.set(page, found.physical - within);
    return found.physical;
  }
}
