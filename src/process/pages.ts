/** Contents of memory: which pages are to be kept, out of a stopped process into an image, and back. */
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { PAGE_IS_FILE, PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGE_IS_SWAPPED } from '../abi/fs.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { iovec, UIO_MAXIOV } from '../abi/uio.ts';
import { SyscallError } from '../errors.ts';
import { PE_PARENT, PE_PRESENT, VMA_ANON_PRIVATE, VMA_AREA_GUARD, VMA_AREA_VDSO } from '../image/messages/memory.ts';
import { PagemapWriter } from '../image/pagemap.ts';
import type { MemoryImage, VmaEntry } from '../image/pages.ts';
import type { ImageDraft } from '../image/store.ts';
import { fileName, images, pagesFile } from '../image/types.ts';
import { close, openat, pread64, pwrite64 } from '../sys/files.ts';
import { mmap, munmap } from '../sys/memory.ts';
import { Pagemap } from '../sys/pagemap.ts';
import { process_vm_readv, writeMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { viewMemory } from '../sys/syscall.ts';
import { isUnknown, joined, NO_RUNS, RunList, type Runs, unknownRuns } from './runs.ts';
import { hasPages, leftByFork } from './vma.ts';

const PAGE = 4096;
/** More is slower: 256 KiB to 1 MiB copy at 11 GB/s, 8 MiB at 6.8, as they leave the cache. */
const CHUNK = 1 << 20;
let chunk: Region | undefined;

/** Which of the pages that are found are to be told apart. */
export interface Apart {
  readonly return_mask: number;
  /** @param categories those of return_mask that a page has */
  is(categories: number, vma: VmaEntry): boolean;
}

/**
 * Finds the pages that belong to a process and to nothing else: of private mappings, anonymous or copied on write. Pages of
 * zeros that were only read are left out.
 *
 * @returns those that are apart, and all others
 */
export function findPages(pid: number, vmas: readonly VmaEntry[], apart?: Apart): { pages: Runs; apart: Runs } {
  const [found, others] = [new RunList(), new RunList()];
  // A guarded page counts as one that is swapped out, and cannot be read.
  const guards = vmas.filter(({ status }) => (status & VMA_AREA_GUARD) !== 0);
  const add = (list: RunList, start: number, end: number): void => {
    if (start >= end) return;
    const guard = guards.find((each) => each.start < end && each.end > start);
    if (guard !== undefined) {
      add(list, start, guard.start);
      add(list, guard.end, end);
    } else list.add(start, end);
  };
  const kept = vmas.filter(hasPages);
  const pagemap = new Pagemap(pid);
  try {
    for (const { vmas: group, absent } of groupsOf(kept)) {
      const scanned = pagemap.scan(
        {
          start: group[0]!.start,
          end: group.at(-1)!.end,
          category_inverted: absent,
          category_mask: absent,
          category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
          return_mask: apart?.return_mask ?? 0,
        },
        group,
      );
      let at = 0;
      for (const vma of group) {
        // Programs read the vdso's symbols, and whoever restores compares it with his own.
        if ((vma.status & VMA_AREA_VDSO) !== 0) {
          add(found, vma.start, vma.end);
          continue;
        }
        while (at < scanned.length && scanned[at + 1]! <= vma.start) at += 3;
        for (let i = at; i < scanned.length && scanned[i]! < vma.end; i += 3) {
          const list = apart?.is(scanned[i + 2]!, vma) ? others : found;
          add(list, Math.max(scanned[i]!, vma.start), Math.min(scanned[i + 1]!, vma.end));
        }
      }
    }
  } finally {
    pagemap[Symbol.dispose]();
  }
  return { pages: found.runs(), apart: others.runs() };
}

/**
 * Mappings that are looked through at once, and which pages of them are not meant. That a page is a file's is not asked of memory
 * without one: the kernel looks at each page's own record for it. 1.4 GiB: 39 ms with that, 12 without.
 */
function groupsOf(vmas: readonly VmaEntry[]): { readonly vmas: VmaEntry[]; readonly absent: number }[] {
  const groups: { vmas: VmaEntry[]; absent: number }[] = [];
  for (const vma of vmas) {
    const absent = (vma.status & VMA_ANON_PRIVATE) === 0 ? PAGE_IS_FILE | PAGE_IS_PFNZERO : PAGE_IS_PFNZERO;
    const last = groups.at(-1);
    if (last?.absent === absent) last.vmas.push(vma);
    else groups.push({ vmas: [vma], absent });
  }
  return groups;
}

/** Contents of memory for one pagemap. */
export interface Memory {
  /** Of the pagemap: a process id, or `shmem-N`. */
  readonly name: number | string;
  readonly runs: Runs;
  /** What is not among it, and stands in the parent of the image. */
  readonly unchanged?: Runs;
  /** Hands out all of it, in the order of the runs; a part is valid until the next one. */
  each(take: (part: Uint8Array) => void): void;
  /** Copies all of it to a place here from where it is handed out later. */
  hold(place: HeldMemory): void;
}

/** Writes a pagemap whose contents will stand in pages-N.img. */
export function writePagemap(
  draft: ImageDraft,
  memory: Pick<Memory, 'name' | 'runs' | 'unchanged'>,
  pagesId: number,
): void {
  const writer = new PagemapWriter(draft.create(fileName(images.PAGEMAP, memory.name)), pagesId);
  const own = memory.runs.bounds;
  const theirs = memory.unchanged?.bounds ?? NO_RUNS.bounds;
  const run = (bounds: Float64Array, i: number, flags: number) =>
    writer.run(bounds[i]!, (bounds[i + 1]! - bounds[i]!) / PAGE, flags);
  for (let i = 0, j = 0; i < own.length || j < theirs.length; ) {
    if (j >= theirs.length || own[i]! < theirs[j]!) {
      run(own, i, PE_PRESENT);
      i += 2;
    } else {
      run(theirs, j, PE_PARENT);
      j += 2;
    }
  }
  writer.close();
}

export function writePages(draft: ImageDraft, memory: Memory, pagesId: number): void {
  const sink = draft.create(pagesFile(pagesId), memory.runs.size);
  memory.each((part) => sink.write(part));
  sink.close();
}

/** Room here for memory that is copied while its processes are stopped and written when they are not any more. */
export class HeldMemory {
  readonly #region: Region;
  #used = 0;

  /** @param expected how much of it is likely to be used: touching it takes longer than copying. Both in bytes */
  constructor(size: number, expected: number) {
    this.#region = new Region(size);
    this.#region.bytes.fill(0, 0, Math.min(expected, size));
  }

  take(size: number): { address: number; bytes: Uint8Array } {
    const from = this.#used;
    this.#used += size;
    return { address: this.#region.address + from, bytes: this.#region.bytes.subarray(from, from + size) };
  }

  /** Nothing of it is needed any more. */
  clear(): void {
    this.#used = 0;
  }

  [Symbol.dispose](): void {
    this.#region[Symbol.dispose]();
  }
}

/** What belongs to a process alone. */
export class ProcessMemory implements Memory {
  readonly name: number;
  /** The process itself. */
  readonly of: number;
  readonly unchanged: Runs;
  #runs: Runs;
  readonly #vmas: readonly VmaEntry[];
  /** Whose memory is read. */
  #pid: number;
  /** All of it, or what a snapshot does not have, one after the other. */
  #held: Uint8Array | undefined;
  #isHeld: (vma: VmaEntry) => boolean = () => false;
  /** Pages that are held, while it is not known what else there is. */
  #left: Runs | undefined;

  /**
   * @param pid whose it is, @param name its id in the image
   * @param pages what is to be written, and what the parent of the image has
   */
  constructor(
    { pid, name }: { pid: number; name: number },
    pages: { readonly pages: Runs; readonly unchanged: Runs },
    vmas: readonly VmaEntry[],
  ) {
    this.name = name;
    this.of = pid;
    this.#pid = pid;
    this.#runs = pages.pages;
    this.unchanged = pages.unchanged;
    this.#vmas = vmas;
  }

  /** Those that are unknownRuns() become known by find(). */
  get runs(): Runs {
    return this.#runs;
  }

  /** Whose memory it will be read from. */
  get from(): number {
    return this.#pid;
  }

  /** Of what a fork would not copy, in bytes. */
  get leftByFork(): number {
    let size = 0;
    if (isUnknown(this.#runs)) return this.#pages(leftByFork).size;
    this.#eachPart((from, to, vma) => {
      if (leftByFork(vma)) size += to - from;
    });
    return size;
  }

  hold(place: HeldMemory): void {
    this.#hold(place.take(this.runs.size), () => true);
  }

  /** Has it read from a copy of the process; what the copy lacks is read now. @param pid of the copy */
  moveTo(pid: number, place: HeldMemory): void {
    const { size } = this.#runs;
    const known = !isUnknown(this.#runs);
    if (!known) this.#runs = this.#pages(leftByFork);
    this.#hold(place.take(this.leftByFork), leftByFork);
    this.#pid = pid;
    if (known) return;
    this.#left = this.#runs;
    this.#runs = unknownRuns(size);
  }

  /** Finds the pages, if they are not known yet. */
  find(): void {
    if (!isUnknown(this.#runs)) return;
    const left = this.#left;
    this.#runs =
      left === undefined
        ? this.#pages(() => true)
        : joined(
            left,
            this.#pages((vma) => !leftByFork(vma)),
          );
  }

  #pages(of: (vma: VmaEntry) => boolean): Runs {
    return findPages(
      this.#pid,
      this.#vmas.filter((vma) => of(vma) || (vma.status & VMA_AREA_GUARD) !== 0),
    ).pages;
  }

  each(take: (part: Uint8Array) => void): void {
    chunk ??= new Region(CHUNK);
    const { address, bytes } = chunk;
    // A process whose memory is held may have ended.
    let fd = -1;
    let at = 0;
    // Runs are gathered: a page each, they would be written one by one.
    let gathered = 0;
    const scattered = this.unchanged.size > 0 ? new Scattered(this.#pid, address) : undefined;
    const flush = () => {
      scattered?.read();
      if (gathered > 0) take(bytes.subarray(0, gathered));
      gathered = 0;
    };
    try {
      this.#eachPart((from, to, vma) => {
        for (let offset = from; offset < to; ) {
          if (this.#isHeld(vma)) {
            flush();
            const count = Math.min(to - offset, CHUNK);
            take(this.#held!.subarray(at, at + count));
            at += count;
            offset += count;
            continue;
          }
          const count = Math.min(to - offset, CHUNK - gathered);
          if (scattered !== undefined) scattered.add(offset, count);
          else {
            if (fd < 0) fd = openMemory(this.#pid);
            readExactly(fd, this.#pid, offset, address + gathered, count);
          }
          gathered += count;
          offset += count;
          if (gathered === CHUNK) flush();
        }
      });
      flush();
    } finally {
      if (fd >= 0) close({ fd });
    }
  }

  #hold(place: { address: number; bytes: Uint8Array }, which: (vma: VmaEntry) => boolean): void {
    if (place.bytes.length > 0) {
      const fd = openMemory(this.#pid);
      try {
        let at = place.address;
        this.#eachPart((from, to, vma) => {
          if (!which(vma)) return;
          readExactly(fd, this.#pid, from, at, to - from);
          at += to - from;
        });
      } finally {
        close({ fd });
      }
    }
    this.#held = place.bytes;
    this.#isHeld = which;
  }

  /** Parts of runs that are within one mapping each. */
  #eachPart(take: (from: number, to: number, vma: VmaEntry) => void): void {
    const { bounds } = this.runs;
    let vma = 0;
    for (let i = 0; i < bounds.length; i += 2) {
      for (let from = bounds[i]!; from < bounds[i + 1]!; ) {
        while (this.#vmas[vma]!.end <= from) vma++;
        const to = Math.min(bounds[i + 1]!, this.#vmas[vma]!.end);
        take(from, to, this.#vmas[vma]!);
        from = to;
      }
    }
  }
}

/**
 * Pages here and there, read one behind the other by few calls: 8500 of them in 9 ms, where a pread(2) each takes 39. They were
 * written since the parent of the image was made, and so belong to this process alone: see openMemory().
 */
class Scattered {
  readonly #pid: number;
  readonly #to: number;
  readonly #ranges = Buffer.alloc(UIO_MAXIOV * iovec.size);
  #count = 0;
  /** Bytes that are read, and those that are asked for too. */
  #done = 0;
  #asked = 0;

  /** @param to where they are to lie here, each time from there on */
  constructor(pid: number, to: number) {
    this.#pid = pid;
    this.#to = to;
  }

  add(from: number, length: number): void {
    if (this.#count === UIO_MAXIOV) this.#some();
    iovec.write({ iov_base: from, iov_len: length }, this.#ranges.subarray(this.#count++ * iovec.size));
    this.#asked += length;
  }

  /** Reads what is left; the next one comes to the beginning. */
  read(): void {
    this.#some();
    this.#done = 0;
    this.#asked = 0;
  }

  #some(): void {
    if (this.#count === 0) return;
    const ranges = this.#ranges.subarray(0, this.#count * iovec.size);
    const [to, length] = [this.#to + this.#done, this.#asked - this.#done];
    const args = {
      ...{ pid: this.#pid, local_iov: iovec.write({ iov_base: to, iov_len: length }), liovcnt: 1 },
      ...{ remote_iov: ranges, riovcnt: this.#count, flags: 0 },
    };
    // What the process itself may not read is not read so either.
    if (process_vm_readv.attempt(args) !== length) this.#one(ranges, to);
    this.#done = this.#asked;
    this.#count = 0;
  }

  #one(ranges: Uint8Array, to: number): void {
    const fd = openMemory(this.#pid);
    try {
      for (let at = 0, done = 0; at < ranges.length; at += iovec.size) {
        const { iov_base, iov_len } = iovec.read(ranges, at);
        readExactly(fd, this.#pid, iov_base, to + done, iov_len);
        done += iov_len;
      }
    } finally {
      close({ fd });
    }
  }
}

/**
 * Memory is read through /proc/PID/mem: also what the process itself may not read, with PROT_NONE for instance. Unlike by
 * process_vm_readv(2), pages that are shared until one writes stay so: that pins them, and a page is given to one before it is
 * pinned (gup_must_unshare() of mm/gup.c, Linux 5.19). 1 GiB of a snapshot: 0.2 s against 3.2 s, and all of it twice.
 */
function openMemory(pid: number): number {
  return openat({ dirfd: AT_FDCWD, pathname: `/proc/${pid}/mem`, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
}

/**
 * Writes memory of a process that runs, and may unmap what is to be read.
 *
 * @returns what was written of the runs
 */
export function writeRunning(draft: ImageDraft, pid: number, runs: Runs, pagesId: number): Runs {
  chunk ??= new Region(CHUNK);
  const { address, bytes } = chunk;
  const written = new RunList();
  const { bounds } = runs;
  const fd = openMemory(pid);
  const sink = draft.create(pagesFile(pagesId), runs.size);
  try {
    for (let i = 0; i < bounds.length; i += 2) {
      for (let at = bounds[i]!; at < bounds[i + 1]!; ) {
        const got = pread64.attempt({ fd, buf: address, count: Math.min(bounds[i + 1]! - at, CHUNK), offset: at });
        const whole = got < PAGE ? 0 : got - (got % PAGE);
        if (whole > 0) {
          sink.write(bytes.subarray(0, whole));
          written.add(at, at + whole);
        }
        at += Math.max(PAGE, whole);
      }
    }
  } finally {
    close({ fd });
    sink.close();
  }
  return written.runs();
}

/** @param pid whose memory `fd` is, for the message of an error */
function readExactly(fd: number, pid: number, offset: number, buf: number, count: number): void {
  const got = pread64({ fd, buf, count, offset });
  if (got !== count) throw short('pread64', pid, got, count);
}

/** Parts of a file, as they stand in it. */
export class FileMemory implements Memory {
  readonly name: string;
  readonly runs: Runs;
  readonly #fd: number;
  #held: Uint8Array | undefined;

  constructor(name: string, fd: number, runs: Runs) {
    this.name = name;
    this.#fd = fd;
    this.runs = runs;
  }

  hold(place: HeldMemory): void {
    const { address, bytes } = place.take(this.runs.size);
    let done = 0;
    this.#eachPart((offset, count) => {
      readFilePart(this.#fd, offset, address + done, bytes.subarray(done, done + count));
      done += count;
    });
    this.#held = bytes;
  }

  each(take: (part: Uint8Array) => void): void {
    if (this.#held !== undefined) {
      take(this.#held);
      return;
    }
    chunk ??= new Region(CHUNK);
    const { address, bytes } = chunk;
    this.#eachPart((offset, count) => {
      readFilePart(this.#fd, offset, address, bytes.subarray(0, count));
      take(bytes.subarray(0, count));
    });
  }

  #eachPart(take: (offset: number, count: number) => void): void {
    const { bounds } = this.runs;
    for (let i = 0; i < bounds.length; i += 2) {
      for (let from = bounds[i]!; from < bounds[i + 1]!; from += CHUNK) {
        take(from, Math.min(bounds[i + 1]! - from, CHUNK));
      }
    }
  }
}

/** The last page of a file may end before the page does. */
function readFilePart(fd: number, offset: number, buf: number, bytes: Uint8Array): void {
  const got = pread64({ fd, buf, count: bytes.length, offset });
  bytes.fill(0, got);
}

/**
 * Hands out the contents that an image has, in its order, each byte once.
 *
 * @param later what is not wanted now
 * @param take gets where it belongs (an address, or an offset for shared memory), where it lies here until it returns, and
 *   its length in bytes
 */
export function eachPart(
  image: MemoryImage,
  take: (to: number, at: number, length: number) => void,
  later: Runs = NO_RUNS,
): void {
  chunk ??= new Region(CHUNK);
  const { runs } = image;
  const { bounds } = later;
  for (let i = 0, j = 0; i < runs.length; i++) {
    if ((runs.flags[i]! & PE_PRESENT) === 0) continue;
    const [start, end] = [runs.vaddr[i]!, runs.vaddr[i]! + runs.size[i]!];
    for (let at = start; at < end; ) {
      while (j < bounds.length && bounds[j + 1]! <= at) j += 2;
      if (j < bounds.length && bounds[j]! <= at) {
        at = bounds[j + 1]!;
        continue;
      }
      const length = Math.min(end - at, CHUNK, j < bounds.length ? bounds[j]! - at : CHUNK);
      image.readPages(chunk.bytes.subarray(0, length), runs.offset[i]! + at - start);
      take(at, chunk.address, length);
      at += length;
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
      const fd = openMemory(pid);
      try {
        readExactly(fd, pid, to + at, there.address + at, read - at);
      } finally {
        close({ fd });
      }
    }
    if (Buffer.compare(wanted.subarray(at, at + PAGE), there.bytes.subarray(at, at + PAGE)) !== 0) continue;
    write(at);
    written = at + PAGE;
  }
  write(length);
}

/** Fills a file, which keeps its size. One of huge pages can only be mapped. */
export function fillFile(image: MemoryImage, fd: number, size: number): void {
  let mapped = -1;
  try {
    eachPart(image, (offset, buf, length) => {
      const count = Math.min(length, size - offset);
      if (count <= 0) return;
      const args = { fd, buf, count, offset };
      const result = mapped < 0 ? pwrite64.attempt(args) : -Errno.EINVAL;
      if (result >= 0) return;
      if (result !== -Errno.EINVAL) throw pwrite64.error(args, result);
      if (mapped < 0)
        mapped = mmap({ addr: 0, length: size, prot: PROT_READ | PROT_WRITE, flags: MAP_SHARED, fd, offset: 0 });
      viewMemory(mapped + offset, count).set(viewMemory(buf, count));
    });
  } finally {
    if (mapped >= 0) munmap({ addr: mapped, length: size });
  }
}

function short(call: string, pid: number, got: number, length: number): SyscallError {
  return new SyscallError(call, `${call}(${pid}): ${got} of ${length} bytes`, 14);
}
