/**
 * A medium at ranges of physical memory that this kernel does not use: what an earlier kernel left out of this one's memory map,
 * found by the place of its superblock, or a region that memmap= reserves at boot. windows.ts says through which devices.
 */
import * as fs from 'node:fs';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import {
  alignDown,
  alignOut,
  findOverlap,
  formatRange,
  intersect,
  overlaps,
  type Range,
  sizeOf,
  subtract,
} from '../mem/range.ts';
import { readIomem } from '../sys/iomem.ts';
import { readFirmwareMap } from '../sys/memmap.ts';
import { mmap } from '../sys/memory.ts';
import { DATA_START } from './format.ts';
import { lock, openLocked, unlock } from './lock.ts';
import type { LockedMedium, MediumRange } from './medium.ts';
import { MappedMedium } from './pieces.ts';
import { Volume } from './volume.ts';
import { MEMORY, type Window, wholeMemory, windowsOn } from './windows.ts';

export interface PhysicalOptions {
  /** Several can open it so at once. */
  readonly readOnly?: boolean;
  /** Whether nobody else has it as long as it is locked; if not given, where it can be written to. */
  readonly alone?: boolean;
  /** A file that stands for the memory. */
  readonly device?: string;
}

/**
 * What is mapped at a time, when it is touched: the kernel looks up each page of a mapping of /dev/mem among all resources, and makes it
 * there at once (range_is_allowed() and remap_pfn_range()). In bytes; of a device no less than its pages.
 */
const AT_ONCE = 4 << 20;

/** What the firmware, or a kexec before, calls memory that can be used, as e820_type_to_string() of the kernel has it. */
const USABLE = ['System RAM', 'Soft Reserved', 'Persistent Memory', 'Persistent Memory (legacy)'];

export class PhysicalMedium extends MappedMedium implements LockedMedium {
  readonly name: string;
  readonly writable: boolean;
  readonly whyFull = 'it has its size from an earlier kernel or from memmap=; load or remove nodes';
  readonly #device: string | undefined;
  readonly #superblock: number;
  /** Descriptors by paths. */
  readonly #files = new Map<string, number>();
  #ranges: readonly MediumRange[];
  #isOpen = true;

  /**
   * Makes a medium of a region. What was there is lost.
   *
   * @param region whole pages, at least 128 KiB, of memory that this kernel does not use
   * @throws UnsupportedError where it uses it, or where this is no memory
   */
  static make(region: Range, { device, writer }: { device?: string; writer?: string } = {}): PhysicalMedium {
    if (region.start % PAGE_SIZE !== 0 || region.end % PAGE_SIZE !== 0 || sizeOf(region) <= DATA_START) {
      refuse(region, 'it is not whole pages of more than 128 KiB', 'give a larger region that begins with a page');
    }
    if (device === undefined) {
      const memory = readFirmwareMap().filter(({ type }) => USABLE.includes(type));
      const [stray] = subtract([region], memory);
      if (stray !== undefined) {
        refuse(
          region,
          `at ${formatRange(stray)} there is no memory`,
          'look at /sys/firmware/memmap for where there is',
        );
      }
    }
    const medium = new PhysicalMedium(region.start, device === undefined ? {} : { device });
    try {
      medium.#use([{ start: region.start, size: sizeOf(region) }]);
      Volume.format(medium, writer);
      return medium;
    } catch (error) {
      medium.close();
      throw error;
    }
  }

  /**
   * @param superblock physical address of the first superblock
   * @throws UnsupportedError where it is in use, by a process or by the kernel; FormatError where there can be none; EPERM of mmap(2)
   * where a driver has the memory
   */
  constructor(superblock: number, { readOnly = false, alone = !readOnly, device }: PhysicalOptions = {}) {
    super();
    this.writable = !readOnly;
    this.#device = device;
    this.#superblock = superblock;
    this.#ranges = [];
    if (!Number.isSafeInteger(superblock) || superblock < 0 || superblock % PAGE_SIZE !== 0) {
      const found = `0x${superblock.toString(16)}`;
      throw new FormatError({ file: device ?? MEMORY, field: 'superblock', expected: 'the address of a page', found });
    }
    const [{ path }] = this.#windowsOn([this.#start]) as [Window];
    this.name = `${path} at 0x${superblock.toString(16)}`;
    this.#files.set(path, openLocked(path, readOnly ? 'r' : 'r+', alone));
    try {
      this.#use([this.#start]);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get ranges(): readonly MediumRange[] {
    return this.#ranges;
  }

  attach(ranges: readonly MediumRange[]): void {
    if (JSON.stringify(ranges) === JSON.stringify(this.#ranges)) return;
    const fail = (expected: string, found: string): never => {
      throw new FormatError({ file: this.name, field: 'ranges', expected, found });
    };
    const [first] = ranges;
    if (first?.start !== this.#superblock || first.size < DATA_START) {
      fail('the first to begin with the superblock', first === undefined ? 'none' : `0x${first.start.toString(16)}`);
    }
    const overlap = findOverlap(ranges.map(ends));
    if (overlap !== undefined) fail('ranges apart', overlap.map(formatRange).join(' and '));
    try {
      this.#use(ranges);
    } catch (error) {
      // Whoever looks at it again finds the superblock.
      this.#use([this.#start]);
      throw error;
    }
  }

  /** What can be read before the ranges are known. */
  get #start(): MediumRange {
    return { start: this.#superblock, size: DATA_START };
  }

  /** What this kernel does not know of cannot grow. */
  grow(): boolean {
    return false;
  }

  lock(alone: boolean): void {
    // The first is of the superblock.
    const [[path, fd]] = this.#files as Iterable<[string, number]> as [[string, number]];
    lock(fd, alone, path);
  }

  unlock(): void {
    for (const fd of this.#files.values()) unlock(fd);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.pieces.close();
    for (const fd of this.#files.values()) fs.closeSync(fd);
  }

  /** What is written to a block device by its mapping is in the page cache at first. */
  override sync(): void {
    for (const fd of this.#files.values()) if (fs.fstatSync(fd).isBlockDevice()) fs.fdatasyncSync(fd);
  }

  #use(ranges: readonly MediumRange[]): void {
    this.pieces.close();
    this.#ranges = ranges;
    if (this.#device === undefined) demandUnused(ranges.map(ends));
    const windows = this.#windowsOn(ranges);
    for (const range of ranges.map(ends)) {
      const on = windows.filter((window) => overlaps(window, range)).sort((a, b) => a.start - b.start);
      for (const window of on) {
        this.#map(window, { start: Math.max(window.start, range.start), end: Math.min(window.end, range.end) });
      }
    }
  }

  #windowsOn(ranges: readonly MediumRange[]): Window[] {
    const wanted = ranges.map(ends);
    const device = this.#device;
    return device === undefined ? windowsOn(wanted) : wanted.map((range) => wholeMemory(device, range));
  }

  #map({ path, origin, grain }: Window, part: Range): void {
    const fd = this.#files.get(path) ?? fs.openSync(path, this.writable ? 'r+' : 'r');
    this.#files.set(path, fd);
    // To touch what is mapped behind the end of a file kills the program. A device has no size.
    const { size: end } = fs.fstatSync(fd);
    if (end > 0 && part.end - origin > end) {
      const [expected, found] = [`ranges before ${end}`, formatRange(part)];
      throw new FormatError({ file: this.name, field: 'ranges', expected, found });
    }
    const prot = this.writable ? PROT_READ | PROT_WRITE : PROT_READ;
    const [last, step] = [part.end - origin, Math.max(AT_ONCE, grain)];
    for (let start = part.start - origin; start < last; ) {
      const end = Math.min(last, alignDown(start, step) + step);
      const whole = alignOut({ start, end }, grain);
      const from = start - whole.start;
      this.pieces.addLater(end - start, () => {
        const length = sizeOf(whole);
        return { addr: mmap({ addr: 0, length, prot, flags: MAP_SHARED, fd, offset: whole.start }), length, from };
      });
      start = end;
    }
  }
}

function ends({ start, size }: MediumRange): Range {
  return { start, end: start + size };
}

/** A kernel without CONFIG_STRICT_DEVMEM would let its own memory be written to. */
function demandUnused(ranges: readonly Range[]): void {
  const used = readIomem().filter(({ name }) => name.startsWith('System RAM'));
  const [clash] = intersect(ranges, used);
  if (clash === undefined) return;
  refuse(
    clash,
    'this kernel uses this memory as its own',
    'start it by tideover kexec load, or with memmap=SIZE$START',
  );
}

function refuse(region: Range, why: string, remedy: string): never {
  throw new UnsupportedError({ what: `preserved memory at ${formatRange(region)}`, why, remedy });
}
