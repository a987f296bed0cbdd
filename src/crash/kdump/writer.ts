/** Writes kdump-compressed files, version 6: where everything goes, and the headers and bitmaps (format.ts). */
import { type Note, writeNote } from '../../abi/elfnote.ts';
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Range } from '../../mem/range.ts';
import { setBits } from '../bitmap.ts';
import { type Compression, flagOf } from '../codec/page.ts';
import type { Output } from '../io/output.ts';
import type { Utsname } from '../source.ts';
import {
  DUMP_DH_COMPRESSED_INCOMPLETE,
  disk_dump_header,
  KDUMP_SIGNATURE,
  kdump_sub_header,
  page_desc,
} from './format.ts';

/** From version 6 on the field of 32 bits is not read; makedumpfile fills it with what fits. */
const MAX_32 = 0xffff_ffff;

export interface KdumpContents {
  /** Of the memory, in bytes. */
  readonly ranges: readonly Range[];
  /** Bitmap 2: the pages that are written. */
  readonly bits: Uint8Array;
  /** How many pages bits stand for, from 0 on. */
  readonly length: number;
  /** Of the pages, those that this file of a split set holds; undefined for a whole dump. */
  readonly part?: Range;
  /** How many bits are set, among the pages of `part`. */
  readonly count: number;
  readonly notes: readonly Note[];
  readonly compression: Compression;
  readonly dumpLevel: number;
  readonly utsname: Partial<Utsname>;
  /** Seconds since 1970. */
  readonly time: number;
  readonly cpus: number;
  readonly physBase: bigint;
}

/** Where in the file things stand, in bytes. */
export interface KdumpLayout {
  readonly subHeaderBlocks: number;
  readonly bitmapsAt: number;
  /** Of one bitmap. */
  readonly bitmapBytes: number;
  readonly descriptorsAt: number;
  readonly dataAt: number;
}

export function kdumpLayout(contents: KdumpContents): KdumpLayout {
  const { length, count, notes } = contents;
  const extra = noteBytes(notes).length + eraseInfo(notes).length;
  const subHeaderBlocks = Math.ceil((kdump_sub_header.size + extra) / PAGE_SIZE);
  const bitmapsAt = (1 + subHeaderBlocks) * PAGE_SIZE;
  const bitmapBytes = Math.ceil(Math.ceil(length / 8) / PAGE_SIZE) * PAGE_SIZE;
  const descriptorsAt = bitmapsAt + 2 * bitmapBytes;
  return { subHeaderBlocks, bitmapsAt, bitmapBytes, descriptorsAt, dataAt: descriptorsAt + count * page_desc.size };
}

/** Headers, notes and bitmaps: all but descriptors and pages. @param incomplete pages are missing that bitmap 2 has */
export function writeKdumpHead(
  output: Output,
  contents: KdumpContents,
  layout: KdumpLayout,
  incomplete: boolean,
): void {
  const { bits, length, part, ranges, notes } = contents;
  for (let at = 0; at < layout.bitmapBytes; at += PAGE_SIZE * 16) {
    const present = new Uint8Array(Math.min(PAGE_SIZE * 16, layout.bitmapBytes - at));
    for (const { start, end } of ranges) {
      // A page of which a part is no memory is not in the dump, and counts as none.
      const from = Math.max(0, Math.ceil(start / PAGE_SIZE) - at * 8);
      const to = Math.min(present.length * 8, Math.floor(Math.min(end, length * PAGE_SIZE) / PAGE_SIZE) - at * 8);
      if (from < to) setBits(present, from, to);
    }
    output.write(layout.bitmapsAt + at, present);
    const stored = new Uint8Array(present.length);
    stored.set(bits.subarray(at, at + stored.length));
    output.write(layout.bitmapsAt + layout.bitmapBytes + at, stored);
  }

  const noted = noteBytes(notes);
  const erased = eraseInfo(notes);
  const info = notes.find(({ name }) => name === 'VMCOREINFO');
  const notesAt = PAGE_SIZE + kdump_sub_header.size;
  const sub = new Uint8Array(layout.subHeaderBlocks * PAGE_SIZE);
  kdump_sub_header.write(
    {
      phys_base: contents.physBase,
      dump_level: contents.dumpLevel,
      ...(part && { split: 1, start_pfn: BigInt(part.start), end_pfn: BigInt(part.end) }),
      ...(part && { start_pfn_64: BigInt(part.start), end_pfn_64: BigInt(part.end) }),
      offset_vmcoreinfo: info === undefined ? 0n : BigInt(notesAt + descriptorOffset(notes, info)),
      size_vmcoreinfo: BigInt(info?.desc.length ?? 0),
      offset_note: noted.length === 0 ? 0n : BigInt(notesAt),
      size_note: BigInt(noted.length),
      offset_eraseinfo: erased.length === 0 ? 0n : BigInt(notesAt + noted.length),
      size_eraseinfo: BigInt(erased.length),
      max_mapnr_64: BigInt(length),
    },
    sub,
  );
  sub.set(noted, kdump_sub_header.size);
  sub.set(erased, kdump_sub_header.size + noted.length);
  output.write(PAGE_SIZE, sub);

  const head = new Uint8Array(PAGE_SIZE);
  const { sysname = 'Linux', nodename = '', release = '', version = '', machine = 'x86_64' } = contents.utsname;
  disk_dump_header.write(
    {
      signature: KDUMP_SIGNATURE,
      header_version: 6,
      utsname: { sysname, nodename, release, version, machine, domainname: contents.utsname.domainname ?? '' },
      tv_sec: BigInt(Math.max(0, Math.floor(contents.time))),
      status: flagOf[contents.compression] | (incomplete ? DUMP_DH_COMPRESSED_INCOMPLETE : 0),
      block_size: PAGE_SIZE,
      sub_hdr_size: layout.subHeaderBlocks,
      bitmap_blocks: (2 * layout.bitmapBytes) / PAGE_SIZE,
      max_mapnr: Math.min(length, MAX_32),
      nr_cpus: contents.cpus,
    },
    head,
  );
  // Last of all: until it is there the file is none.
  output.write(0, head);
}

/** The notes as in an ELF file. What was erased has a place of its own. */
function noteBytes(notes: readonly Note[]): Uint8Array {
  return Buffer.concat(notes.filter(isNoted).map(({ name, type, desc }) => writeNote(name, type, desc)));
}

function isNoted({ name }: Note): boolean {
  return name !== 'ERASEINFO';
}

function eraseInfo(notes: readonly Note[]): Uint8Array {
  return notes.find(({ name }) => name === 'ERASEINFO')?.desc ?? new Uint8Array(0);
}

/** Where a note's descriptor begins among the bytes of all. */
function descriptorOffset(notes: readonly Note[], note: Note): number {
  const before = noteBytes(notes.slice(0, notes.indexOf(note))).length;
  return before + writeNote(note.name, note.type, new Uint8Array(0)).length;
}
