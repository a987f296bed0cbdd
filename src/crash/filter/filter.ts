/** Writes a dump anew: filtered, compressed, in another format. */
import { UnsupportedError, VerifyError } from '../../errors.ts';
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Range } from '../../mem/range.ts';
import { isZero } from '../bytes.ts';
import type { Compression } from '../codec/page.ts';
import { type ElfLayout, elfLayout, writeElfHead } from '../elfwriter.ts';
import { append, type Output, OutputFile } from '../io/output.ts';
import { FlattenedOutput } from '../kdump/flattened.ts';
import { directMapOffset, kernelSpace } from '../kernelspace.ts';
import { MAX_PAGES } from '../limits.ts';
import { openDumpFiles } from '../open.ts';
import type { PageSource } from '../source.ts';
import { vmcoreinfoOf } from '../vmcoreinfo.ts';
import {
  CHUNK_PAGES,
  CONTROL_WORDS,
  type Copied,
  type CopyJob,
  type KdumpForm,
  type PlainForm,
  ranksOf,
} from './job.ts';
import { known, writeKdump } from './kdump.ts';
import { DL_EXCLUDE_ZERO, type ExcludedPages, excludePages } from './pages.ts';
import { type DumpFiles, inThreads, type ThreadOptions } from './threads.ts';

export interface FilterOptions extends ThreadOptions {
  readonly to: 'kdump' | 'elf' | 'raw';
  readonly compression: Compression;
  /** makedumpfile's -d, or undefined to keep every page: DL_EXCLUDE_* */
  readonly level: number | undefined;
  /** Write the stream format of makedumpfile -F. */
  readonly flattened: boolean;
  /** Read back what was written and compare. Not of a stream to a pipe. */
  readonly verify: boolean;
}

export interface FilterResult {
  /** Pages of the dump that was read. */
  readonly total: number;
  /** Pages of the dump that was written, and how many of them are zeros. */
  readonly written: number;
  readonly zero: number;
  /** Pages that were to be written and could not be read. */
  readonly unreadable: number;
  readonly excluded: ExcludedPages | undefined;
  /** The dump that was read is not whole, or pages of it could not be read. */
  readonly partial: boolean;
}

/** Pages that are to be written. */
interface Choice {
  readonly bits: Uint8Array<SharedArrayBuffer>;
  /** How many pages they stand for, from 0 on. */
  readonly length: number;
  readonly total: number;
  readonly excluded: ExcludedPages | undefined;
}

/**
 * @param outputs paths; several for a split set; none for a stream to stdout
 * @throws FormatError, UnsupportedError, VerifyError, the system's errors. Nothing is left of what was begun.
 */
export async function filterDump(
  files: DumpFiles,
  outputs: readonly string[],
  options: FilterOptions,
): Promise<FilterResult> {
  const source = openDumpFiles(files.paths, files.ram === undefined ? {} : { ram: files.ram });
  const opened: OutputFile[] = [];
  try {
    const choice = choose(source, options);
    for (const path of outputs) opened.push(new OutputFile(path));
    const copied: Copied = { pages: 0, zero: 0, unreadable: 0 };
    for (const [i, part] of parts(choice, Math.max(1, outputs.length)).entries()) {
      const file = opened[i];
      const { pages, zero, unreadable } = await writePart(source, files, choice, part, file, options);
      copied.pages += pages;
      copied.zero += zero;
      copied.unreadable += unreadable;
    }
    if (options.verify) await compare(source, files, opened, choice, options);
    for (const file of opened) file.commit();
    opened.length = 0;
    return {
      total: choice.total,
      written: copied.pages - copied.unreadable,
      zero: copied.zero,
      unreadable: copied.unreadable,
      excluded: choice.excluded,
      partial: source.header.incomplete || copied.unreadable > 0,
    };
  } finally {
    for (const file of opened) file.abort();
    source.close();
  }
}

/** Which pages a dump of this level has. */
function choose(source: PageSource, { level, to }: FilterOptions): Choice {
  const end = source.ranges.at(-1)?.end ?? 0;
  const length = Math.ceil(end / PAGE_SIZE);
  if (length > MAX_PAGES) {
    const why = `it has memory up to 0x${end.toString(16)}`;
    throw new UnsupportedError({ what: source.file, why, remedy: 'dumps of up to 64 TiB of addresses can be written' });
  }
  const bits = new Uint8Array(new SharedArrayBuffer(Math.ceil(length / 8)));
  source.storedPages(0, bits);
  const total = ranksOf(bits, { start: 0, end: length }).count;
  if (level === undefined) return { bits, length, total, excluded: undefined };
  const needsKernel = (level & ~DL_EXCLUDE_ZERO) !== 0;
  const info = vmcoreinfoOf(source.notes);
  if (info === undefined && needsKernel) {
    throw new UnsupportedError({
      what: `filtering ${source.file} with -d ${level}`,
      why: 'there is no VMCOREINFO in it, which says where the kernel keeps what it knows of pages',
      remedy: 'use -d 0 or -d 1',
    });
  }
  // At -d 0 too, pages are left out that the machine cannot read, where it can be known which these are.
  const excluded = needsKernel
    ? excludePages(source, info!, level, bits)
    : known(source, (info) => excludePages(source, info, level, bits));
  if (to !== 'kdump' && (level & DL_EXCLUDE_ZERO) !== 0) excludeZero(source, bits);
  return { bits, length, total, excluded };
}

/** A kdump file has one page for all pages of zeros; elsewhere they have to be left out. */
function excludeZero(source: PageSource, bits: Uint8Array): void {
  const page = new Uint8Array(PAGE_SIZE);
  for (let pfn = 0; pfn < bits.length * 8; pfn++) {
    if (((bits[pfn >>> 3]! >> (pfn & 7)) & 1) === 0) continue;
    if (source.readPhysical(pfn * PAGE_SIZE, page) !== undefined || !isZero(page)) continue;
    bits[pfn >>> 3]! &= ~(1 << (pfn & 7));
  }
}

/** Page numbers of each file, with as many pages in each. */
function parts({ bits, length }: Choice, count: number): Range[] {
  const { ranks, count: total } = ranksOf(bits, { start: 0, end: length });
  const ends = Array.from({ length: count }, (_, i) => {
    if (i === count - 1) return length;
    const wanted = Math.ceil((total * (i + 1)) / count);
    const chunk = Math.max(
      0,
      ranks.findLastIndex((rank) => rank < wanted),
    );
    let pfn = chunk * CHUNK_PAGES;
    for (let rank = ranks[chunk] ?? 0; rank < wanted; pfn++) rank += (bits[pfn >>> 3]! >> (pfn & 7)) & 1;
    return pfn;
  });
  return ends.map((end, i) => ({ start: i === 0 ? 0 : ends[i - 1]!, end }));
}

async function writePart(
  source: PageSource,
  files: DumpFiles,
  choice: Choice,
  pages: Range,
  file: OutputFile | undefined,
  options: FilterOptions,
): Promise<Copied> {
  const fd = file?.fd ?? 1;
  const stream = options.flattened ? new FlattenedOutput((bytes) => append(fd, bytes)) : undefined;
  const output: Output = stream ?? file!;
  stream?.begin();
  const job = (form: KdumpForm | PlainForm, at: number): CopyJob => ({
    kind: 'copy',
    form,
    bits: choice.bits,
    pages,
    fd,
    flattened: options.flattened,
    control: new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4)),
    taken: shared([at]),
  });
  let copied: Copied;
  if (options.to === 'kdump') {
    const { compression, level = 0 } = options;
    const form = { compression, level, checksums: false };
    copied = await writeKdump(source, output, { ...choice, pages }, form, (form, at) =>
      inThreads(files, job(form, at), options),
    );
  } else {
    const layout = options.to === 'elf' ? elfLayout(source.ranges, choice.bits, source.notes) : rawLayout(source);
    if ('notes' in layout) keepShortGaps(source, layout, choice.bits);
    const form: PlainForm = {
      kind: 'plain',
      start: shared(layout.pieces.map(({ start }) => start)),
      delta: shared(layout.pieces.map(({ start, offset }) => offset - start)),
    };
    copied = await inThreads(files, job(form, 0), options);
    if ('notes' in layout) {
      const mapped = known(source, (info) => directMapOffset(kernelSpace(source, info), info));
      writeElfHead(output, layout, mapped, source.header.incomplete || copied.unreadable > 0);
    }
    // Zeros at the end are not written, and the end is where it is.
    if (stream !== undefined && layout.size > 0) stream.write(layout.size - 1, new Uint8Array(1));
    else file!.truncate(layout.size);
  }
  stream?.end();
  return copied;
}

/** Excluded pages that a segment has a place for are written as they are: zeros there would be taken for what they held. */
function keepShortGaps(source: PageSource, { pieces }: ElfLayout, bits: Uint8Array): void {
  const stored = new Uint8Array(bits.length);
  source.storedPages(0, stored);
  for (const { start, fileSize } of pieces) {
    const end = (start + fileSize) / PAGE_SIZE;
    for (let pfn = start / PAGE_SIZE; pfn < end; pfn++) bits[pfn >>> 3]! |= stored[pfn >>> 3]! & (1 << (pfn & 7));
  }
}

/** Byte n is physical address n. */
function rawLayout({ ranges }: PageSource) {
  return { pieces: [{ start: 0, offset: 0 }], size: ranges.at(-1)?.end ?? 0 };
}

async function compare(
  source: PageSource,
  files: DumpFiles,
  outputs: readonly OutputFile[],
  { bits, length }: Choice,
  options: FilterOptions,
): Promise<void> {
  const written = outputs.map(({ partial }) => partial) as [string, ...string[]];
  const pages = { start: 0, end: length };
  const control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
  const ram = options.to === 'raw' ? { ram: [{ start: 0, end: length * PAGE_SIZE }] } : {};
  const { difference } = await inThreads(files, { kind: 'compare', written, ...ram, bits, pages, control }, options);
  if (difference === undefined) return;
  const place = `${outputs[0]!.path}: page at 0x${difference.address.toString(16)}`;
  throw new VerifyError(place, `what ${source.file} has there`, difference.found);
}

function shared(values: readonly number[]): Float64Array<SharedArrayBuffer> {
  const array = new Float64Array(new SharedArrayBuffer(values.length * 8));
  array.set(values);
  return array;
}
