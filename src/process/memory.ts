/** Contents of memory out of a process, or of what processes share, into an image. */
import { PE_LAZY, PE_PARENT, PE_PRESENT, VMA_AREA_GUARD } from '../image/messages/memory.ts';
import { PagemapWriter } from '../image/pagemap.ts';
import type { VmaEntry } from '../image/pages.ts';
import type { ImageDraft } from '../image/store.ts';
import { fileName, images, pagesFile } from '../image/types.ts';
import { close, pread64 } from '../sys/files.ts';
import { Region } from '../sys/region.ts';
import { findPages } from './pages.ts';
import { CHUNK, openMemory, readExactly, Scattered } from './reading.ts';
import { common, isUnknown, joined, NO_RUNS, RunList, type Runs, unknownRuns, without } from './runs.ts';
import { leftByFork } from './vma.ts';

const PAGE = 4096;
/** In place of a page that is not there any more. */
const NOTHING = new Uint8Array(PAGE);
let chunk: Region | undefined;

/** Contents of memory for one pagemap. */
export interface Memory {
  /** Of the pagemap: a process id, or `shmem-N`. */
  readonly name: number | string;
  readonly runs: Runs;
  /** What is not among it, and stands in the parent of the image. */
  readonly unchanged?: Runs;
  /** What is not among it, and will be asked for when the image is restored. */
  readonly later?: Runs;
  /** Hands out all of it, in the order of the runs; a part is valid until the next one. */
  each(take: (part: Uint8Array) => void): void;
  /** Copies all of it to a place here from where it is handed out later. */
  hold(place: HeldMemory): void;
}

/** Writes a pagemap whose contents will stand in pages-N.img. */
export function writePagemap(
  draft: Pick<ImageDraft, 'create'>,
  memory: Pick<Memory, 'name' | 'runs' | 'unchanged' | 'later'>,
  pagesId: number,
  file = fileName(images.PAGEMAP, memory.name),
): void {
  const writer = new PagemapWriter(draft.create(file), pagesId);
  const own = memory.runs.bounds;
  const lazy = memory.later !== undefined && memory.later.size > 0;
  const theirs = ((lazy ? memory.later : memory.unchanged) ?? NO_RUNS).bounds;
  const run = (bounds: Float64Array, i: number, flags: number) =>
    writer.run(bounds[i]!, (bounds[i + 1]! - bounds[i]!) / PAGE, flags);
  for (let i = 0, j = 0; i < own.length || j < theirs.length; ) {
    if (j >= theirs.length || own[i]! < theirs[j]!) {
      run(own, i, PE_PRESENT);
      i += 2;
    } else {
      run(theirs, j, lazy ? PE_LAZY : PE_PARENT);
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
  later: Runs = NO_RUNS;
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

  /** Has pages of some mappings left out, as somebody will ask for them. */
  leaveLater(which: (vma: VmaEntry) => boolean): void {
    const left = new RunList();
    for (const vma of this.#vmas) if (which(vma)) left.add(vma.start, vma.end);
    this.later = common(this.#runs, left.runs());
    this.#runs = without(this.#runs, this.later);
  }

  /** Reads some of it as it is now. */
  readNow(into: Region, address: number, length: number): Uint8Array {
    const fd = openMemory(this.#pid);
    try {
      readExactly(fd, this.#pid, address, into.address, length);
    } finally {
      close({ fd });
    }
    return into.bytes.subarray(0, length);
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
      scattered?.[Symbol.dispose]();
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
 * Writes memory of a process that runs, and may unmap what is to be read.
 *
 * @param whole zeros stand for what was unmapped, as the pagemap is written already
 * @returns what was read of the runs
 */
export function writeRunning(draft: ImageDraft, pid: number, runs: Runs, pagesId: number, whole: boolean): Runs {
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
        const read = got < PAGE ? 0 : got - (got % PAGE);
        if (read > 0) {
          sink.write(bytes.subarray(0, read));
          written.add(at, at + read);
        } else if (whole) sink.write(NOTHING);
        at += Math.max(PAGE, read);
      }
    }
  } finally {
    close({ fd });
    sink.close();
  }
  return written.runs();
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
