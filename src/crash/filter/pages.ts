/**
 * Which pages a filtered dump is to hold: makedumpfile's choice (__exclude_unnecessary_pages() of makedumpfile.c), page by page from
 * the kernel's struct page array, whose layout VMCOREINFO gives.
 *
 * Of a compound page and of a free block the first struct page decides for all. A page whose struct page cannot be read is kept.
 */
import { UnsupportedError } from '../../errors.ts';
import { PAGE_SIZE } from '../../mem/address.ts';
import { kernelSpace } from '../kernelspace.ts';
import { type AddressSpace, isHole } from '../memory.ts';
import type { PageSource } from '../source.ts';
import type { Vmcoreinfo } from '../vmcoreinfo.ts';

/** Bits of the dump level: what is left out. makedumpfile(8), -d */
export const DL_EXCLUDE_ZERO = 1;
export const DL_EXCLUDE_CACHE = 2;
/** Cache pages with private data, and those without. */
export const DL_EXCLUDE_CACHE_PRI = 4;
export const DL_EXCLUDE_USER_DATA = 8;
export const DL_EXCLUDE_FREE = 16;
export const DL_ALL = 31;

/** How many pages were left out, by why. */
export interface ExcludedPages {
  cache: number;
  cachePrivate: number;
  user: number;
  free: number;
  /** PG_hwpoison: reading them is an error of the machine. */
  hwpoison: number;
  /** Given back to the hypervisor. */
  offline: number;
}

/** struct pages that are read at a time. */
const BATCH = 4096;
/** include/linux/mmzone.h: flags in the low bits of section_mem_map, which is a pointer to an array of struct page. */
const SECTION_MARKED_PRESENT = 1n;
const SECTION_MAP_MASK = ~0x3fn;
/** include/linux/page-flags.h: FOLIO_MAPPING_ANON */
const PAGE_MAPPING_ANON = 1;

/**
 * Clears the bits of pages that `level` leaves out, and whatever the level those that must not or cannot be read.
 *
 * @param bits a bit for each page, lowest first
 * @throws UnsupportedError where the kernel does not say what must be known of struct page
 */
export function excludePages(source: PageSource, info: Vmcoreinfo, level: number, bits: Uint8Array): ExcludedPages {
  const excluded: ExcludedPages = { cache: 0, cachePrivate: 0, user: 0, free: 0, hwpoison: 0, offline: 0 };
  const space = kernelSpace(source, info);
  const layout = new StructPage(source, info);
  const judge = new Judge(layout, level, bits, excluded);
  const sections = new Sections(space, info, source);
  const buffer = new Uint8Array(BATCH * layout.size);
  for (const { start, end } of source.ranges) {
    const last = Math.min(Math.floor(end / PAGE_SIZE), bits.length * 8);
    for (let pfn = Math.ceil(start / PAGE_SIZE); pfn < last; ) {
      const count = Math.min(last, pfn - (pfn % BATCH) + BATCH) - pfn;
      const array = sections.arrayOf(pfn);
      if (array !== undefined) {
        const bytes = buffer.subarray(0, count * layout.size);
        readStructPages(space, array + BigInt(pfn * layout.size), bytes);
        judge.pages(pfn, count, bytes);
      }
      pfn += count;
    }
  }
  return excluded;
}

/** What cannot be read becomes struct pages that look like the tails of compound ones, which decide nothing. */
function readStructPages(space: AddressSpace, virtual: bigint, into: Uint8Array): void {
  for (let done = 0; done < into.length; ) {
    const found = space.translate(virtual + BigInt(done));
    const length = isHole(found) ? PAGE_SIZE - Number((virtual + BigInt(done)) & 0xfffn) : found.length;
    const part = into.subarray(done, done + length);
    if (isHole(found)) part.fill(0xff);
    else if (space.memory.source.readPhysical(found.physical, part) !== undefined)
      readPages(space, found.physical, part);
    done += part.length;
  }
}

function readPages({ memory }: AddressSpace, physical: number, into: Uint8Array): void {
  for (let at = 0; at < into.length; ) {
    const part = into.subarray(at, at + PAGE_SIZE - ((physical + at) % PAGE_SIZE));
    if (memory.source.readPhysical(physical + at, part) !== undefined) part.fill(0xff);
    at += part.length;
  }
}

/** SPARSEMEM_EXTREME: the array of struct page of each section (include/linux/mmzone.h, mm/sparse.c). */
class Sections {
  readonly #space: AddressSpace;
  readonly #roots: bigint;
  readonly #entrySize: number;
  readonly #mapOffset: number;
  readonly #perSection: number;
  readonly #source: PageSource;
  readonly #known = new Map<number, bigint | undefined>();

  constructor(space: AddressSpace, info: Vmcoreinfo, source: PageSource) {
    this.#space = space;
    this.#source = source;
    const need = wanted(source);
    const entrySize = need('SIZE(mem_section)', info.size('mem_section'));
    this.#entrySize = believable(source, 'SIZE(mem_section)', entrySize, 8, PAGE_SIZE);
    const mapOffset = need('OFFSET(mem_section.section_mem_map)', info.offset('mem_section.section_mem_map'));
    this.#mapOffset = believable(source, 'OFFSET(mem_section.section_mem_map)', mapOffset, 0, entrySize - 8);
    // The default is that of x86-64 kernels before they said it (5.8): arch/x86/include/asm/sparsemem.h
    const bits = believable(source, 'SECTION_SIZE_BITS', info.number('SECTION_SIZE_BITS') ?? 27, 24, 40);
    this.#perSection = 2 ** (bits - 12);
    const symbol = need('SYMBOL(mem_section)', info.symbol('mem_section'));
    this.#roots = symbol;
    if (this.#any()) return;
    // Either the table or the variable that points to it.
    const pointed = space.u64(symbol);
    this.#roots = typeof pointed === 'bigint' ? pointed : 0n;
    this.#known.clear();
    if (this.#any()) return;
    throw unknown(source, 'its table of memory sections cannot be read');
  }

  /** Where the struct page of page 0 would be, for the section of this page; undefined where there is none. */
  arrayOf(pfn: number): bigint | undefined {
    const section = Math.floor(pfn / this.#perSection);
    if (!this.#known.has(section)) this.#known.set(section, this.#look(section));
    return this.#known.get(section);
  }

  #any(): boolean {
    return this.#source.ranges.some(({ start }) => this.arrayOf(Math.floor(start / PAGE_SIZE)) !== undefined);
  }

  #look(section: number): bigint | undefined {
    const perRoot = Math.floor(PAGE_SIZE / this.#entrySize);
    const root = this.#space.u64(this.#roots + BigInt(Math.floor(section / perRoot) * 8));
    if (typeof root !== 'bigint' || !isKernelAddress(root)) return undefined;
    const map = this.#space.u64(root + BigInt((section % perRoot) * this.#entrySize + this.#mapOffset));
    if (typeof map !== 'bigint' || (map & SECTION_MARKED_PRESENT) === 0n) return undefined;
    const array = map & SECTION_MAP_MASK;
    // It is encoded less the section's first page, so the sum with page numbers is what must be an address.
    return BigInt.asUintN(64, array);
  }
}

function isKernelAddress(address: bigint): boolean {
  return address >> 56n === 0xffn;
}

/** Where things are in struct page, and the numbers by which kinds of pages are told. -1 for what this kernel has not. */
class StructPage {
  readonly size: number;
  readonly flags: number;
  readonly mapping: number;
  readonly mapcount: number;
  readonly private: number;
  readonly compoundHead: number;
  readonly compoundOrder: number;
  readonly compoundDtor: number;
  readonly lru: number;
  readonly privateBit: number;
  readonly swapcache: number;
  readonly swapbacked: number;
  readonly slab: number;
  readonly hwpoison: number;
  readonly hugetlb: number;
  readonly headMask: number;
  readonly hugetlbDtor: number;
  readonly buddyMapcount: number | undefined;
  readonly slabMapcount: number | undefined;
  readonly offlineMapcount: number | undefined;
  readonly hugetlbMapcount: number | undefined;
  readonly unacceptedMapcount: number | undefined;
  /** MAX_ORDER + 1: how many orders of free blocks there are. */
  readonly orders: number;

  constructor(source: PageSource, info: Vmcoreinfo) {
    const need = wanted(source);
    const place = (member: string) => {
      const found = info.offset(`page.${member}`);
      return found === undefined ? undefined : believable(source, `OFFSET(page.${member})`, found, 0, this.size - 8);
    };
    const offset = (member: string) => place(member) ?? -1;
    const bit = (name: string) => {
      const found = info.number(name);
      return found === undefined ? -1 : believable(source, `NUMBER(${name})`, found, 0, 63);
    };
    const needBit = (name: string) => {
      need(`NUMBER(${name})`, info.number(name));
      return bit(name);
    };
    /** _mapcount is compared as 32 bits. */
    const mapcount = (name: string) => {
      const value = info.number(`PAGE_${name}_MAPCOUNT_VALUE`);
      return value === undefined ? undefined : value | 0;
    };
    this.size = believable(source, 'SIZE(page)', need('SIZE(page)', info.size('page')), 32, 512);
    this.flags = need('OFFSET(page.flags)', place('flags'));
    this.mapping = need('OFFSET(page.mapping)', place('mapping'));
    this.mapcount = need('OFFSET(page._mapcount)', place('_mapcount'));
    this.private = need('OFFSET(page.private)', place('private'));
    // Renamed in 7.1, with the same lowest bit.
    const head = place('compound_head') ?? place('compound_info');
    this.compoundHead = need('OFFSET(page.compound_head)', head);
    this.compoundOrder = offset('compound_order');
    this.compoundDtor = offset('compound_dtor');
    this.lru = needBit('PG_lru');
    this.privateBit = needBit('PG_private');
    this.swapcache = needBit('PG_swapcache');
    this.swapbacked = bit('PG_swapbacked');
    this.slab = bit('PG_slab');
    this.hwpoison = bit('PG_hwpoison');
    this.hugetlb = bit('PG_hugetlb');
    this.headMask = info.number('PG_head_mask') ?? 0;
    this.hugetlbDtor = info.number('HUGETLB_PAGE_DTOR') ?? -1;
    this.buddyMapcount = need('NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)', mapcount('BUDDY'));
    this.slabMapcount = mapcount('SLAB');
    this.offlineMapcount = mapcount('OFFLINE');
    this.hugetlbMapcount = mapcount('HUGETLB');
    this.unacceptedMapcount = mapcount('UNACCEPTED');
    const orders = need('LENGTH(zone.free_area)', info.length('zone.free_area'));
    this.orders = believable(source, 'LENGTH(zone.free_area)', orders, 1, 32);
  }
}

function wanted(source: PageSource) {
  return <T>(name: string, value: T | undefined): T => {
    if (value !== undefined) return value;
    throw unknown(source, `its VMCOREINFO has no ${name}`);
  };
}

/** What decides sizes of buffers and tables here is not believed whatever it is. */
function believable(source: PageSource, name: string, value: number, min: number, max: number): number {
  if (value >= min && value <= max) return value;
  throw unknown(source, `${name} of its VMCOREINFO is ${value}, not ${min} to ${max}`);
}

function unknown(source: PageSource, why: string): UnsupportedError {
  const remedy = 'filter with -d 0 or -d 1, which need nothing from the kernel';
  return new UnsupportedError({ what: `filtering ${source.file}`, why, remedy });
}

/** Goes through struct pages in the order of pages. */
class Judge {
  readonly #layout: StructPage;
  readonly #level: number;
  readonly #bits: Uint8Array;
  readonly #excluded: ExcludedPages;
  /** Pages before this one are decided by the first of their block. */
  #decided = 0;

  constructor(layout: StructPage, level: number, bits: Uint8Array, excluded: ExcludedPages) {
    this.#layout = layout;
    this.#level = level;
    this.#bits = bits;
    this.#excluded = excluded;
  }

  pages(first: number, count: number, bytes: Uint8Array): void {
    const { size, compoundHead } = this.#layout;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const end = first + count;
    for (let pfn = Math.max(first, this.#decided); pfn < end; pfn++) {
      const at = (pfn - first) * size;
      // Of a compound page that is left out, the tails were passed over.
      if ((bytes[at + compoundHead]! & 1) !== 0) continue;
      const pages = this.#page(pfn, pfn + 1 < end ? at + size : -1, at, bytes, view);
      pfn += pages - 1;
    }
    this.#decided = Math.max(this.#decided, end);
  }

  /** @param next where the struct page after it is, or -1 @returns how many pages are decided */
  #page(pfn: number, next: number, at: number, bytes: Uint8Array, view: DataView): number {
    const page = this.#layout;
    const level = this.#level;
    const has = (bit: number) => bit >= 0 && ((bytes[at + page.flags + (bit >> 3)]! >> (bit & 7)) & 1) === 1;
    const mapcount = view.getInt32(at + page.mapcount, true);
    const isSlab = mapcount === page.slabMapcount || has(page.slab);

    if ((level & DL_EXCLUDE_FREE) !== 0) {
      if (!isSlab && mapcount === page.buddyMapcount) {
        const order = view.getUint32(at + page.private, true);
        const isOrder = view.getUint32(at + page.private + 4, true) === 0 && order < page.orders;
        return isOrder ? this.#exclude('free', pfn, 2 ** order) : 1;
      }
      // Memory that the hypervisor has not given yet lies about in blocks of the largest order.
      if (mapcount === page.unacceptedMapcount) return this.#exclude('free', pfn, 2 ** (page.orders - 1));
    }

    let order = 0;
    let isHugetlb = false;
    if (next >= 0 && (view.getUint32(at + page.flags, true) & page.headMask) !== 0) {
      if (page.hugetlbMapcount !== undefined || page.hugetlb >= 0) {
        // Since 6.6 the order is in the flags of the second page. Hugetlb is a flag there, and since 6.9 a type.
        order = bytes[next + page.flags]!;
        isHugetlb =
          page.hugetlbMapcount !== undefined
            ? mapcount === page.hugetlbMapcount
            : ((bytes[next + page.flags + (page.hugetlb >> 3)]! >> (page.hugetlb & 7)) & 1) === 1;
      } else {
        if (page.compoundOrder >= 0) order = bytes[next + page.compoundOrder]!;
        if (page.compoundDtor >= 0) isHugetlb = bytes[next + page.compoundDtor]! === page.hugetlbDtor;
      }
      if (order >= 53 || pfn % 2 ** order !== 0) order = 0;
    }
    const count = 2 ** order;
    const isAnon = (bytes[at + page.mapping]! & PAGE_MAPPING_ANON) !== 0 && !isSlab;
    const isCache = has(page.lru) || ((page.swapbacked < 0 || has(page.swapbacked)) && has(page.swapcache));
    const isPrivate = has(page.privateBit);
    if (isCache && !isAnon) {
      if ((level & DL_EXCLUDE_CACHE) !== 0 && !isPrivate) return this.#exclude('cache', pfn, count);
      if ((level & DL_EXCLUDE_CACHE_PRI) !== 0) {
        return this.#exclude(isPrivate ? 'cachePrivate' : 'cache', pfn, count);
      }
    }
    if ((level & DL_EXCLUDE_USER_DATA) !== 0 && (isAnon || isHugetlb)) return this.#exclude('user', pfn, count);
    if (has(page.hwpoison)) return this.#exclude('hwpoison', pfn, count);
    if (!isSlab && mapcount === page.offlineMapcount) return this.#exclude('offline', pfn, count);
    return 1;
  }

  #exclude(kind: keyof ExcludedPages, pfn: number, count: number): number {
    const end = Math.min(pfn + count, this.#bits.length * 8);
    let cleared = 0;
    for (let i = pfn; i < end; i++) {
      const mask = 1 << (i & 7);
      if ((this.#bits[i >>> 3]! & mask) === 0) continue;
      this.#bits[i >>> 3]! &= ~mask;
      cleared++;
    }
    this.#excluded[kind] += cleared;
    this.#decided = pfn + count;
    return count;
  }
}
