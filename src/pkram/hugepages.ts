/**
 * A medium of huge pages, whose place in physical memory is known, so that the next kernel can be started with a memory map that
 * leaves them out. They are held by this process: with it goes what is in them, unless a kernel was started before.
 *
 *     memfd (hugetlb)      | page 0 | page 1 | page 2 |      in the order in which the kernel gave them
 *     physical memory        C        A        B
 *     mapping, and medium  | A      | B      | C      |      in the order of physical addresses: few ranges
 *
 * A lock in memory does not pin the physical address (compaction, hotplug): before a jump hasMoved() is to be asked.
 */
import { freemem } from 'node:os';
import * as mman from '../abi/mman.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { PMD_SIZE } from '../mem/address.ts';
import { alignUp, overlaps, type Range } from '../mem/range.ts';
import { close, ftruncate } from '../sys/files.ts';
import { withSurplusHugePages } from '../sys/hugepages.ts';
import { memfd_create, mlock, mmap, munmap } from '../sys/memory.ts';
import { Pagemap, PM_PRESENT, pfnOf } from '../sys/pagemap.ts';
import type { Medium, MediumRange } from './medium.ts';
import { Pieces } from './pieces.ts';

export interface HugePageOptions {
  /** Physical memory that the next kernel will be loaded to: no page is taken there. */
  readonly avoid?: readonly Range[];
}

/** Pages that were allocated at once, mapped in the order of their physical addresses. */
interface Chunk {
  readonly mapped: number;
  /** Physical address of each page. */
  readonly pages: readonly number[];
}

/** A page of a memfd. */
interface Page {
  readonly fd: number;
  readonly offset: number;
  readonly physical: number;
}

const HUGE_2MB = 21 << mman.MAP_HUGE_SHIFT;
/** How often pages are asked for again in place of those that lie where they must not. */
const ROUNDS = 8;

export class HugePageMedium implements Medium {
  readonly name = 'huge pages';
  readonly writable = true;
  readonly #avoid: readonly Range[];
  readonly #pieces = new Pieces();
  #chunks: Chunk[] = [];

  private constructor(avoid: readonly Range[]) {
    this.#avoid = avoid;
  }

  /**
   * Takes at least so many bytes of huge pages. Volume.format() makes them a medium.
   *
   * @throws UnsupportedError where there are too few, with how many are missing, or where physical addresses are not told
   */
  static allocate(bytes: number, { avoid = [] }: HugePageOptions = {}): HugePageMedium {
    const medium = new HugePageMedium(avoid);
    medium.#add(Math.ceil(bytes / PMD_SIZE));
    return medium;
  }

  get size(): number {
    return this.#pieces.size;
  }

  /** Physical memory, neighbours merged. The superblock stands at the start of the first. */
  get ranges(): readonly MediumRange[] {
    return rangesOf(this.#chunks.flatMap(({ pages }) => pages));
  }

  attach(ranges: readonly MediumRange[]): void {
    if (JSON.stringify(ranges) === JSON.stringify(this.ranges)) return;
    throw new UnsupportedError({
      what: 'preserved memory in huge pages',
      why: 'its pages are not at the physical addresses that its superblock says',
      remedy: 'save it anew',
    });
  }

  /** Whether a page is at another physical address than `ranges` says. To be asked right before the next kernel is started. */
  hasMoved(): boolean {
    return this.#chunks.some(({ mapped, pages }) => {
      const now = physicalAddresses(mapped, pages.length);
      return pages.some((physical, i) => physical !== now[i]);
    });
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

  /** x86-64 makes stores visible in the order of the program, and the caches are not lost on the way to another kernel. */
  sync(): void {}

  grow(bytes: number): boolean {
    try {
      this.#add(Math.ceil(Math.max(bytes, this.size / 8) / PMD_SIZE));
      return true;
    } catch (error) {
      if (error instanceof UnsupportedError) return false;
      throw error;
    }
  }

  /** A part of a huge page cannot be given back. */
  release(): void {}

  /** Gives the pages back to the system. */
  close(): void {
    this.#pieces.close();
    this.#chunks = [];
  }

  #add(count: number): void {
    const pages = takePages(count, this.#avoid);
    try {
      const mapped = mapSorted(pages);
      this.#pieces.add(mapped, count * PMD_SIZE);
      this.#chunks.push({ mapped, pages: pages.map(({ physical }) => physical) });
    } finally {
      for (const fd of new Set(pages.map((page) => page.fd))) close({ fd });
    }
  }
}

/** Pages in the order of their physical addresses, none in `avoid`. */
function takePages(count: number, avoid: readonly Range[]): Page[] {
  const taken: Page[] = [];
  const files: number[] = [];
  try {
    // What is not wanted is held meanwhile, so that it is not given again.
    for (let round = 0; round < ROUNDS && taken.length < count; round++) {
      const { fd, physical } = fillFile(count - taken.length);
      files.push(fd);
      for (const [i, start] of physical.entries()) {
        const page = { start, end: start + PMD_SIZE };
        if (!avoid.some((range) => overlaps(range, page))) taken.push({ fd, offset: i * PMD_SIZE, physical: start });
      }
    }
    if (taken.length < count) {
      throw missing(count - taken.length, 'those that are left lie where the next kernel is to be loaded');
    }
  } catch (error) {
    for (const fd of files) close({ fd });
    throw error;
  }
  const used = new Set(taken.map(({ fd }) => fd));
  for (const fd of files) if (!used.has(fd)) close({ fd });
  return taken.sort((a, b) => a.physical - b.physical);
}

/** A file of huge pages, each of them there. */
function fillFile(count: number): { fd: number; physical: number[] } {
  const fd = memfd_create({ name: 'pkram', flags: mman.MFD_CLOEXEC | mman.MFD_HUGETLB | HUGE_2MB });
  const length = count * PMD_SIZE;
  try {
    ftruncate({ fd, length });
    const address = withOvercommit(count, () =>
      mmap({
        addr: 0,
        length,
        prot: mman.PROT_READ | mman.PROT_WRITE,
        flags: mman.MAP_SHARED | mman.MAP_POPULATE,
        fd,
        offset: 0,
      }),
    );
    try {
      return { fd, physical: physicalAddresses(address, count) };
    } finally {
      munmap({ addr: address, length });
    }
  } catch (error) {
    close({ fd });
    throw error;
  }
}

/** Maps pages one after the other in the order given, locked in memory. */
function mapSorted(pages: readonly Page[]): number {
  const length = pages.length * PMD_SIZE;
  const reserved = mmap({
    addr: 0,
    length: length + PMD_SIZE,
    prot: mman.PROT_NONE,
    flags: mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_NORESERVE,
    fd: -1,
    offset: 0,
  });
  const start = alignUp(reserved, PMD_SIZE);
  if (start > reserved) munmap({ addr: reserved, length: start - reserved });
  const behind = reserved + PMD_SIZE - start;
  if (behind > 0) munmap({ addr: start + length, length: behind });
  try {
    for (const [i, { fd, offset }] of pages.entries()) {
      const prot = mman.PROT_READ | mman.PROT_WRITE;
      const flags = mman.MAP_SHARED | mman.MAP_FIXED | mman.MAP_POPULATE;
      mmap({ addr: start + i * PMD_SIZE, length: PMD_SIZE, prot, flags, fd, offset });
    }
    mlock({ addr: start, len: length });
  } catch (error) {
    munmap({ addr: start, length });
    throw error;
  }
  return start;
}

/** Calls what takes pages, with as many more allowed as are missing in the pool. */
function withOvercommit(count: number, call: () => number): number {
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

/** @throws UnsupportedError where the kernel does not tell */
function physicalAddresses(address: number, count: number): number[] {
  const pagemap = new Pagemap('self');
  try {
    return Array.from({ length: count }, (_, i) => {
      const at = address + i * PMD_SIZE;
      const entry = pagemap.read(at, at + 4096);
      const pfn = pfnOf(entry, 0);
      if ((entry[1]! & PM_PRESENT) !== 0 && pfn !== 0) return pfn * 4096;
      throw new UnsupportedError({
        what: 'preserved memory in huge pages',
        why: '/proc/self/pagemap does not tell physical addresses to a process without CAP_SYS_ADMIN',
        remedy: 'run as root',
      });
    });
  } finally {
    pagemap[Symbol.dispose]();
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

function missing(count: number, why: string): UnsupportedError {
  return new UnsupportedError({
    what: 'preserved memory in huge pages',
    why: `${count} huge pages of 2 MiB are missing: ${why}`,
    remedy: 'reserve them early after boot (sysctl vm.nr_hugepages), or free memory',
  });
}
