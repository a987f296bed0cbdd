/**
 * A medium of huge pages, whose place in physical memory is known, so that the next kernel can be started with a memory map that
 * leaves them out. A mount of hugetlbfs holds them (pagefiles.ts), so they outlive the process that saves.
 *
 *     physical memory        C        A        B
 *     mapping, and medium  | A      | B      | C      |      what is added at once in the order of physical addresses: few ranges
 *
 * The kernel may move huge pages (hotplug, allocation of larger pages). Their order is that of their names, so the medium stays whole,
 * and its table of ranges is written anew when it is opened next. Before a jump they are
 * pinned, and hasMoved() is to be asked.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { FormatError, UnsupportedError } from '../errors.ts';
import { PMD_SIZE } from '../mem/address.ts';
import type { Range } from '../mem/range.ts';
import { isHugePageMount, mountHugePages, unmountHugePages } from '../sys/hugepages.ts';
import { lock, openLocked, unlock } from './lock.ts';
import type { LockedMedium, MediumRange } from './medium.ts';
import { PageFiles, physicalAddresses, unmap } from './pagefiles.ts';
import { MappedMedium } from './pieces.ts';
import { pinPages } from './pin.ts';
import { takePages } from './takepages.ts';
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

/** Whether a medium is there: a mount that holds pages, and not one from which nobody got any. */
export function holdsHugePages(folder = HUGE_PAGES): boolean {
  return isHugePageMount(folder) && !new PageFiles(folder).isEmpty;
}

/** Ranges of a medium at most. Each takes up to two entries of the next kernel's memory map; with 2500 of them one took 33 s to boot. */
const MAX_RANGES = 400;
export class HugePageMedium extends MappedMedium implements LockedMedium {
  readonly name: string;
  readonly writable: boolean;
  whyFull: UnsupportedError | undefined;
  readonly #files: PageFiles;
  readonly #lock: number;
  readonly #avoid: readonly Range[];
  /** Each run of pages that was mapped at once. */
  #mapped: { address: number; count: number }[] = [];
  /** Where each page lies. */
  #physical: number[] = [];
  /** They may have been moved since: others could have them. */
  #isStale = false;
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
    if (this.#isStale) this.#physical = this.#addresses();
    this.#isStale = false;
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
    try {
      this.#map(this.#files.names(0, pages));
    } catch (error) {
      // Whoever looks at it again finds the superblock.
      this.#map(this.#files.names(0, 1));
      throw error;
    }
  }

  /** Whether a page is at another physical address than `ranges` says. To be asked right before the next kernel is started. */
  hasMoved(): boolean {
    const now = this.#addresses();
    return this.#physical.some((physical, i) => physical !== now[i]);
  }

  /** Keeps the pages where they are. @returns descriptors; they can move again when all are closed */
  pin(): number[] {
    return pinPages(this.#mapped);
  }

  grow(bytes: number): boolean {
    try {
      this.#add(Math.max(bytes, this.size / 8), (taken) => {
        this.#files.place(taken, this.#physical.length);
        this.#map(this.#files.names(this.#physical.length, taken.length));
      });
      return true;
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
      this.whyFull = error;
      return false;
    }
  }

  lock(alone: boolean): void {
    lock(this.#lock, alone, this.name);
    this.#isStale = true;
  }

  unlock(): void {
    unlock(this.#lock);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#unmap();
    closeSync(this.#lock);
  }

  /** Gives all pages back to the system, with all that is in them, and closes the medium. @returns how many bytes these were */
  giveBack(): number {
    const size = this.#files.count() * PMD_SIZE;
    this.#unmap();
    this.#files.keepFirst(0);
    this.close();
    unmountHugePages(this.#files.folder);
    return size;
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

  /** Where the pages are now. */
  #addresses(): number[] {
    return this.#mapped.flatMap(({ address, count }) => physicalAddresses(address, count));
  }

  #unmap(): void {
    this.pieces.close();
    [this.#mapped, this.#physical] = [[], []];
  }
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
