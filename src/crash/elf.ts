/**
 * ELF vmcores: what /proc/vmcore and /proc/kcore show, what makedumpfile -E and QEMU's dump-guest-memory write.
 *
 * Each PT_LOAD segment is a piece of physical memory. Segments may overlap - the kernel's text is described a second time by its
 * own virtual address (Documentation/admin-guide/kdump/kdump.rst; fs/proc/kcore.c) - and then hold the same. Memory beyond
 * p_filesz was excluded by makedumpfile, which cuts segments at excluded pages (elf_info.c, split_load). Segments need not
 * be page aligned in the file.
 */
import {
  EI_CLASS,
  EI_DATA,
  ELFCLASS64,
  ELFDATA2LSB,
  ELFMAG,
  Elf64_Ehdr,
  Elf64_Phdr,
  Elf64_Shdr,
  ET_CORE,
  PN_XNUM,
  PT_LOAD,
  PT_NOTE,
} from '../abi/elf.ts';
import { type Note, readNotes } from '../abi/elfnote.ts';
import { FormatError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { normalise, type Range } from '../mem/range.ts';
import { setBits } from './bitmap.ts';
import { bounded, readExactly } from './bytes.ts';
import type { Reader } from './io/reader.ts';
import { MAX_NOTES, MAX_SEGMENTS, PHYSICAL_END } from './limits.ts';
import { lastNotAbove } from './sorted.ts';
import type { Hole, HoleReason, PageSource } from './source.ts';
import { vmcoreinfoOf } from './vmcoreinfo.ts';

/** makedumpfile's mark in e_flags: writing stopped early, for want of room (elf_info.h). */
export const DUMP_ELF_INCOMPLETE = 1;

interface Header {
  readonly flags: number;
  readonly segments: readonly Segment[];
  readonly notes: readonly Note[];
}

/** A PT_LOAD segment, in bytes. */
interface Segment {
  readonly start: number;
  readonly fileSize: number;
  readonly memorySize: number;
  readonly offset: number;
}

/** @throws FormatError where the header is not one of a vmcore of a 64-bit little-endian machine */
export function openElf(reader: Reader, stream = { flattened: false, isWhole: true }): PageSource {
  const { flags, segments, notes } = readHeader(reader);
  const pieces = disjoint(segments);
  const ranges = normalise(segments.map(({ start, memorySize }) => ({ start, end: start + memorySize })));
  const info = vmcoreinfoOf(notes);
  const release = info?.release;
  const time = Number(info?.get('CRASHTIME') ?? Number.NaN);
  const end = segments.reduce((last, { offset, fileSize }) => Math.max(last, offset + fileSize), 0);
  return {
    file: reader.name,
    format: 'elf',
    pageSize: PAGE_SIZE,
    ranges,
    notes,
    header: {
      ...(release !== undefined && { utsname: { release } }),
      ...(Number.isSafeInteger(time) && { time }),
      incomplete: !stream.isWhole || (flags & DUMP_ELF_INCOMPLETE) !== 0 || end > reader.size,
      flattened: stream.flattened,
      files: 1,
    },
    storedPages: (first, bits) => markWholePages(pieces, first, bits),
    readPhysical: (address, into) => readPieces(reader, pieces, ranges, address, into),
    close: () => reader.close(),
  };
}

function readHeader(reader: Reader): Header {
  const file = reader.name;
  const bytes = readExactly(reader, 0, Elf64_Ehdr.size, 'ELF header');
  const header = Elf64_Ehdr.read(bytes);
  const demand = (isRight: boolean, offset: number, field: string, expected: string, found: string) => {
    if (!isRight) throw new FormatError({ file, offset, field, expected, found });
  };
  const magic = new TextDecoder('latin1').decode(bytes.subarray(0, ELFMAG.length));
  demand(magic === ELFMAG, 0, 'e_ident', 'ELF', JSON.stringify(magic));
  demand(bytes[EI_CLASS] === ELFCLASS64, EI_CLASS, 'EI_CLASS', '64 bits', `${bytes[EI_CLASS]}`);
  demand(bytes[EI_DATA] === ELFDATA2LSB, EI_DATA, 'EI_DATA', 'little-endian', `${bytes[EI_DATA]}`);
  const { e_type, e_phentsize, e_flags } = header;
  demand(e_type === ET_CORE, Elf64_Ehdr.offsets.e_type, 'e_type', 'a core file (4)', `${e_type}`);
  const sizeAt = Elf64_Ehdr.offsets.e_phentsize;
  demand(e_phentsize === Elf64_Phdr.size, sizeAt, 'e_phentsize', `${Elf64_Phdr.size}`, `${e_phentsize}`);

  const phoff = bounded(reader, Elf64_Ehdr.offsets.e_phoff, 'e_phoff', header.e_phoff, Number.MAX_SAFE_INTEGER);
  let count = header.e_phnum;
  if (count === PN_XNUM) {
    const shoff = bounded(reader, Elf64_Ehdr.offsets.e_shoff, 'e_shoff', header.e_shoff, Number.MAX_SAFE_INTEGER);
    count = Elf64_Shdr.read(readExactly(reader, shoff, Elf64_Shdr.size, 'section header 0')).sh_info;
  }
  const wanted = `1 to ${MAX_SEGMENTS} program headers`;
  demand(count > 0 && count <= MAX_SEGMENTS, Elf64_Ehdr.offsets.e_phnum, 'e_phnum', wanted, `${count}`);
  const table = readExactly(reader, phoff, count * Elf64_Phdr.size, 'program headers');
  const segments: Segment[] = [];
  const notes: Note[] = [];
  let noteBytes = 0;
  for (let i = 0; i < count; i++) {
    const at = i * Elf64_Phdr.size;
    const entry = Elf64_Phdr.read(table, at);
    if (entry.p_type !== PT_LOAD && entry.p_type !== PT_NOTE) continue;
    // /proc/kcore's segments of virtual memory alone have p_paddr -1 (fs/proc/kcore.c).
    if (entry.p_paddr >= BigInt(PHYSICAL_END)) continue;
    const field = (name: string, value: bigint, limit: number) =>
      bounded(reader, phoff + at, `${name} of program header ${i}`, value, limit);
    const offset = field('p_offset', entry.p_offset, lastOffset(reader, entry));
    if (entry.p_type === PT_NOTE) {
      const size = field('p_filesz', entry.p_filesz, MAX_NOTES - noteBytes);
      noteBytes += size;
      notes.push(...readNotes(readExactly(reader, offset, size, `notes of program header ${i}`)));
      continue;
    }
    const start = Number(entry.p_paddr);
    const fileSize = field('p_filesz', entry.p_filesz, PHYSICAL_END - start);
    const memorySize = field('p_memsz', entry.p_memsz, PHYSICAL_END - start);
    segments.push({ start, fileSize, memorySize: Math.max(fileSize, memorySize), offset });
  }
  return { flags: e_flags, segments, notes };
}

/**
 * Offsets in /proc/kcore are virtual addresses without their highest bits (kc_vaddr_to_offset() of arch/x86): with 5 levels 56 bits.
 * A number is still exact where it is a multiple of the page size, and memory there is read in whole pages.
 */
function lastOffset(reader: Reader, { p_offset, p_paddr }: { p_offset: bigint; p_paddr: bigint }): number {
  const isPaged = (p_offset | p_paddr) % BigInt(PAGE_SIZE) === 0n;
  return isPaged && reader.size > Number.MAX_SAFE_INTEGER ? 2 ** 62 : Number.MAX_SAFE_INTEGER;
}

/** What stands in the file: sorted by physical address, without overlaps. */
interface Pieces {
  readonly count: number;
  readonly start: Float64Array;
  readonly end: Float64Array;
  /** File offset less physical address. */
  readonly delta: Float64Array;
}

function disjoint(segments: readonly Segment[]): Pieces {
  const stored = segments.filter(({ fileSize }) => fileSize > 0).sort((a, b) => a.start - b.start);
  const [start, end, delta] = [1, 2, 3].map(() => new Float64Array(stored.length)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  let count = 0;
  let covered = 0;
  for (const segment of stored) {
    const from = Math.max(segment.start, covered);
    const to = segment.start + segment.fileSize;
    if (from >= to) continue;
    start[count] = from;
    end[count] = to;
    delta[count] = segment.offset - segment.start;
    covered = to;
    count++;
  }
  return { count, start, end, delta };
}

function readPieces(
  reader: Reader,
  pieces: Pieces,
  ranges: readonly Range[],
  address: number,
  into: Uint8Array,
): Hole | undefined {
  for (let done = 0; done < into.length; ) {
    const at = address + done;
    const i = lastNotAbove(pieces.start, pieces.count, at);
    if (i < 0 || at >= pieces.end[i]!) {
      const isDescribed = ranges.some(({ start, end }) => start <= at && at < end);
      return { reason: isDescribed ? 'excluded' : 'missing', address: at };
    }
    const length = Math.min(into.length - done, pieces.end[i]! - at);
    const position = at + pieces.delta[i]!;
    const part = into.subarray(done, done + length);
    const count = Number.isSafeInteger(position)
      ? reader.read(position, part)
      : readPaged(reader, at, pieces.delta[i]!, part);
    if (count < length) {
      const reason: HoleReason = position + count < reader.size ? 'damaged' : 'incomplete';
      return { reason, address: at + count };
    }
    done += length;
  }
  return undefined;
}

/** Pieces that touch make whole pages too, but that does not happen where segments begin and end at pages. */
function markWholePages({ count, start, end }: Pieces, first: number, bits: Uint8Array): void {
  bits.fill(0);
  const last = first + bits.length * 8;
  for (let i = Math.max(0, lastNotAbove(start, count, first * PAGE_SIZE)); i < count; i++) {
    const from = Math.max(first, Math.ceil(start[i]! / PAGE_SIZE));
    const to = Math.min(last, Math.floor(end[i]! / PAGE_SIZE));
    if (from >= last) break;
    setBits(bits, from - first, to - first);
  }
}

/** Where the file offset of a byte is no exact number, while that of its page is. @returns how many bytes there were */
function readPaged(reader: Reader, address: number, delta: number, into: Uint8Array): number {
  const within = address % PAGE_SIZE;
  const pages = new Uint8Array(Math.ceil((within + into.length) / PAGE_SIZE) * PAGE_SIZE);
  const count = Math.min(into.length, Math.max(0, reader.read(address - within + delta, pages) - within));
  into.set(pages.subarray(within, within + count));
  return count;
}
