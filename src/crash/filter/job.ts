/**
 * Copying the chosen pages of a dump, by several threads at once. Each takes the next chunk of pages, reads and packs them; then
 * it waits until the chunks before have their place in the file, takes the place behind them and writes. So the file is the
 * same whatever the number of threads, and nothing passes through one of them.
 */
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Range } from '../../mem/range.ts';
import { countBits } from '../bitmap.ts';
import { isZero } from '../bytes.ts';
import { type Compression, flagOf, type PageTools, portableTools } from '../codec/page.ts';
import { append, type Output, writeAt } from '../io/output.ts';
import { FlattenedOutput } from '../kdump/flattened.ts';
import { PAGE_CHECKSUM, page_desc } from '../kdump/format.ts';
import { lastNotAbove } from '../sorted.ts';
import type { PageSource } from '../source.ts';

/** Pages of a chunk. */
export const CHUNK_PAGES = 1024;

/** What all threads share; it goes from one to the other as it is. */
export interface CopyJob {
  readonly kind: 'copy';
  readonly form: KdumpForm | PlainForm;
  /** A bit for each page that is copied. */
  readonly bits: Uint8Array<SharedArrayBuffer>;
  /** Pages that this output gets, of those. */
  readonly pages: Range;
  /** Descriptor of the output, and whether it is a flattened stream to which is appended. */
  readonly fd: number;
  readonly flattened: boolean;
  readonly control: Int32Array<SharedArrayBuffer>;
  /** Bytes of the output that are taken: changed by the thread whose turn it is. */
  readonly taken: Float64Array<SharedArrayBuffer>;
}

/** Pages are compressed, and each has a descriptor. */
export interface KdumpForm {
  readonly kind: 'kdump';
  readonly compression: Compression;
  readonly descriptorsAt: number;
  /** Descriptors get a checksum of their page. */
  readonly checksums: boolean;
  /** The pages of each chunk begin at a multiple of it, in bytes; what is between them is zeros. */
  readonly alignment: number;
  /** Of each chunk, how many pages of this output come before it. */
  readonly ranks: Float64Array<SharedArrayBuffer>;
  /** Where the page stands that all pages of zeros share, and its length. */
  readonly zero: { readonly at: number; readonly size: number; readonly flags: number };
}

/** Pages are written as they are, to where the pieces say. */
export interface PlainForm {
  readonly kind: 'plain';
  /** Physical addresses at which pieces begin, sorted, and what is added to them for the place in the output. */
  readonly start: Float64Array<SharedArrayBuffer>;
  readonly delta: Float64Array<SharedArrayBuffer>;
}

export interface Copied {
  pages: number;
  zero: number;
  /** Chosen, and not readable: they are not in the output. */
  unreadable: number;
  /** Of a comparison: where what was written is not what it was written from. */
  readonly difference?: { readonly address: number; readonly found: string };
}

/** Words of CopyJob.control. */
export const NEXT = 0;
const TURN = 1;
const STOP = 2;
export const CONTROL_WORDS = 3;

/** Makes all threads of a job end soon. */
export function stopJob(control: Int32Array): void {
  Atomics.store(control, STOP, 1);
  Atomics.notify(control, TURN);
}

/** The next chunk that no thread has taken yet, or undefined where there is none or the job is to end. */
export function takeChunk({ pages, control }: Pick<CopyJob, 'pages' | 'control'>): number | undefined {
  const chunk = Atomics.add(control, NEXT, 1);
  return chunk < chunksOf(pages) && Atomics.load(control, STOP) === 0 ? chunk : undefined;
}

export function chunksOf({ start, end }: Range): number {
  return Math.ceil((end - start) / CHUNK_PAGES);
}

/** One thread's part of a job. @param to where the output goes, if not to the job's descriptor as it is */
export function copyPages(source: PageSource, job: CopyJob, to?: Output, tools = portableTools): Copied {
  const output: Output = job.flattened
    ? new FlattenedOutput((bytes) => append(job.fd, bytes))
    : (to ?? { write: (position, bytes) => writeAt(job.fd, position, bytes) });
  const copied: Copied = { pages: 0, zero: 0, unreadable: 0 };
  const pages = new ChunkReader(source, job, tools);
  const writer: ChunkWriter = job.form.kind === 'kdump' ? new KdumpChunk(job.form, tools) : new PlainChunk(job.form);
  for (;;) {
    const chunk = takeChunk(job);
    if (chunk === undefined) return copied;
    writer.begin(chunk);
    for (let i = pages.read(chunk); i >= 0; i = pages.next(i)) {
      const page = pages.page(i);
      if (page === undefined) {
        copied.unreadable++;
        writer.skip();
      } else if (pages.isZero(i)) {
        copied.zero++;
        writer.zero(pages.first + i);
      } else writer.add(pages.first + i, page, pages.sums[i]!);
      copied.pages++;
    }
    if (writer.isOrdered || job.flattened) {
      if (!waitForTurn(job.control, chunk)) return copied;
      writer.place(job.taken);
      if (job.flattened) writer.write(output);
      Atomics.store(job.control, TURN, chunk + 1);
      Atomics.notify(job.control, TURN);
      if (job.flattened) continue;
    }
    writer.write(output);
  }
}

function waitForTurn(control: Int32Array, chunk: number): boolean {
  for (;;) {
    const turn = Atomics.load(control, TURN);
    if (Atomics.load(control, STOP) !== 0) return false;
    if (turn === chunk) return true;
    Atomics.wait(control, TURN, turn, 1000);
  }
}

/** The chosen pages of a chunk, read in as few reads as there are runs of them. */
class ChunkReader {
  /** Page that the chunk begins with. */
  first = 0;
  /** Checksum of each page, where the job wants them. */
  readonly sums = new Uint32Array(CHUNK_PAGES);
  readonly #source: PageSource;
  readonly #job: CopyJob;
  readonly #checksums: PageTools['checksums'] | undefined;
  readonly #zeroSum = new Uint32Array(1);
  readonly #buffer: Uint8Array;
  readonly #pages: readonly Uint8Array[];
  readonly #isMissing = new Uint8Array(CHUNK_PAGES);
  #count = 0;

  constructor(source: PageSource, job: CopyJob, tools: PageTools) {
    this.#source = source;
    this.#job = job;
    this.#checksums = job.form.kind === 'kdump' && job.form.checksums ? tools.checksums : undefined;
    tools.checksums(new Uint8Array(PAGE_SIZE), this.#zeroSum);
    this.#buffer = tools.allocate(CHUNK_PAGES * PAGE_SIZE);
    this.#pages = Array.from({ length: CHUNK_PAGES }, (_, i) =>
      this.#buffer.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE),
    );
  }

  /** @returns the first chosen page of it, or -1 */
  read(chunk: number): number {
    const { start, end } = this.#job.pages;
    this.first = start + chunk * CHUNK_PAGES;
    this.#count = Math.min(CHUNK_PAGES, end - this.first);
    for (let from = this.next(-1); from >= 0; ) {
      let to = from + 1;
      while (to < this.#count && this.#isChosen(to)) to++;
      this.#readRun(from, to);
      from = this.next(to - 1);
    }
    return this.next(-1);
  }

  /** @returns the chosen page after this one, or -1 */
  next(page: number): number {
    for (let i = page + 1; i < this.#count; i++) if (this.#isChosen(i)) return i;
    return -1;
  }

  /** Whether a page that can be read is zeros. Where it has a checksum, no other page is looked at. */
  isZero(i: number): boolean {
    return (this.#checksums === undefined || this.sums[i] === this.#zeroSum[0]) && isZero(this.#pages[i]!);
  }

  /** undefined where it cannot be read. */
  page(i: number): Uint8Array | undefined {
    return this.#isMissing[i] === 0 ? this.#pages[i] : undefined;
  }

  #isChosen(i: number): boolean {
    const pfn = this.first + i;
    return ((this.#job.bits[pfn >>> 3]! >> (pfn & 7)) & 1) === 1;
  }

  #readRun(from: number, to: number): void {
    this.#isMissing.fill(0, from, to);
    const address = (this.first + from) * PAGE_SIZE;
    const run = this.#buffer.subarray(from * PAGE_SIZE, to * PAGE_SIZE);
    const hole = this.#source.readPhysical(address, run);
    // Up to the hole it is there; behind it each page is asked for.
    const found = hole === undefined ? to : from + Math.floor((hole.address - address) / PAGE_SIZE);
    for (let i = found; i < to; i++) {
      const missing = this.#source.readPhysical((this.first + i) * PAGE_SIZE, this.#pages[i]!);
      this.#isMissing[i] = missing === undefined ? 0 : 1;
    }
    this.#checksums?.(run, this.sums.subarray(from, to));
  }
}

/** A chunk on its way into the output. */
interface ChunkWriter {
  /** Whether where it goes depends on the chunks before. */
  readonly isOrdered: boolean;
  begin(chunk: number): void;
  /** @param sum its checksum, where the job wants them */
  add(pfn: number, page: Uint8Array, sum: number): void;
  zero(pfn: number): void;
  /** A page that cannot be read. */
  skip(): void;
  place(taken: Float64Array): void;
  write(output: Output): void;
}

class KdumpChunk implements ChunkWriter {
  readonly isOrdered = true;
  readonly #form: KdumpForm;
  readonly #compress: (page: Uint8Array) => Uint8Array;
  readonly #flag: number;
  readonly #zeroSum = new Uint32Array(1);
  readonly #data: Uint8Array;
  /** Pages that are next to each other and not compressed are copied together: how many bytes before #size are still to be. */
  #behind = 0;
  /** The last of them. */
  #last: Uint8Array | undefined;
  /** What is written: of #data, or the pages where they are, if all are next to each other and not compressed. */
  #whole: Uint8Array;
  readonly #descriptors = new DataView(new ArrayBuffer(CHUNK_PAGES * page_desc.size));
  #count = 0;
  #size = 0;
  #rank = 0;
  #at = 0;

  constructor(form: KdumpForm, tools: PageTools) {
    this.#form = form;
    this.#data = tools.allocate(CHUNK_PAGES * PAGE_SIZE);
    this.#whole = this.#data;
    this.#compress = tools.compressor(form.compression);
    this.#flag = flagOf[form.compression];
    tools.checksums(new Uint8Array(PAGE_SIZE), this.#zeroSum);
  }

  begin(chunk: number): void {
    this.#count = 0;
    this.#size = 0;
    this.#behind = 0;
    this.#last = undefined;
    this.#rank = this.#form.ranks[chunk]!;
  }

  add(_pfn: number, page: Uint8Array, sum: number): void {
    const packed = this.#compress(page);
    const isPlain = packed === page;
    if (!isPlain || this.#last === undefined || this.#last.byteOffset + PAGE_SIZE !== page.byteOffset) this.#catchUp();
    // The place among the chunk's data, until the chunk has its own.
    this.#describe(this.#size, packed.length, isPlain ? 0 : this.#flag, sum);
    if (isPlain) {
      this.#last = page;
      this.#behind += packed.length;
    } else this.#data.set(packed, this.#size);
    this.#size += packed.length;
  }

  #catchUp(): void {
    const pages = this.#notCopied();
    if (pages === undefined) return;
    this.#data.set(pages, this.#size - this.#behind);
    this.#last = undefined;
    this.#behind = 0;
  }

  #notCopied(): Uint8Array | undefined {
    if (this.#last === undefined) return undefined;
    return new Uint8Array(this.#last.buffer, this.#last.byteOffset + PAGE_SIZE - this.#behind, this.#behind);
  }

  zero(): void {
    const { at, size, flags } = this.#form.zero;
    this.#describe(-at, size, flags, this.#zeroSum[0]!);
  }

  skip(): void {
    this.#describe(Number.NaN, 0, 0, 0, false);
  }

  place(taken: Float64Array): void {
    const { alignment } = this.#form;
    const end = Math.ceil(this.#size / alignment) * alignment;
    if (this.#behind === this.#size && end === this.#size) this.#whole = this.#notCopied() ?? this.#data;
    else {
      this.#catchUp();
      this.#data.fill(0, this.#size, end);
      this.#whole = this.#data;
    }
    this.#size = end;
    this.#at = Math.ceil(taken[0]! / alignment) * alignment;
    taken[0] = this.#at + this.#size;
  }

  write(output: Output): void {
    const view = this.#descriptors;
    for (let i = 0; i < this.#count; i++) {
      const within = view.getFloat64(i * page_desc.size, true);
      // NaN for a page that is not there, whose descriptor is empty; negative for a place that is known already.
      const offset = Number.isNaN(within) ? 0 : within < 0 ? -within : this.#at + within;
      view.setUint32(i * page_desc.size, offset % 2 ** 32, true);
      view.setUint32(i * page_desc.size + 4, Math.floor(offset / 2 ** 32), true);
    }
    const bytes = new Uint8Array(view.buffer, 0, this.#count * page_desc.size);
    output.write(this.#form.descriptorsAt + this.#rank * page_desc.size, bytes);
    output.write(this.#at, this.#whole.subarray(0, this.#size));
  }

  #describe(offset: number, size: number, flags: number, sum: number, hasSum = this.#form.checksums): void {
    const at = this.#count * page_desc.size;
    this.#descriptors.setFloat64(at, offset, true);
    this.#descriptors.setUint32(at + page_desc.offsets.size, size, true);
    this.#descriptors.setUint32(at + page_desc.offsets.flags, flags, true);
    this.#descriptors.setUint32(at + page_desc.offsets.page_flags, hasSum ? sum : 0, true);
    this.#descriptors.setUint32(at + page_desc.offsets.page_flags + 4, hasSum ? PAGE_CHECKSUM : 0, true);
    this.#count++;
  }
}

/** Pages of zeros are not written: where nothing is written there are zeros. */
class PlainChunk implements ChunkWriter {
  readonly isOrdered = false;
  readonly #form: PlainForm;
  readonly #data = new Uint8Array(CHUNK_PAGES * PAGE_SIZE);
  /** Runs of pages that go to one place: physical address, and bytes in #data. */
  readonly #runs: { address: number; from: number; to: number }[] = [];
  #size = 0;

  constructor(form: PlainForm) {
    this.#form = form;
  }

  begin(): void {
    this.#size = 0;
    this.#runs.length = 0;
  }

  add(pfn: number, page: Uint8Array): void {
    this.#data.set(page, this.#size);
    const address = pfn * PAGE_SIZE;
    const last = this.#runs.at(-1);
    const goesOn = last !== undefined && last.address + last.to - last.from === address && !this.#begins(address);
    if (goesOn) last.to += PAGE_SIZE;
    else this.#runs.push({ address, from: this.#size, to: this.#size + PAGE_SIZE });
    this.#size += PAGE_SIZE;
  }

  zero(): void {}

  skip(): void {}

  place(): void {}

  write(output: Output): void {
    for (const { address, from, to } of this.#runs) {
      output.write(address + this.#form.delta[this.#piece(address)]!, this.#data.subarray(from, to));
    }
  }

  #begins(address: number): boolean {
    return this.#form.start[this.#piece(address)] === address;
  }

  #piece(address: number): number {
    return lastNotAbove(this.#form.start, this.#form.start.length, address);
  }
}

/** How many chosen pages of `pages` come before each of its chunks, and in all. */
export function ranksOf(bits: Uint8Array, pages: Range): { ranks: Float64Array<SharedArrayBuffer>; count: number } {
  const ranks = new Float64Array(new SharedArrayBuffer(chunksOf(pages) * 8));
  let count = 0;
  for (let i = 0; i < ranks.length; i++) {
    ranks[i] = count;
    const first = pages.start + i * CHUNK_PAGES;
    const last = Math.min(first + CHUNK_PAGES, pages.end);
    count += countRange(bits, first, last);
  }
  return { ranks, count };
}

function countRange(bits: Uint8Array, from: number, to: number): number {
  let count = 0;
  let at = from;
  const bit = () => (bits[at >>> 3]! >> (at & 7)) & 1;
  for (; at < to && at % 8 !== 0; at++) count += bit();
  const whole = to - (to % 8);
  if (at < whole) {
    count += countBits(bits.subarray(at / 8, whole / 8));
    at = whole;
  }
  for (; at < to; at++) count += bit();
  return count;
}
