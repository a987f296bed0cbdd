/**
 * A medium at ranges of physical memory that this kernel does not use: what an earlier kernel left out of this one's memory map,
 * found by the place of its superblock, or a region that memmap= reserves at boot. Through /dev/mem, or a device that stands for it.
 * Addresses of the ranges are positions in the device.
 */
import * as fs from 'node:fs';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { findOverlap, formatRange, intersect, type Range, sizeOf, subtract } from '../mem/range.ts';
import { readIomem } from '../sys/iomem.ts';
import { readFirmwareMap } from '../sys/memmap.ts';
import { mmap } from '../sys/memory.ts';
import { DATA_START } from './format.ts';
import { openLocked } from './lock.ts';
import type { Medium, MediumRange } from './medium.ts';
import { MappedMedium } from './pieces.ts';
import { Volume } from './volume.ts';

export interface PhysicalOptions {
  /** Several can open it so at once. */
  readonly readOnly?: boolean;
  /** Device or file that is the memory. */
  readonly device?: string;
}

const MEMORY = '/dev/mem';
/** What the firmware, or a kexec before, calls memory that can be used, as e820_type_to_string() of the kernel has it. */
const USABLE = ['System RAM', 'Soft Reserved', 'Persistent Memory', 'Persistent Memory (legacy)'];

export class PhysicalMedium extends MappedMedium implements Medium {
  readonly name: string;
  readonly writable: boolean;
  readonly whyFull = 'it has its size from an earlier kernel or from memmap=; load or remove nodes';
  readonly #device: string;
  readonly #superblock: number;
  readonly #fd: number;
  #ranges: readonly MediumRange[];
  #isOpen = true;

  /**
   * Makes a medium of a region. What was there is lost.
   *
   * @param region whole pages, at least 128 KiB, of memory that this kernel does not use
   * @throws UnsupportedError where it uses it, or where this is no memory
   */
  static make(region: Range, { device = MEMORY, writer }: { device?: string; writer?: string } = {}): PhysicalMedium {
    if (region.start % PAGE_SIZE !== 0 || region.end % PAGE_SIZE !== 0 || sizeOf(region) <= DATA_START) {
      refuse(region, 'it is not whole pages of more than 128 KiB', 'give a larger region that begins with a page');
    }
    if (device === MEMORY) {
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
    const medium = new PhysicalMedium(region.start, { device });
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
  constructor(superblock: number, { readOnly = false, device = MEMORY }: PhysicalOptions = {}) {
    super();
    this.name = `${device} at 0x${superblock.toString(16)}`;
    this.writable = !readOnly;
    this.#device = device;
    this.#superblock = superblock;
    this.#ranges = [];
    if (!Number.isSafeInteger(superblock) || superblock < 0 || superblock % PAGE_SIZE !== 0) {
      const found = `0x${superblock.toString(16)}`;
      throw new FormatError({ file: device, field: 'superblock', expected: 'the address of a page', found });
    }
    this.#fd = openLocked(device, readOnly ? 'r' : 'r+', !readOnly);
    try {
      this.#use([{ start: superblock, size: DATA_START }]);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get ranges(): readonly MediumRange[] {
    return this.#ranges;
  }

  attach(ranges: readonly MediumRange[]): void {
    const fail = (expected: string, found: string): never => {
      throw new FormatError({ file: this.name, field: 'ranges', expected, found });
    };
    const [first] = ranges;
    if (first?.start !== this.#superblock || first.size < DATA_START) {
      fail('the first to begin with the superblock', first === undefined ? 'none' : `0x${first.start.toString(16)}`);
    }
    const overlap = findOverlap(ranges.map(({ start, size }) => ({ start, end: start + size })));
    if (overlap !== undefined) fail('ranges apart', overlap.map(formatRange).join(' and '));
    this.#use(ranges);
  }

  /** What this kernel does not know of cannot grow. */
  grow(): boolean {
    return false;
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.pieces.close();
    fs.closeSync(this.#fd);
  }

  #use(ranges: readonly MediumRange[]): void {
    this.pieces.close();
    this.#ranges = ranges;
    // To touch what is mapped behind the end of a file kills the program. A device has no size.
    const { size: end } = fs.fstatSync(this.#fd);
    const outside = ranges.find(({ start, size }) => end > 0 && start + size > end);
    if (outside !== undefined) {
      const [expected, found] = [`ranges before ${end}`, `${outside.size} bytes from ${outside.start}`];
      throw new FormatError({ file: this.name, field: 'ranges', expected, found });
    }
    if (this.#device === MEMORY) demandUnused(ranges.map(({ start, size }) => ({ start, end: start + size })));
    const prot = this.writable ? PROT_READ | PROT_WRITE : PROT_READ;
    for (const { start, size } of ranges) {
      this.pieces.add(mmap({ addr: 0, length: size, prot, flags: MAP_SHARED, fd: this.#fd, offset: start }), size);
    }
  }
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
