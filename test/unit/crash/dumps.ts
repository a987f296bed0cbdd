/** Dumps made in memory, for tests of readers. */
import {
  ELFCLASS64,
  ELFDATA2LSB,
  ELFMAG,
  Elf64_Ehdr,
  Elf64_Phdr,
  Elf64_Shdr,
  EM_X86_64,
  ET_CORE,
  EV_CURRENT,
  PN_XNUM,
  PT_LOAD,
  PT_NOTE,
} from '../../../src/abi/elf.ts';
import type { Reader } from '../../../src/crash/io/reader.ts';

/** Bytes as a source of a dump. */
export function memoryReader(bytes: Uint8Array, name = 'memory'): Reader {
  return {
    name,
    size: bytes.length,
    read(position, into) {
      const found = bytes.subarray(position, position + into.length);
      into.set(found);
      return found.length;
    },
    close() {},
  };
}

export interface TestSegment {
  readonly paddr: number;
  readonly bytes: Uint8Array;
  /** p_memsz, by default as many as there are bytes. */
  readonly memsz?: number;
}

/** An ELF vmcore: header, program headers, notes, memory, section header 0 where the count needs it. */
export function elfDump(segments: readonly TestSegment[], notes: Uint8Array = new Uint8Array(), e_flags = 0): Buffer {
  const count = segments.length + 1;
  const isExtended = count >= PN_XNUM;
  const notesAt = Elf64_Ehdr.size + count * Elf64_Phdr.size;
  const memorySize = segments.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const shoff = notesAt + notes.length + memorySize;
  const file = Buffer.alloc(shoff + (isExtended ? Elf64_Shdr.size : 0));
  const e_ident = new Uint8Array(16);
  e_ident.set([...Buffer.from(ELFMAG, 'latin1'), ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
  const header = {
    e_ident,
    e_type: ET_CORE,
    e_machine: EM_X86_64,
    e_version: EV_CURRENT,
    e_phoff: BigInt(Elf64_Ehdr.size),
    e_shoff: isExtended ? BigInt(shoff) : 0n,
    e_flags,
    e_ehsize: Elf64_Ehdr.size,
    e_phentsize: Elf64_Phdr.size,
    e_phnum: isExtended ? PN_XNUM : count,
    e_shentsize: isExtended ? Elf64_Shdr.size : 0,
    e_shnum: isExtended ? 1 : 0,
  };
  Elf64_Ehdr.write(header, file);
  if (isExtended) Elf64_Shdr.write({ sh_info: count }, file, shoff);
  const size = BigInt(notes.length);
  const note = { p_type: PT_NOTE, p_offset: BigInt(notesAt), p_filesz: size, p_memsz: size };
  Elf64_Phdr.write(note, file, Elf64_Ehdr.size);
  file.set(notes, notesAt);
  let at = notesAt + notes.length;
  for (const [i, { paddr, bytes, memsz = bytes.length }] of segments.entries()) {
    Elf64_Phdr.write(
      {
        p_type: PT_LOAD,
        p_offset: BigInt(at),
        p_paddr: BigInt(paddr),
        p_filesz: BigInt(bytes.length),
        p_memsz: BigInt(memsz),
      },
      file,
      Elf64_Ehdr.size + (i + 1) * Elf64_Phdr.size,
    );
    file.set(bytes, at);
    at += bytes.length;
  }
  return file;
}
