/**
 * Memory of another kernel, which this one does not use, through /dev/mem. It is mapped and not read: read(2) of /dev/mem refuses
 * what is not RAM of this kernel, and mapping costs no struct page. A window at a time, for each page of it takes 8 bytes of
 * page table: a machine of 64 GB at once would be 128 MB.
 */

import type { Note } from '../abi/elfnote.ts';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY, O_RDWR } from '../abi/fcntl.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { setBits } from '../crash/bitmap.ts';
import type { DumpHeader, PageSource } from '../crash/source.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { Range } from '../mem/range.ts';
import { close, openat } from '../sys/files.ts';
import { mmap, munmap } from '../sys/memory.ts';
import { viewMemory } from '../sys/syscall.ts';

/** As much as is read and written in one piece (CHUNK_PAGES of the filter). */
export const WINDOW = 4 << 20;
/** More than the places that are read alternately when page tables are walked. */
const WINDOWS = 8;

interface Mapped {
  readonly start: number;
  readonly address: number;
  readonly bytes: Uint8Array;
}

export class PhysicalWindows {
  readonly #fd: number;
  readonly #prot: number;
  readonly #ranges: readonly Range[];
  /** The last used comes last. */
  readonly #mapped: Mapped[] = [];

  /**
   * @param ranges whole pages; nothing else is reached
   * @param device a file in which byte n stands for physical address n
   * @throws SyscallError EPERM (lockdown, no privilege), ENOENT (a kernel without CONFIG_DEVMEM)
   */
  constructor(ranges: readonly Range[], access: 'read' | 'write', device = '/dev/mem') {
    const flags = (access === 'write' ? O_RDWR : O_RDONLY) | O_CLOEXEC;
    this.#fd = openat({ dirfd: AT_FDCWD, pathname: device, flags, mode: 0 });
    this.#prot = access === 'write' ? PROT_READ | PROT_WRITE : PROT_READ;
    this.#ranges = ranges;
  }

  /**
   * The memory from an address on, up to `length` bytes of it: less where a window or range ends, undefined where there is none.
   * Valid until the next but few calls.
   *
   * @throws SyscallError EPERM where this kernel uses the memory, or a driver
   */
  at(address: number, length: number): Uint8Array | undefined {
    const range = this.#ranges.find(({ start, end }) => start <= address && address < end);
    if (range === undefined) return undefined;
    const start = Math.max(range.start, address - (address % WINDOW));
    const end = Math.min(range.end, address - (address % WINDOW) + WINDOW);
    const { bytes } = this.#window(start, end);
    return bytes.subarray(address - start, Math.min(end, address + length) - start);
  }

  close(): void {
    for (const mapped of this.#mapped.splice(0)) unmap(mapped);
    close({ fd: this.#fd });
  }

  #window(start: number, end: number): Mapped {
    const i = this.#mapped.findIndex((each) => each.start === start);
    if (i === this.#mapped.length - 1 && i >= 0) return this.#mapped[i]!;
    if (i >= 0) {
      const [found] = this.#mapped.splice(i, 1);
      this.#mapped.push(found!);
      return found!;
    }
    if (this.#mapped.length === WINDOWS) unmap(this.#mapped.shift()!);
    const length = end - start;
    const address = mmap({ addr: 0, length, prot: this.#prot, flags: MAP_SHARED, fd: this.#fd, offset: start });
    const mapped = { start, address, bytes: viewMemory(address, length) };
    this.#mapped.push(mapped);
    return mapped;
  }
}

function unmap({ address, bytes }: Mapped): void {
  const { length } = bytes;
  // Detaches it, so that whoever still has a part of it finds it empty, and not memory that is not there.
  (bytes.buffer as ArrayBuffer).transfer();
  munmap({ addr: address, length });
}

/** What is known of the machine whose memory this is. */
export interface Memory {
  /** Whole pages, sorted. */
  readonly ranges: readonly Range[];
  readonly notes: readonly Note[];
  readonly header: DumpHeader;
  /** See PhysicalWindows. */
  readonly device?: string;
}

/** The memory as a dump. */
export function openPhysical({ ranges, notes, header, device }: Memory): PageSource {
  const windows = new PhysicalWindows(ranges, 'read', device);
  return {
    file: device ?? '/dev/mem',
    format: 'raw',
    pageSize: PAGE_SIZE,
    ranges,
    notes,
    header,
    storedPages(first, bits) {
      bits.fill(0);
      const limit = bits.length * 8;
      for (const { start, end } of ranges) {
        const [from, to] = [start / PAGE_SIZE - first, Math.min(end / PAGE_SIZE - first, limit)];
        if (from < to && to > 0) setBits(bits, Math.max(0, from), to);
      }
    },
    readPhysical(address, into) {
      for (let done = 0; done < into.length; ) {
        const found = windows.at(address + done, into.length - done);
        if (found === undefined) return { reason: 'missing', address: address + done };
        into.set(found, done);
        done += found.length;
      }
      return undefined;
    },
    close: () => windows.close(),
  };
}
