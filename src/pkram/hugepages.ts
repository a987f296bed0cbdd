/**
 * A medium of huge pages, whose place in physical memory is known, so that the next kernel can be started with a memory map that
 * leaves them out. A mount of hugetlbfs holds them (pagefiles.ts), so they outlive the process that saves.
 *
 *     physical memory        C        A        B
 *     mapping, and medium  | A      | B      | C      |      what is added at once in the order of physical addresses: few ranges
 *
 * The kernel may move huge pages (hotplug, allocation of larger pages). Their order is that of their names, so the medium stays whole,
 * and its table of ranges is written anew when it is opened next. Before a jump hasMoved() is to be asked.
 */
import { closeSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import { FormatError, SyscallError, UnsupportedError } from '../errors.ts';
import { PMD_SIZE } from '../mem/address.ts';
import { alignUp, overlaps, type Range } from '../mem/range.ts';
import { mountHugePages, unmountHugePages, withSurplusHugePages } from '../sys/hugepages.ts';
import { memoryBlockSize } from '../sys/memoryblocks.ts';
import { choosePages, runCount, wholeBlocks } from './choose.ts';
import { openLocked } from './lock.ts';
import type { Medium, MediumRange } from './medium.ts';
import { PageFiles, physicalAddresses, unmap } from './pagefiles.ts';
import { MappedMedium } from './pieces.ts';
import { Volume } from './volume.ts';

/** Where the pages are held. */
export const HUGE_PAGES = '/dev/tideover/pkram';

export interface HugePageOptions {
  /** Mount of hugetlbfs. */
  readonly folder?: string;
  /** Take pages where there are none. */
  readonly create?: boolean;
  /** Least size of a medium that is made, in bytes. */
  readonly size?: number;
  /** Several can open it so at once. */
  readonly readOnly?: boolean;
  /** Physical memory that the next kernel will be loaded to: no page is taken there. */
  readonly avoid?: readonly Range[];
  /** Name and version of the program, for a medium that is made. */
  readonly writer?: string;
}

/** Ranges of a medium at most. Each takes up to two entries of the next kernel's memory map; with 2500 of them one took 33 s to boot. */
const MAX_RANGES = 400;
/** How often pages are asked for beside those at hand, to find whole blocks or such as may be taken. */
const ROUNDS = 16;
/** How many such rounds may find no further block. */
const PATIENCE = 4;
/** Mean length of the runs that the kernel gives, in pages, below which memory is scattered: it takes 10 ms and more a page, in vain. */
const SCATTERED = 4;
/** Memory that is left to the system when more pages are looked at than are needed. */
const SPARE = Math.min(256 << 20, totalmem() / 8);

export class HugePageMedium extends MappedMedium implements Medium {
  readonly name: string;
  readonly writable: boolean;
  readonly #files: PageFiles;
  readonly #lock: number;
  readonly #avoid: readonly Range[];
  /** Each run of pages that was mapped at once. */
  #mapped: { address: number; count: number }[] = [];
  /** Where each page lies. */
  #physical: number[] = [];
  #isOpen = true;

  /**
   * Opens the medium that a mount holds.
   *
   * @throws ENOENT where there is none; UnsupportedError where it is in use, where there are too few huge pages, with how many are
   * missing, or where physical addresses are not told
   */
  static open(options: HugePageOptions = {}): HugePageMedium {
    const { folder = HUGE_PAGES, create = false, size = 1, writer } = options;
    if (create) mountHugePages(folder);
    const medium = new HugePageMedium(folder, options);
    try {
      const count = medium.#files.count();
      if (medium.writable) medium.#files.keepFirst(count);
      if (count > 0) medium.#map(medium.#files.names(0, 1));
      else if (create) medium.#make(size, writer);
      else {
        throw Object.assign(new Error(`${folder} holds no huge pages`), { code: 'ENOENT', syscall: 'open' });
      }
      return medium;
    } catch (error) {
      medium.close();
      throw error;
    }
  }

  private constructor(folder: string, { create = false, readOnly = false, avoid = [] }: HugePageOptions) {
    super();
    this.name = `huge pages in ${folder}`;
    this.writable = !readOnly;
    this.#files = new PageFiles(folder);
    this.#avoid = avoid;
    this.#lock = openLocked(join(folder, 'lock'), create ? 'a' : 'r', !readOnly);
  }

  /** Physical memory, neighbours merged. The superblock stands at the start of the first. */
  get ranges(): readonly MediumRange[] {
    return rangesOf(this.#physical);
  }

  attach(ranges: readonly MediumRange[]): void {
    const pages = ranges.reduce((sum, { size }) => sum + size, 0) / PMD_SIZE;
    if (pages === this.#physical.length) return;
    const count = this.#files.count();
    if (!Number.isInteger(pages) || pages < 1 || pages > count) {
      const [expected, found] = [`${count} huge pages`, `${pages}`];
      throw new FormatError({ file: this.name, field: 'ranges', expected, found });
    }
    // Pages that were added and are not on the table yet.
    if (this.writable) this.#files.keepFirst(pages);
    this.#unmap();
    this.#map(this.#files.names(0, pages));
  }

  /** Whether a page is at another physical address than `ranges` says. To be asked right before the next kernel is started. */
  hasMoved(): boolean {
    const now = this.#mapped.flatMap(({ address, count }) => physicalAddresses(address, count));
    return this.#physical.some((physical, i) => physical !== now[i]);
  }

  grow(bytes: number): boolean {
    try {
      this.#add(Math.max(bytes, this.size / 8), (taken) => {
        this.#files.place(taken, this.#physical.length);
        this.#map(this.#files.names(this.#physical.length, taken.length));
      });
      return true;
    } catch (error) {
      if (error instanceof UnsupportedError) return false;
      throw error;
    }
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#unmap();
    closeSync(this.#lock);
  }

  /** Gives all pages back to the system, with all that is in them, and closes the medium. */
  giveBack(): void {
    this.#unmap();
    this.#files.keepFirst(0);
    this.close();
    unmountHugePages(this.#files.folder);
  }

  /** No page of it has a place before the medium is one. */
  #make(size: number, writer: string | undefined): void {
    this.#add(size, (taken) => {
      this.#map(taken);
      Volume.format(this, writer);
      this.#files.place(taken, 0);
    });
  }

  #add(bytes: number, use: (files: readonly string[]) => void): void {
    const maxRuns = MAX_RANGES - this.ranges.length;
    const taken = takePages(this.#files, Math.ceil(bytes / PMD_SIZE), this.#avoid, maxRuns);
    try {
      use(taken);
    } catch (error) {
      for (const file of taken) this.#files.drop(file);
      throw error;
    }
  }

  #map(files: readonly string[]): void {
    const address = this.#files.map(files, this.writable);
    try {
      this.#physical.push(...physicalAddresses(address, files.length));
    } catch (error) {
      unmap(address, files.length);
      throw error;
    }
    this.#mapped.push({ address, count: files.length });
    this.pieces.add(address, files.length * PMD_SIZE);
  }

  #unmap(): void {
    this.pieces.close();
    [this.#mapped, this.#physical] = [[], []];
  }
}

/** @returns files of pages in the order of their physical addresses, none in `avoid`, whole blocks of memory as far as there are such */
function takePages(files: PageFiles, count: number, avoid: readonly Range[], maxRuns: number): string[] {
  const block = memoryBlockSize() ?? PMD_SIZE;
  const perBlock = block / PMD_SIZE;
  const inBlocks = alignUp(count, perBlock);
  // Whole blocks are worth looking for where there is memory for them.
  const room = () => Math.floor((freemem() - SPARE) / PMD_SIZE);
  const wanted = inBlocks + perBlock <= room() ? inBlocks : count;
  /** File of the page at a physical address. */
  const able = new Map<number, string>();
  const unable: string[] = [];
  try {
    // What is not wanted is held meanwhile, so that it is not given again.
    let [whole, inVain] = [0, 0];
    for (let round = 0; round < ROUNDS; round++) {
      const lacking = wanted - able.size;
      const before = whole;
      whole = wholeBlocks([...able.keys()], block);
      if (round > 0 && whole === before) inVain++;
      const hope = inVain < PATIENCE && runCount([...able.keys()]) * SCATTERED < able.size;
      const search = wanted === inBlocks && whole * perBlock < wanted && hope;
      const more = lacking > 0 ? lacking : search ? Math.min(perBlock, room()) : 0;
      if (more <= 0) break;
      let taken: string[];
      try {
        taken = withOvercommit(more, () => files.take(more));
      } catch (error) {
        if (able.size >= count && error instanceof UnsupportedError) break;
        throw error;
      }
      for (const [i, start] of placesOf(files, taken).entries()) {
        const page = { start, end: start + PMD_SIZE };
        if (avoid.some((range) => overlaps(range, page))) unable.push(taken[i]!);
        else able.set(start, taken[i]!);
      }
    }
    const chosen = choosePages([...able.keys()], Math.min(wanted, able.size), { block, maxRuns });
    if (chosen.length < count) {
      const why =
        able.size < count
          ? 'those that are left lie where the next kernel is to be loaded'
          : `in ${maxRuns} pieces, which is what the memory map of the next kernel bears, there are no more`;
      throw missing(count - chosen.length, why);
    }
    const kept = chosen.map((start) => able.get(start)!);
    for (const start of chosen) able.delete(start);
    return kept;
  } finally {
    for (const file of [...unable, ...able.values()]) files.drop(file);
  }
}

function placesOf(files: PageFiles, taken: readonly string[]): number[] {
  const address = files.map(taken, false);
  try {
    return physicalAddresses(address, taken.length);
  } catch (error) {
    for (const file of taken) files.drop(file);
    throw error;
  } finally {
    unmap(address, taken.length);
  }
}

/** Calls what takes pages, with as many more allowed as are missing in the pool. */
function withOvercommit<T>(count: number, call: () => T): T {
  return withSurplusHugePages(count, (lacking) => {
    const short = lacking - Math.floor(freemem() / PMD_SIZE);
    // The kernel would take all there is before it says no.
    if (short > 0) throw missing(short, 'there is not so much free memory');
    try {
      return call();
    } catch (error) {
      if (!(error instanceof SyscallError) || error.errnoName !== 'ENOMEM') throw error;
      throw missing(lacking, 'the kernel finds no more memory in pieces of 2 MiB');
    }
  });
}

function rangesOf(pages: readonly number[]): MediumRange[] {
  const ranges: { start: number; size: number }[] = [];
  for (const start of pages) {
    const last = ranges.at(-1);
    if (last !== undefined && last.start + last.size === start) last.size += PMD_SIZE;
    else ranges.push({ start, size: PMD_SIZE });
  }
  return ranges;
}

function missing(count: number, why: string): UnsupportedError {
  return new UnsupportedError({
    what: 'preserved memory in huge pages',
    why: `${count} huge pages of 2 MiB are missing: ${why}`,
    remedy: 'reserve them early after boot (sysctl vm.nr_hugepages), or free memory',
  });
}
