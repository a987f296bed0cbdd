/** Contents of memory: which pages are to be kept, out of a stopped process into an image, and back. */
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { PAGE_IS_FILE, PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGE_IS_SWAPPED } from '../abi/fs.ts';
import { PROT_READ } from '../abi/mman.ts';
import { iovec, UIO_MAXIOV } from '../abi/uio.ts';
import { SyscallError } from '../errors.ts';
import { PE_PRESENT, VMA_AREA_GUARD, VMA_AREA_VDSO } from '../image/messages/memory.ts';
import { PagemapWriter } from '../image/pagemap.ts';
import type { MemoryImage, VmaEntry } from '../image/pages.ts';
import type { ImageDraft } from '../image/store.ts';
import { fileName, images, pagesFile } from '../image/types.ts';
import { close, openat, pread64, pwrite64 } from '../sys/files.ts';
import { Pagemap } from '../sys/pagemap.ts';
import { process_vm_readv, writeMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { viewMemory } from '../sys/syscall.ts';
import { hasPages } from './vma.ts';

const PAGE = 4096;
/** More is slower: 256 KiB to 1 MiB copy at 11 GB/s, 8 MiB at 6.8, as they leave the cache. */
const CHUNK = 1 << 20;
let chunk: Region | undefined;

/** Runs of pages: start and end of each, in order. */
export interface Runs {
  readonly bounds: Float64Array;
  /** In bytes. */
  readonly size: number;
}

/**
 * Finds the pages that belong to a process and to nothing else: of private mappings, anonymous or copied on write. Pages of
 * zeros that were only read are left out.
 */
export function findPages(pid: number, vmas: readonly VmaEntry[]): Runs {
  const found: number[] = [];
  let size = 0;
  // A guarded page counts as one that is swapped out, and cannot be read.
  const guards = vmas.filter(({ status }) => (status & VMA_AREA_GUARD) !== 0);
  const add = (start: number, end: number): void => {
    if (start >= end) return;
    const guard = guards.find((each) => each.start < end && each.end > start);
    if (guard !== undefined) {
      add(start, guard.start);
      add(guard.end, end);
      return;
    }
    size += end - start;
    if (found.at(-1) === start) found[found.length - 1] = end;
    else found.push(start, end);
  };
  const kept = vmas.filter(hasPages);
  const last = kept.at(-1);
  if (last === undefined) return { bounds: new Float64Array(0), size };
  const pagemap = new Pagemap(pid);
  try {
    const scanned = pagemap.scan({
      start: kept[0]!.start,
      end: last.end,
      category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
      category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
      category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
      return_mask: 0,
    });
    let at = 0;
    for (const vma of kept) {
      // Programs read the vdso's symbols, and whoever restores compares it with his own.
      if ((vma.status & VMA_AREA_VDSO) !== 0) {
        add(vma.start, vma.end);
        continue;
      }
      while (at < scanned.length && scanned[at + 1]! <= vma.start) at += 3;
      for (let i = at; i < scanned.length && scanned[i]! < vma.end; i += 3) {
        add(Math.max(scanned[i]!, vma.start), Math.min(scanned[i + 1]!, vma.end));
      }
    }
  } finally {
    pagemap[Symbol.dispose]();
  }
  return { bounds: Float64Array.from(found), size };
}

/** Writes a pagemap whose contents will stand in pages-N.img. */
export function writePagemap(draft: ImageDraft, name: number | string, pagesId: number, runs: Runs): void {
  const writer = new PagemapWriter(draft.create(fileName(images.PAGEMAP, name)), pagesId);
  const { bounds } = runs;
  for (let i = 0; i < bounds.length; i += 2) {
    writer.run(bounds[i]!, (bounds[i + 1]! - bounds[i]!) / PAGE, PE_PRESENT);
  }
  writer.close();
}

/** Copies the pages of a stopped process. @param vmas tell which of it can be read as the process itself would */
export function writePages(
  draft: ImageDraft,
  pagesId: number,
  pid: number,
  { bounds, size }: Runs,
  vmas: readonly VmaEntry[],
): void {
  chunk ??= new Region(CHUNK);
  const { address, bytes } = chunk;
  const sink = draft.create(pagesFile(pagesId), size);
  const remote = new Uint8Array(UIO_MAXIOV * iovec.size);
  let [filled, count] = [0, 0];
  const flush = (): void => {
    if (filled === 0) return;
    if (count > 0) {
      const local = iovec.write({ iov_base: address, iov_len: filled });
      const args = { pid, local_iov: local, liovcnt: 1, remote_iov: remote, riovcnt: count, flags: 0 };
      const got = process_vm_readv(args);
      if (got !== filled) throw short('process_vm_readv', pid, got, filled);
    }
    sink.write(bytes.subarray(0, filled));
    [filled, count] = [0, 0];
  };
  let vma = 0;
  for (let i = 0; i < bounds.length; i += 2) {
    for (let from = bounds[i]!; from < bounds[i + 1]!; ) {
      while (vmas[vma]!.end <= from) vma++;
      const length = Math.min(bounds[i + 1]! - from, vmas[vma]!.end - from, CHUNK - filled);
      if ((vmas[vma]!.prot & PROT_READ) !== 0) {
        iovec.write({ iov_base: from, iov_len: length }, remote, count * iovec.size);
        count++;
        filled += length;
      } else {
        flush();
        readThrough(pid, from, address, length);
        filled += length;
        flush();
      }
      from += length;
      if (filled === CHUNK || count === UIO_MAXIOV) flush();
    }
  }
  flush();
  sink.close();
}

/**
 * Reads memory through /proc/PID/mem: also what the process itself may not read, with PROT_NONE for instance. Unlike by
 * process_vm_readv(2), pages that are shared until one writes stay so: that pins them, and a page is given to one before it is
 * pinned (gup_must_unshare() of mm/gup.c, Linux 5.19).
 */
function readThrough(pid: number, from: number, to: number, length: number): void {
  const fd = openat({ dirfd: AT_FDCWD, pathname: `/proc/${pid}/mem`, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  try {
    const got = pread64({ fd, buf: to, count: length, offset: from });
    if (got !== length) throw short('pread64', pid, got, length);
  } finally {
    close({ fd });
  }
}

/** Copies parts of a file, as they stand in it. */
export function writeFilePages(draft: ImageDraft, pagesId: number, fd: number, { bounds, size }: Runs): void {
  chunk ??= new Region(CHUNK);
  const { address, bytes } = chunk;
  const sink = draft.create(pagesFile(pagesId), size);
  for (let i = 0; i < bounds.length; i += 2) {
    for (let from = bounds[i]!; from < bounds[i + 1]!; ) {
      const count = Math.min(bounds[i + 1]! - from, CHUNK);
      const got = pread64({ fd, buf: address, count, offset: from });
      // The last page of a file may end before the page does.
      bytes.fill(0, got, count);
      sink.write(bytes.subarray(0, count));
      from += count;
    }
  }
  sink.close();
}

/**
 * Hands out the contents that an image has, in its order, each byte once.
 *
 * @param take gets where it belongs (an address, or an offset for shared memory), where it lies here until it returns, and
 *   its length in bytes
 */
export function eachPart(image: MemoryImage, take: (to: number, at: number, length: number) => void): void {
  chunk ??= new Region(CHUNK);
  const { runs } = image;
  for (let i = 0; i < runs.length; i++) {
    if ((runs.flags[i]! & PE_PRESENT) === 0) continue;
    for (let done = 0; done < runs.size[i]!; ) {
      const length = Math.min(runs.size[i]! - done, CHUNK);
      image.readPages(chunk.bytes.subarray(0, length), runs.offset[i]! + done);
      take(runs.vaddr[i]! + done, chunk.address, length);
      done += length;
    }
  }
}

/** Fills memory of a process that is being restored. */
export function fillMemory(pid: number, to: number, from: number, length: number): void {
  const got = writeMemory(pid, to, from, length);
  if (got !== length) throw short('process_vm_writev', pid, got, length);
}

let there: Region | undefined;

/**
 * Fills memory of a process that may have some of it already: pages with the same content are left alone.
 *
 * @param may whether the page at an address may be there
 */
export function fillWhereOther(
  pid: number,
  to: number,
  from: number,
  length: number,
  may: (at: number) => boolean,
): void {
  there ??= new Region(CHUNK);
  const wanted = viewMemory(from, length);
  let written = 0;
  let read = 0;
  const write = (end: number): void => {
    if (end > written) fillMemory(pid, to + written, from + written, end - written);
  };
  for (let at = 0; at < length; at += PAGE) {
    if (!may(to + at)) continue;
    if (at >= read) {
      read = at + PAGE;
      while (read < length && may(to + read)) read += PAGE;
      readThrough(pid, to + at, there.address + at, read - at);
    }
    if (Buffer.compare(wanted.subarray(at, at + PAGE), there.bytes.subarray(at, at + PAGE)) !== 0) continue;
    write(at);
    written = at + PAGE;
  }
  write(length);
}

/** Fills a file, which keeps its size. */
export function fillFile(image: MemoryImage, fd: number, size: number): void {
  eachPart(image, (offset, buf, length) => {
    const count = Math.min(length, size - offset);
    if (count > 0) pwrite64({ fd, buf, count, offset });
  });
}

function short(call: string, pid: number, got: number, length: number): SyscallError {
  return new SyscallError(call, `${call}(${pid}): ${got} of ${length} bytes`, 14);
}
