/**
 * Writes ELF vmcores: header, program headers, notes, memory. As makedumpfile -E does, a segment ends where many pages in a row are
 * left out, and its p_memsz says how many; where they are few it has a place for them.
 */
import { ET_CORE, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE } from '../abi/elf.ts';
import { elfHeadersSize, writeElfHeaders } from '../abi/elfheaders.ts';
import { type Note, writeNote } from '../abi/elfnote.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { Range } from '../mem/range.ts';
import { DUMP_ELF_INCOMPLETE } from './elf.ts';
import type { Output } from './io/output.ts';

/** PFN_EXCLUDED of makedumpfile: fewer excluded pages than this do not end a segment. */
const LONG_GAP = 256;

/** One PT_LOAD: memory from `start` on, of which the first `fileSize` bytes are in the file. */
export interface ElfPiece {
  readonly start: number;
  readonly fileSize: number;
  readonly memorySize: number;
  /** In the file. */
  readonly offset: number;
}

export interface ElfLayout {
  readonly pieces: readonly ElfPiece[];
  readonly notes: Uint8Array;
  readonly notesAt: number;
  readonly size: number;
}

/** @param bits the pages that are written */
export function elfLayout(ranges: readonly Range[], bits: Uint8Array, notes: readonly Note[]): ElfLayout {
  const pieces: ElfPiece[] = [];
  const noted = Buffer.concat(notes.map(({ name, type, desc }) => writeNote(name, type, desc)));
  for (const range of ranges) {
    const first = Math.ceil(range.start / PAGE_SIZE);
    const last = Math.min(Math.floor(range.end / PAGE_SIZE), bits.length * 8);
    let start = first;
    /** One past the last page that is written, of the segment that begins at `start`. */
    let end = first;
    const close = (next: number) => {
      const [fileSize, memorySize] = [end - start, next - start].map((pages) => pages * PAGE_SIZE) as [number, number];
      if (next > start) pieces.push({ start: start * PAGE_SIZE, fileSize, memorySize, offset: 0 });
      start = next;
    };
    for (let pfn = first; pfn < last; pfn++) {
      if (((bits[pfn >>> 3]! >> (pfn & 7)) & 1) === 0) continue;
      if (pfn - end >= LONG_GAP) close(pfn);
      end = pfn + 1;
    }
    close(last);
  }
  const notesAt = elfHeadersSize(1 + pieces.length);
  let offset = notesAt + noted.length;
  // Not at pages of the file: makedumpfile up to 1.7.9 maps those that are, and then takes p_memsz for what can be mapped of
  // a segment (offset_to_pt_load_end() of elf_info.c).
  if (offset % PAGE_SIZE === 0) offset += 4;
  const placed = pieces.map((piece) => {
    const at = offset;
    offset += piece.fileSize;
    return { ...piece, offset: at };
  });
  return { pieces: placed, notes: noted, notesAt, size: offset };
}

/**
 * All but the memory.
 * @param mapped virtual less physical address of what the kernel maps of all memory
 */
export function writeElfHead(output: Output, layout: ElfLayout, mapped: bigint | undefined, incomplete: boolean): void {
  const { pieces, notes, notesAt } = layout;
  const size = BigInt(notes.length);
  const segments = [
    { p_type: PT_NOTE, p_offset: BigInt(notesAt), p_filesz: size, p_memsz: size, p_align: 4n },
    ...pieces.map(({ start, fileSize, memorySize, offset }) => ({
      p_type: PT_LOAD,
      p_flags: PF_R | PF_W | PF_X,
      p_offset: BigInt(offset),
      p_vaddr: mapped === undefined ? 0n : BigInt.asUintN(64, BigInt(start) + mapped),
      p_paddr: BigInt(start),
      p_filesz: BigInt(fileSize),
      p_memsz: BigInt(memorySize),
    })),
  ];
  output.write(0, writeElfHeaders({ type: ET_CORE, flags: incomplete ? DUMP_ELF_INCOMPLETE : 0, segments }));
  output.write(notesAt, notes);
}
