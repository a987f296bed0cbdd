/**
 * State of a process's pages: /proc/PID/pagemap, proc_pid_pagemap(5), and on Linux 6.7 and newer its ioctl PAGEMAP_SCAN,
 * Documentation/admin-guide/mm/pagemap.rst.
 */
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import * as abi from '../abi/fs.ts';
import { close, ioctl, openat, pread64 } from './files.ts';
import { Region } from './region.ts';

const PAGE = 4096;

// Entries are two u32 here, low half first, so that millions of them are tested without a BigInt.
const ENTRY_SIZE = 8;
/** Bits of the high half of an entry: bits 55 to 63 of the whole. */
export const PM_SOFT_DIRTY = 1 << (55 - 32);
/** A guard marker of MADV_GUARD_INSTALL; Linux 6.15. */
export const PM_GUARD_REGION = 1 << (58 - 32);
/** A page of a file, or shared anonymous memory. */
export const PM_FILE = 1 << (61 - 32);
const PM_SWAP = 1 << (62 - 32);
export const PM_PRESENT = 1 << (63 - 32);

/** Page frame number in the entry at index `i` of an array from Pagemap.read(); 0 without CAP_SYS_ADMIN. */
export function pfnOf(entries: Uint32Array, i: number): number {
  return entries[2 * i]! + (entries[2 * i + 1]! & 0x7f_ffff) * 2 ** 32;
}

/**
 * What to look for, as in pm_scan_arg. A page matches when of its categories, those in `category_inverted` flipped, all of
 * `category_mask` and, unless that is 0, one of `category_anyof_mask` are set. Pages that are not there never match.
 */
export interface PageFilter {
  /** Address of the first page. */
  readonly start: number;
  /** Behind the last page. */
  readonly end: number;
  readonly category_inverted: number;
  readonly category_mask: number;
  readonly category_anyof_mask: number;
  /** Which categories to tell about matching pages; runs of pages are divided where these differ. */
  readonly return_mask: number;
}

/** Categories that an entry of pagemap tells too. */
const IN_PAGEMAP =
  abi.PAGE_IS_FILE |
  abi.PAGE_IS_PRESENT |
  abi.PAGE_IS_SWAPPED |
  abi.PAGE_IS_PFNZERO |
  abi.PAGE_IS_SOFT_DIRTY |
  abi.PAGE_IS_GUARD;

const CHUNK = 1 << 18;
/** Where the regions lie behind a pm_scan_arg. */
const VEC = 128;
/** For both: entries of 32768 pages or, with the argument in front, regions. All use is synchronous. */
let scratch: Region | undefined;
let zeroPfn: number | undefined;

type Range = { readonly start: number; readonly end: number };

/** The open pagemap of a process. Close it with its disposer. */
export class Pagemap {
  readonly fd: number;

  /** @throws SyscallError ENOENT (no such process), EACCES (no ptrace access) */
  constructor(pid: number | 'self') {
    this.fd = openat({ dirfd: AT_FDCWD, pathname: `/proc/${pid}/pagemap`, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  }

  /** Entries of the pages from `start` to `end`: two u32 a page, low half first. Zero where nothing is mapped. */
  read(start: number, end: number): Uint32Array {
    const entries = new Uint32Array((2 * (end - start)) / PAGE);
    this.#each(start, end, (chunk, first) => entries.set(chunk, (2 * (first - start)) / PAGE));
    return entries;
  }

  /**
   * Finds pages, by PAGEMAP_SCAN where the kernel has it and else by scanWithoutIoctl().
   *
   * @param mapped where to look without it, in order: what is between takes no time with it, and for ever without
   * @returns runs of matching pages in order: start, end and categories of each, one after the other
   * @throws SyscallError EINVAL (a category that the kernel does not know)
   */
  scan(filter: PageFilter, mapped?: readonly Range[]): Float64Array {
    refuseAbsent(filter);
    const runs = new Runs();
    const error = this.#scan(filter, 0, runs);
    // Before the ioctl was there the file had none.
    if (error === -Errno.ENOTTY) return this.scanWithoutIoctl(filter, mapped);
    if (error < 0) throw ioctl.error({ fd: this.fd, request: abi.PAGEMAP_SCAN, arg: scratch!.address }, error);
    return runs.packed();
  }

  /** @param flags PM_SCAN_* @returns 0 or -errno */
  #scan(filter: PageFilter, flags: number, runs: Runs): number {
    scratch ??= new Region(CHUNK);
    const { bytes, view, address } = scratch;
    const vec = address + VEC;
    const vec_len = Math.floor((CHUNK - VEC) / abi.page_region.size);
    let found = vec_len;
    for (let { start } = filter; found === vec_len && start < filter.end; ) {
      const arg = { size: abi.pm_scan_arg.size, flags, vec, vec_len, ...filter, start };
      abi.pm_scan_arg.write(arg, bytes);
      found = ioctl.attempt({ fd: this.fd, request: abi.PAGEMAP_SCAN, arg: address });
      if (found < 0) return found;
      for (let at = VEC; at < VEC + found * abi.page_region.size; at += abi.page_region.size) {
        start = u64(view, at + abi.page_region.offsets.end);
        runs.add(u64(view, at), start, view.getUint32(at + abi.page_region.offsets.categories, true));
      }
      // Goes on behind the last run and not at walk_end: that is too low (seen on 6.18) when the walk came to its end
      // after the kernel's own buffer of 512 runs had been full.
    }
    return 0;
  }

  /**
   * Finds pages by reading their entries, on kernels before 6.7. It tells less: PAGE_IS_WRITTEN, WPALLOWED and HUGE are a
   * RangeError; a zero page counts as PAGE_IS_PFNZERO only where page frame numbers are told (CAP_SYS_ADMIN) and it is
   * no huge one; memory that was mapped since the last clear_refs counts as PAGE_IS_SOFT_DIRTY whole; and memory of
   * devices (VmFlags `pf`), which PAGEMAP_SCAN leaves out, is there.
   */
  scanWithoutIoctl(filter: PageFilter, mapped: readonly Range[] = [filter]): Float64Array {
    refuseAbsent(filter);
    const asked = filter.category_mask | filter.category_anyof_mask | filter.return_mask;
    if ((asked & ~IN_PAGEMAP) !== 0)
      throw new RangeError(`categories 0x${(asked & ~IN_PAGEMAP).toString(16)}: not in pagemap`);
    zeroPfn ??= findZeroPfn();
    const zero = zeroPfn;
    const { category_inverted, category_mask, category_anyof_mask, return_mask } = filter;
    const runs = new Runs();
    const look = (chunk: Uint32Array, first: number): void => {
      for (let i = 0, page = first; 2 * i < chunk.length; i++, page += PAGE) {
        const high = chunk[2 * i + 1]!;
        if ((high & (PM_PRESENT | PM_SWAP)) === 0) continue;
        let categories = 0;
        if ((high & PM_PRESENT) !== 0) categories |= abi.PAGE_IS_PRESENT;
        if ((high & PM_SWAP) !== 0) categories |= abi.PAGE_IS_SWAPPED;
        if ((high & PM_FILE) !== 0) categories |= abi.PAGE_IS_FILE;
        if ((high & PM_SOFT_DIRTY) !== 0) categories |= abi.PAGE_IS_SOFT_DIRTY;
        if ((high & PM_GUARD_REGION) !== 0) categories |= abi.PAGE_IS_GUARD;
        if (zero !== 0 && (high & PM_PRESENT) !== 0 && pfnOf(chunk, i) === zero) categories |= abi.PAGE_IS_PFNZERO;
        const flipped = categories ^ category_inverted;
        if ((flipped & category_mask) !== category_mask) continue;
        if (category_anyof_mask !== 0 && (flipped & category_anyof_mask) === 0) continue;
        runs.add(page, page + PAGE, categories & return_mask);
      }
    };
    for (const { start, end } of mapped) this.#each(Math.max(start, filter.start), Math.min(end, filter.end), look);
    return runs.packed();
  }

  /**
   * Write-protects the pages that are there and were written since they were protected last, in memory that is registered for
   * it with a userfaultfd of UFFD_FEATURE_WP_ASYNC. Whoever writes lifts that again, page by page.
   *
   * @returns them, as scan() does: nothing that is written meanwhile is missed by both this and the next time
   * @throws SyscallError EPERM (the memory is not registered so), ENOTTY (a kernel before 6.7)
   */
  protectWritten({ start, end }: Range): Float64Array {
    const category_anyof_mask = abi.PAGE_IS_PRESENT | abi.PAGE_IS_SWAPPED;
    const filter = { start, end, category_inverted: 0, category_mask: abi.PAGE_IS_WRITTEN, category_anyof_mask };
    const runs = new Runs();
    const flags = abi.PM_SCAN_WP_MATCHING | abi.PM_SCAN_CHECK_WPASYNC;
    const error = this.#scan({ ...filter, return_mask: 0 }, flags, runs);
    if (error < 0) throw ioctl.error({ fd: this.fd, request: abi.PAGEMAP_SCAN, arg: scratch!.address }, error);
    return runs.packed();
  }

  [Symbol.dispose](): void {
    close({ fd: this.fd });
  }

  /** Hands out the entries from `start` to `end` in parts; a part is valid until the next one. */
  #each(start: number, end: number, take: (entries: Uint32Array, first: number) => void): void {
    scratch ??= new Region(CHUNK);
    for (let first = start; first < end; ) {
      const count = Math.min(((end - first) / PAGE) * ENTRY_SIZE, CHUNK);
      const args = { fd: this.fd, buf: scratch.address, count, offset: (first / PAGE) * ENTRY_SIZE };
      const length = pread64(args);
      // The file ends with the address space.
      if (length === 0) return;
      take(new Uint32Array(scratch.bytes.buffer, 0, length / 4), first);
      first += (length / ENTRY_SIZE) * PAGE;
    }
  }
}

/** Runs of pages under construction: three numbers each. */
class Runs {
  #numbers = new Float64Array(3 * 256);
  #length = 0;

  add(start: number, end: number, categories: number): void {
    const last = this.#length - 3;
    if (last >= 0 && this.#numbers[last + 1] === start && this.#numbers[last + 2] === categories) {
      this.#numbers[last + 1] = end;
      return;
    }
    if (this.#length === this.#numbers.length) {
      const larger = new Float64Array(2 * this.#length);
      larger.set(this.#numbers);
      this.#numbers = larger;
    }
    this.#numbers[this.#length++] = start;
    this.#numbers[this.#length++] = end;
    this.#numbers[this.#length++] = categories;
  }

  packed(): Float64Array {
    return this.#numbers.slice(0, this.#length);
  }
}

/** What is said of pages that are not there depends on the kernel: whether there is a mapping, and since when. */
function refuseAbsent(filter: PageFilter): void {
  const there = abi.PAGE_IS_PRESENT | abi.PAGE_IS_SWAPPED;
  const { category_inverted, category_mask, category_anyof_mask } = filter;
  const byAll = (category_mask & there & ~category_inverted) !== 0;
  const byAny =
    category_anyof_mask !== 0 &&
    (category_anyof_mask & ~there) === 0 &&
    (category_anyof_mask & category_inverted) === 0;
  if (!byAll && !byAny) throw new RangeError('a page filter must ask for PAGE_IS_PRESENT or PAGE_IS_SWAPPED');
}

/** Frame of the page of zeros that all untouched memory shares once it is read; 0 where frames are not told. */
function findZeroPfn(): number {
  const page = new Region(PAGE);
  const pagemap = new Pagemap('self');
  try {
    // A read, not a write, and its result is used so that it is made.
    if (page.bytes[0] !== 0) throw new Error('fresh memory is not zero');
    return pfnOf(pagemap.read(page.address, page.address + PAGE), 0);
  } finally {
    pagemap[Symbol.dispose]();
    page[Symbol.dispose]();
  }
}

function u64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}
