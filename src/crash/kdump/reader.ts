/** Reads kdump-compressed files: one, or the files of a split set, each of which holds some of the pages (format.ts). */
import { type Note, readNotes } from '../../abi/elfnote.ts';
import { FormatError, UnsupportedError } from '../../errors.ts';
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Range } from '../../mem/range.ts';
import { FileBitmap, runsOfBits } from '../bitmap.ts';
import { bounded, isZero, readExactly } from '../bytes.ts';
import { compressionOf, type PageTools, portableTools } from '../codec/page.ts';
import type { Reader } from '../io/reader.ts';
import { Window } from '../io/window.ts';
import { MAX_NOTES, MAX_PAGES, MAX_SEGMENTS } from '../limits.ts';
import type { DumpHeader, Hole, HoleReason, PageSource } from '../source.ts';
import { vmcoreinfoOf } from '../vmcoreinfo.ts';
import { Descriptors } from './descriptors.ts';
import {
  DUMP_DH_COMPRESSED_INCOMPLETE,
  disk_dump_header,
  KDUMP_SIGNATURE,
  kdump_sub_header,
  page_desc,
} from './format.ts';

const DATA_WINDOW = 1 << 20;
/** Pages that are prepared at a time, at most. */
const PREPARED = 1024;
const DESCRIPTOR_WINDOW = 49152;
/** Pages that are read together at most. */
const MAX_RUN = DESCRIPTOR_WINDOW / page_desc.size;
/** From this many bytes on pages that are not compressed are read to where they belong, and not through a window. */
const LARGE = 1 << 16;

export interface KdumpInput {
  readonly reader: Reader;
  /** It is the content of a flattened stream. */
  readonly flattened: boolean;
  /** The stream has an end. */
  readonly isWhole: boolean;
}

/** @throws FormatError where a file is none, or where the files are not of one set */
export function openKdump(inputs: readonly [KdumpInput, ...KdumpInput[]], tools = portableTools): PageSource {
  const files = inputs.map((input) => new KdumpFile(input, tools)).sort((a, b) => a.pages.start - b.pages.start);
  const [first] = files as [KdumpFile, ...KdumpFile[]];
  for (const file of files) first.checkSibling(file);
  const notes = files.find((file) => file.notes.length > 0)?.notes ?? [];
  const isPartOfSet = files.some(({ isSplit }) => isSplit);
  const covered = files.reduce(
    (pages, file) => (file.pages.start <= pages ? Math.max(pages, file.pages.end) : pages),
    0,
  );
  const header: DumpHeader = {
    ...first.facts,
    incomplete: files.some(({ incomplete }) => incomplete) || (isPartOfSet && covered < first.present.length),
    files: files.length,
  };
  const page = new Uint8Array(PAGE_SIZE);

  /** Fills `into`, a whole page. */
  function readPage(pfn: number, into: Uint8Array): Hole | undefined {
    const hole = (reason: HoleReason, detail?: string): Hole => {
      return { reason, address: pfn * PAGE_SIZE, ...(detail !== undefined && { detail }) };
    };
    if (pfn >= first.present.length) return hole('missing');
    const file = files.find(({ pages }) => pages.start <= pfn && pfn < pages.end);
    if (!(file ?? first).stored.has(pfn)) return hole(first.present.has(pfn) ? 'excluded' : 'missing');
    if (file === undefined) return hole('incomplete', 'another file of the split set holds it');
    return file.readPage(pfn, into, hole);
  }

  return {
    file: first.reader.name,
    format: 'kdump',
    pageSize: PAGE_SIZE,
    ranges: first.ranges,
    notes,
    header,
    storedPages(start, bits) {
      first.stored.copy(start, bits);
    },
    prepare(start, count) {
      if (files.length === 1) first.prepare(start, count);
    },
    readPhysical(address, into) {
      for (let done = 0; done < into.length; ) {
        const at = address + done;
        const within = at % PAGE_SIZE;
        const pfn = (at - within) / PAGE_SIZE;
        if (within === 0 && files.length === 1) {
          const pages = Math.min(Math.floor((into.length - done) / PAGE_SIZE), MAX_RUN);
          if (pages > 1 && first.readRun(pfn, into.subarray(done, done + pages * PAGE_SIZE))) {
            done += pages * PAGE_SIZE;
            continue;
          }
        }
        const length = Math.min(PAGE_SIZE - within, into.length - done);
        const target = length === PAGE_SIZE ? into.subarray(done, done + PAGE_SIZE) : page;
        const hole = readPage(pfn, target);
        if (hole !== undefined) return { ...hole, address: at };
        if (target === page) into.set(page.subarray(within, within + length), done);
        done += length;
      }
      return undefined;
    },
    close() {
      for (const { reader } of files) reader.close();
    },
  };
}

class KdumpFile {
  readonly reader: Reader;
  readonly facts: Omit<DumpHeader, 'incomplete' | 'files'>;
  readonly incomplete: boolean;
  readonly isSplit: boolean;
  /** Page numbers of which this file holds those that are in the dump. */
  readonly pages: Range;
  readonly ranges: readonly Range[];
  readonly notes: readonly Note[];
  /** Bitmap 1. */
  readonly present: FileBitmap;
  /** Bitmap 2. */
  readonly stored: FileBitmap;
  readonly #descriptorsAt: number;
  readonly #firstRank: number;
  readonly #descriptors: Window;
  readonly #data: Window;
  /** What was prepared: its data, its first page, how many pages, and how many of the file's come before each of them. */
  #chunk: Window | undefined;
  #first = 0;
  #prepared = 0;
  readonly #before = new Float64Array(PREPARED + 1);
  readonly #tools: PageTools;
  /** Checksums of the pages of a run. */
  readonly #found = new Uint32Array(MAX_RUN);
  /** Where the page of zeros stands that all pages of zeros share, once one was seen. */
  #zeroAt = -1;

  constructor({ reader, flattened, isWhole }: KdumpInput, tools: PageTools) {
    this.reader = reader;
    this.#tools = tools;
    const main = disk_dump_header.read(readExactly(reader, 0, disk_dump_header.size, 'header'));
    const { offsets } = disk_dump_header;
    const { header_version: version, block_size: block } = main;
    const signature = main.signature.padEnd(KDUMP_SIGNATURE.length);
    if (signature !== KDUMP_SIGNATURE) this.#wrong(0, 'signature', KDUMP_SIGNATURE, JSON.stringify(signature));
    if (version < 1 || version > 6) this.#wrong(offsets.header_version, 'header_version', '1 to 6', `${version}`);
    if (block !== PAGE_SIZE) {
      // Other machines have pages of 16 and 64 KiB.
      if (block === 16384 || block === 65536) {
        const remedy = 'tideover reads those of x86-64';
        throw new UnsupportedError({ what: reader.name, why: `has pages of ${block} bytes`, remedy });
      }
      this.#wrong(offsets.block_size, 'block_size', `${PAGE_SIZE}`, `${block}`);
    }
    if (main.sub_hdr_size < 1 || main.sub_hdr_size > MAX_SEGMENTS) {
      this.#wrong(offsets.sub_hdr_size, 'sub_hdr_size', `1 to ${MAX_SEGMENTS} blocks`, `${main.sub_hdr_size}`);
    }
    const sub = kdump_sub_header.read(readExactly(reader, block, kdump_sub_header.size, 'sub header'));
    const subField = (name: keyof typeof kdump_sub_header.offsets, limit: number) =>
      bounded(reader, block + kdump_sub_header.offsets[name], name, sub[name] as bigint, limit);

    const length = version >= 6 ? subField('max_mapnr_64', MAX_PAGES) : main.max_mapnr;
    const bitmapAt = (1 + main.sub_hdr_size) * block;
    const bitmapBytes = main.bitmap_blocks * block;
    // A file in which nothing is excluded may have one bitmap for both.
    const isDouble = main.bitmap_blocks >= 2 * Math.ceil(length / 8 / block);
    const half = isDouble ? bitmapBytes / 2 : bitmapBytes;
    if (half * 8 < length) {
      this.#wrong(offsets.bitmap_blocks, 'bitmap_blocks', `room for ${length} pages`, `${main.bitmap_blocks}`);
    }
    if (bitmapAt + bitmapBytes > reader.size) readExactly(reader, bitmapAt, bitmapBytes, 'bitmaps');
    this.stored = new FileBitmap(reader, bitmapAt + (isDouble ? half : 0), length);
    this.present = isDouble ? new FileBitmap(reader, bitmapAt, length) : this.stored;
    const runs = runsOfBits(reader, bitmapAt, length, MAX_SEGMENTS);
    if (runs === undefined) this.#wrong(bitmapAt, 'bitmap', `at most ${MAX_SEGMENTS} pieces of memory`, 'more');
    this.ranges = runs.map(({ start, end }) => ({ start: start * PAGE_SIZE, end: end * PAGE_SIZE }));

    this.isSplit = version >= 2 && sub.split !== 0;
    this.pages = { start: 0, end: length };
    if (this.isSplit) {
      const [start, end] =
        version >= 6 ? (['start_pfn_64', 'end_pfn_64'] as const) : (['start_pfn', 'end_pfn'] as const);
      this.pages = { start: subField(start, length), end: subField(end, MAX_PAGES) };
    }
    this.#descriptorsAt = bitmapAt + bitmapBytes;
    this.#firstRank = this.stored.rank(this.pages.start);
    const count = this.stored.rank(this.pages.end) - this.#firstRank;
    this.#descriptors = new Window(reader, DESCRIPTOR_WINDOW);
    this.#data = new Window(reader, DATA_WINDOW);
    this.incomplete =
      !isWhole ||
      (main.status & DUMP_DH_COMPRESSED_INCOMPLETE) !== 0 ||
      this.#descriptorsAt + count * page_desc.size > reader.size ||
      this.#lastData(count) > reader.size;

    const part = (offset: 'offset_note' | 'offset_vmcoreinfo' | 'offset_eraseinfo', size: `size_${string}`) => {
      const length = subField(size as 'size_note', MAX_NOTES);
      if (length === 0) return undefined;
      return readExactly(reader, subField(offset, Number.MAX_SAFE_INTEGER), length, offset);
    };
    const notes = version >= 4 ? [...readNotes(part('offset_note', 'size_note') ?? new Uint8Array(0))] : [];
    const text = version >= 3 ? part('offset_vmcoreinfo', 'size_vmcoreinfo') : undefined;
    if (text !== undefined && !notes.some(({ name }) => name === 'VMCOREINFO')) {
      notes.push({ name: 'VMCOREINFO', type: 0, desc: text });
    }
    const erased = version >= 5 ? part('offset_eraseinfo', 'size_eraseinfo') : undefined;
    if (erased !== undefined) notes.push({ name: 'ERASEINFO', type: 0, desc: erased });
    this.notes = notes;
    const time = Number(main.tv_sec);
    // QEMU knows the machine only; what else it knows of the kernel is in its VMCOREINFO.
    const release = vmcoreinfoOf(notes)?.release;
    const known = Object.entries(main.utsname).filter(([, text]) => text !== '');
    this.facts = {
      utsname: { ...(release !== undefined && { release }), ...Object.fromEntries(known) },
      ...(time > 0 && Number.isSafeInteger(time) && { time }),
      ...(main.nr_cpus > 0 && { cpus: main.nr_cpus }),
      dumpLevel: sub.dump_level,
      compression: compressionOf(main.status),
      flattened,
    };
  }

  /** Where the data of the last pages ends: pages are written in their order, but for those of zeros. */
  #lastData(count: number): number {
    const some = Math.min(count, DESCRIPTOR_WINDOW / page_desc.size);
    const length = some * page_desc.size;
    const bytes = this.#descriptors.at(this.#descriptorsAt + count * page_desc.size - length, length);
    const descriptors = new Descriptors(bytes);
    let end = 0;
    for (let i = 0; i < Math.floor(bytes.length / page_desc.size); i++) {
      end = Math.max(end, descriptors.position(i) + descriptors.size(i));
    }
    return end;
  }

  /** Whether another file describes the same memory. @throws FormatError where it does not */
  checkSibling(other: KdumpFile): void {
    if (other === this) return;
    const isSame = other.stored.length === this.stored.length && other.stored.count === this.stored.count;
    if (isSame && other.isSplit && other.pages.start >= this.pages.end) return;
    throw new FormatError({
      file: other.reader.name,
      field: 'split set',
      expected: `another part of the dump that ${this.reader.name} is of`,
      found: isSame ? 'the same part, or a whole dump' : 'another dump',
    });
  }

  /** A page that is in this file. */
  readPage(pfn: number, into: Uint8Array, hole: (reason: HoleReason, detail?: string) => Hole): Hole | undefined {
    const at = this.#descriptorsAt + (this.stored.rank(pfn) - this.#firstRank) * page_desc.size;
    const bytes = this.#descriptors.at(at, page_desc.size);
    if (bytes.length < page_desc.size) return hole('incomplete', 'its descriptor is not in the file');
    const descriptor = new Descriptors(bytes);
    const [position, size] = [descriptor.position(0), descriptor.size(0)];
    // A file that was cut while it was written has no descriptors from there on.
    if (position === 0) return hole('incomplete', 'its descriptor was not written');
    if (position === this.#zeroAt) {
      into.fill(0);
      return undefined;
    }
    if (position < 0 || size > PAGE_SIZE) return hole('damaged', `its descriptor at byte ${at} is not one`);
    const packed = this.#data.at(position, size);
    if (packed.length < size) return hole('incomplete', 'the file ends before it');
    const wrong = this.#tools.decompress(descriptor.flags(0), packed, into);
    if (wrong !== undefined) return hole('damaged', `at byte ${position}: ${wrong}`);
    if (!this.#areWhole(descriptor, into)) return hole('damaged', `at byte ${position}: not what its checksum is of`);
    if (this.#zeroAt < 0 && isZero(into)) this.#zeroAt = position;
    return undefined;
  }

  /** See PageSource. Pages that are written together stand in their order in the file. */
  prepare(first: number, count: number): void {
    const bits = new Uint8Array(PREPARED / 8);
    this.stored.copy(first, bits);
    this.#first = first;
    this.#prepared = Math.min(count, PREPARED);
    this.#before[0] = this.stored.rank(first);
    for (let i = 0; i < this.#prepared; i++) {
      this.#before[i + 1] = this.#before[i]! + ((bits[i >>> 3]! >> (i & 7)) & 1);
    }
    const descriptors = this.#descriptorsOf(this.#before[0]!, this.#before[this.#prepared]! - this.#before[0]!);
    if (descriptors === undefined) return;
    this.#chunk ??= new Window(this.reader, (PREPARED + 1) * PAGE_SIZE, this.#tools.allocate);
    const { start, end } = descriptors.span(PREPARED * PAGE_SIZE);
    // Whole pages of the file, which can be read without being copied. Where chunks are aligned, there are no more of them.
    const from = start - (start % PAGE_SIZE);
    const length = Math.ceil((end - from) / PAGE_SIZE) * PAGE_SIZE;
    this.#chunk.load(from, Math.min(length, (PREPARED + 1) * PAGE_SIZE));
  }

  /** How many pages of the file come before one. */
  #rankOf(pfn: number): number {
    const at = pfn - this.#first;
    return at >= 0 && at <= this.#prepared && this.#prepared > 0 ? this.#before[at]! : this.stored.rank(pfn);
  }

  /** @returns undefined where the file has not all of them, or none is asked for */
  #descriptorsOf(rank: number, count: number): Descriptors | undefined {
    const length = count * page_desc.size;
    if (length === 0) return undefined;
    const bytes = this.#descriptors.at(this.#descriptorsAt + (rank - this.#firstRank) * page_desc.size, length);
    return bytes.length < length ? undefined : new Descriptors(bytes);
  }

  /**
   * Pages one after the other, at most MAX_RUN, with as few reads, copies and calls as there can be.
   *
   * @returns false where one of them is not in the file or damaged: each for itself says which, and how
   */
  readRun(pfn: number, into: Uint8Array): boolean {
    const count = into.length / PAGE_SIZE;
    const rank = this.#rankOf(pfn);
    if (this.#rankOf(pfn + count) - rank !== count) return false;
    const descriptors = this.#descriptorsOf(rank, count);
    if (descriptors === undefined) return false;
    for (let i = 0; i < count; ) {
      const end = descriptors.alikeFrom(i, this.#zeroAt);
      if (!this.#readAlike(descriptors, i, into.subarray(i * PAGE_SIZE, end * PAGE_SIZE))) return false;
      i = end;
    }
    return this.#areWhole(descriptors, into);
  }

  /** Pages of which each follows the one before in the file, or one that is compressed, or the page of zeros some times. */
  #readAlike(descriptors: Descriptors, first: number, into: Uint8Array): boolean {
    const [position, size, flags] = [descriptors.position(first), descriptors.size(first), descriptors.flags(first)];
    if (position <= 0 || size > PAGE_SIZE) return false;
    if (position === this.#zeroAt) {
      into.fill(0);
      return true;
    }
    const isPlain = flags === 0 && size === PAGE_SIZE;
    const length = isPlain ? into.length : size;
    const isLoaded = this.#chunk?.holds(position, length) === true;
    if (isPlain && length >= LARGE && !isLoaded) return this.reader.read(position, into) === length;
    const packed = (isLoaded ? this.#chunk! : this.#data).at(position, length);
    if (packed.length < length) return false;
    if (isPlain) into.set(packed);
    else if (this.#tools.decompress(flags, packed, into) !== undefined) return false;
    if (this.#zeroAt < 0 && into.length === PAGE_SIZE && isZero(into)) this.#zeroAt = position;
    return true;
  }

  #areWhole(descriptors: Descriptors, pages: Uint8Array): boolean {
    const count = pages.length / PAGE_SIZE;
    let isSummed = false;
    for (let i = 0; i < count; i++) isSummed ||= descriptors.hasSum(i);
    if (!isSummed) return true;
    this.#tools.checksums(pages, this.#found);
    for (let i = 0; i < count; i++) {
      if (descriptors.hasSum(i) && descriptors.sum(i) !== this.#found[i]) return false;
    }
    return true;
  }

  #wrong(offset: number, field: string, expected: string, found: string): never {
    throw new FormatError({ file: this.reader.name, offset, field, expected, found });
  }
}
