/**
 * A medium at ranges of a device that is physical memory, found by the place of its superblock: what an earlier kernel left out of
 * this one's memory map, through /dev/mem or a DAX device. Addresses of the ranges are positions in the device.
 */
import * as fs from 'node:fs';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { FormatError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { findOverlap, formatRange } from '../mem/range.ts';
import { mmap } from '../sys/memory.ts';
import { DATA_START } from './format.ts';
import { openLocked } from './lock.ts';
import type { Medium, MediumRange } from './medium.ts';
import { Pieces } from './pieces.ts';

export interface PhysicalOptions {
  /** Several can open it so at once. */
  readonly readOnly?: boolean;
  /** Device or file that is the memory. */
  readonly device?: string;
}

export class PhysicalMedium implements Medium {
  readonly name: string;
  readonly writable: boolean;
  readonly #superblock: number;
  readonly #fd: number;
  readonly #pieces = new Pieces();
  #ranges: readonly MediumRange[];
  #isOpen = true;

  /**
   * @param superblock physical address of the first superblock
   * @throws UnsupportedError where it is in use; FormatError where there can be none; EPERM of mmap(2) where the kernel has the memory in use
   */
  constructor(superblock: number, { readOnly = false, device = '/dev/mem' }: PhysicalOptions = {}) {
    this.name = `${device} at 0x${superblock.toString(16)}`;
    this.writable = !readOnly;
    this.#superblock = superblock;
    this.#ranges = [{ start: superblock, size: DATA_START }];
    if (!Number.isSafeInteger(superblock) || superblock < 0 || superblock % PAGE_SIZE !== 0) {
      const found = `0x${superblock.toString(16)}`;
      throw new FormatError({ file: device, field: 'superblock', expected: 'the address of a page', found });
    }
    this.#fd = openLocked(device, readOnly ? 'r' : 'r+', !readOnly);
    try {
      this.#map();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get size(): number {
    return this.#pieces.size;
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
    this.#pieces.close();
    this.#ranges = ranges;
    this.#map();
  }

  read(address: number, into: Uint8Array): void {
    this.#pieces.read(address, into);
  }

  write(address: number, bytes: Uint8Array): void {
    this.#pieces.write(address, bytes);
  }

  view(address: number, length: number): Uint8Array | undefined {
    return this.#pieces.view(address, length);
  }

  /** x86-64 makes stores visible in the order of the program. */
  sync(): void {}

  /** What this kernel does not know of cannot grow. */
  grow(): boolean {
    return false;
  }

  release(): void {}

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#pieces.close();
    fs.closeSync(this.#fd);
  }

  #map(): void {
    // To touch what is mapped behind the end of a file kills the program. A device has no size.
    const { size: end } = fs.fstatSync(this.#fd);
    const outside = this.#ranges.find(({ start, size }) => end > 0 && start + size > end);
    if (outside !== undefined) {
      const [expected, found] = [`ranges before ${end}`, `${outside.size} bytes from ${outside.start}`];
      throw new FormatError({ file: this.name, field: 'ranges', expected, found });
    }
    const prot = this.writable ? PROT_READ | PROT_WRITE : PROT_READ;
    for (const { start, size } of this.#ranges) {
      this.#pieces.add(mmap({ addr: 0, length: size, prot, flags: MAP_SHARED, fd: this.#fd, offset: start }), size);
    }
  }
}
