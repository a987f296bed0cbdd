/**
 * Reads ELF-64 files of little-endian machines: programs, libraries, kernels, kernel modules, core dumps.
 *
 * The input may be damaged or hostile: whatever it holds, a reader either gives what is written there or throws
 * FormatError with the byte offset and the field, and its work is bounded by the file's size. Segments and sections are
 * described as the headers say; only those whose bytes are asked for must lie inside the file, so that a
 * truncated core dump can still be listed.
 */
import {
  DT_NEEDED,
  DT_NULL,
  DT_RPATH,
  DT_RUNPATH,
  DT_SONAME,
  DT_STRSZ,
  DT_STRTAB,
  EI_CLASS,
  EI_DATA,
  ELFCLASS64,
  ELFDATA2LSB,
  ELFMAG,
  Elf64_Dyn,
  Elf64_Ehdr,
  Elf64_Phdr,
  Elf64_Shdr,
  Elf64_Sym,
  PN_XNUM,
  PT_DYNAMIC,
  PT_INTERP,
  PT_LOAD,
  SHN_XINDEX,
  SHT_NOBITS,
} from '../abi/elf.ts';
import { FormatError } from '../errors.ts';

/** Longer than any name or path in a real file; a limit keeps the work on a file of overlapping strings linear. */
const STRING_MAX = 65536;

/** One program header. Offsets and sizes in bytes. */
export interface ElfSegment {
  /** PT_* */
  readonly type: number;
  /** PF_* bits */
  readonly flags: number;
  readonly offset: number;
  readonly vaddr: bigint;
  readonly paddr: bigint;
  readonly filesz: number;
  readonly memsz: number;
}

/** One section header. Offsets and sizes in bytes. */
export interface ElfSection {
  readonly name: string;
  /** SHT_* */
  readonly type: number;
  readonly addr: bigint;
  readonly offset: number;
  readonly size: number;
  /** Index of the section that belongs to this one: of a symbol table, its string table. */
  readonly link: number;
}

/** What the dynamic section asks of the dynamic linker (ld.so(8)). */
export interface ElfDynamic {
  readonly needed: readonly string[];
  readonly soname: string | undefined;
  /** Colon-separated folders, unexpanded. */
  readonly rpath: string | undefined;
  readonly runpath: string | undefined;
}

export interface ElfSymbol {
  readonly name: string;
  readonly value: bigint;
  readonly size: bigint;
  /** STT_* */
  readonly type: number;
  /** STB_* */
  readonly binding: number;
  /** Section index or SHN_* */
  readonly section: number;
}

export interface ElfFile {
  /** Name for error messages. */
  readonly file: string;
  readonly bytes: Uint8Array;
  /** ET_* */
  readonly type: number;
  /** EM_* */
  readonly machine: number;
  readonly entry: bigint;
  readonly segments: readonly ElfSegment[];
  readonly sections: readonly ElfSection[];
}

/** True where the bytes begin as an ELF file does. */
export function isElf(bytes: Uint8Array): boolean {
  return latin1(bytes.subarray(0, ELFMAG.length)) === ELFMAG;
}

/**
 * Reads the headers.
 *
 * @param file name of the source for error messages
 * @throws FormatError for anything but a well-formed ELF-64 little-endian file
 */
export function readElf(bytes: Uint8Array, file: string): ElfFile {
  if (!isElf(bytes)) {
    throw new FormatError({ file, offset: 0, field: 'e_ident', expected: 'an ELF file', found: preview(bytes) });
  }
  const at = { file, bytes };
  slice(at, 0, Elf64_Ehdr.size, 'Elf64_Ehdr');
  const header = Elf64_Ehdr.read(bytes);
  const { e_ident } = header;
  if (e_ident[EI_CLASS] !== ELFCLASS64) {
    throw new FormatError({
      file,
      offset: EI_CLASS,
      field: 'EI_CLASS',
      expected: `ELFCLASS64 (${ELFCLASS64})`,
      found: `${e_ident[EI_CLASS]}`,
    });
  }
  if (e_ident[EI_DATA] !== ELFDATA2LSB) {
    throw new FormatError({
      file,
      offset: EI_DATA,
      field: 'EI_DATA',
      expected: `ELFDATA2LSB (${ELFDATA2LSB})`,
      found: `${e_ident[EI_DATA]}`,
    });
  }
  const shoff = position(at, header.e_shoff, Elf64_Ehdr.offsets.e_shoff, 'e_shoff');
  // Counts that do not fit their 16 bits stand in section header 0.
  const first = shoff === 0 ? undefined : firstSection(at, shoff);
  const shnum =
    header.e_shnum === 0 && first ? position(at, first.sh_size, shoff, 'sh_size of section header 0') : header.e_shnum;
  const shstrndx = header.e_shstrndx === SHN_XINDEX && first ? first.sh_link : header.e_shstrndx;
  const phnum = header.e_phnum === PN_XNUM && first ? first.sh_info : header.e_phnum;
  return {
    file,
    bytes,
    type: header.e_type,
    machine: header.e_machine,
    entry: header.e_entry,
    segments: readSegments(at, header, phnum),
    sections: first === undefined ? [] : readSections(at, header, shoff, shnum, shstrndx),
  };
}

/** The bytes of a segment that stand in the file, without copying. */
export function segmentBytes(elf: ElfFile, segment: ElfSegment): Uint8Array {
  return slice(elf, segment.offset, segment.filesz, `segment at ${hex(segment.vaddr)}`);
}

/** The bytes of a section, without copying; none for SHT_NOBITS. */
export function sectionBytes(elf: ElfFile, section: ElfSection): Uint8Array {
  if (section.type === SHT_NOBITS) return new Uint8Array(0);
  return slice(elf, section.offset, section.size, `section ${section.name}`);
}

/** PT_INTERP: path of the dynamic linker, or undefined for a static program or a library. */
export function interpreter(elf: ElfFile): string | undefined {
  const segment = elf.segments.find(({ type }) => type === PT_INTERP);
  if (segment === undefined) return undefined;
  return cString(elf, segment.offset, segment.offset + segment.filesz, 'PT_INTERP');
}

/** PT_DYNAMIC, or undefined for a file that is not dynamically linked. */
export function dynamic(elf: ElfFile): ElfDynamic | undefined {
  const segment = elf.segments.find(({ type }) => type === PT_DYNAMIC);
  if (segment === undefined) return undefined;
  const entries = slice(elf, segment.offset, segment.filesz, 'PT_DYNAMIC');
  const found = new Map<bigint, bigint[]>();
  for (let at = 0; at + Elf64_Dyn.size <= entries.length; at += Elf64_Dyn.size) {
    const { d_tag, d_val } = Elf64_Dyn.read(entries, at);
    if (d_tag === DT_NULL) break;
    const values = found.get(d_tag);
    if (values === undefined) found.set(d_tag, [d_val]);
    else values.push(d_val);
  }
  const [table] = found.get(DT_STRTAB) ?? [];
  const [size] = found.get(DT_STRSZ) ?? [];
  const text = (tag: bigint): string[] => {
    const values = found.get(tag) ?? [];
    if (values.length === 0) return [];
    if (table === undefined || size === undefined) {
      const field = 'DT_STRTAB, DT_STRSZ';
      throw new FormatError({ file: elf.file, offset: segment.offset, field, expected: 'both', found: 'not both' });
    }
    const start = fileOffset(elf, table, 'DT_STRTAB');
    const end = start + position(elf, size, segment.offset, 'DT_STRSZ');
    return values.map((value) => {
      const at = start + position(elf, value, segment.offset, 'string offset in the dynamic section');
      return cString(elf, at, end, 'string of the dynamic section');
    });
  };
  return {
    needed: text(DT_NEEDED),
    soname: text(DT_SONAME)[0],
    rpath: text(DT_RPATH)[0],
    runpath: text(DT_RUNPATH)[0],
  };
}

/** Symbols of a section of type SHT_SYMTAB or SHT_DYNSYM, in file order. */
export function* symbols(elf: ElfFile, table: ElfSection): Generator<ElfSymbol> {
  const entries = sectionBytes(elf, table);
  const names = elf.sections[table.link];
  if (names === undefined) {
    const found = `section ${table.link} of ${elf.sections.length}`;
    throw new FormatError({ file: elf.file, field: `sh_link of ${table.name}`, expected: 'a string table', found });
  }
  for (let at = 0; at + Elf64_Sym.size <= entries.length; at += Elf64_Sym.size) {
    const { st_name, st_info, st_shndx, st_value, st_size } = Elf64_Sym.read(entries, at);
    yield {
      name: cString(elf, names.offset + st_name, names.offset + names.size, `st_name in ${table.name}`),
      value: st_value,
      size: st_size,
      type: st_info & 0xf,
      binding: st_info >> 4,
      section: st_shndx,
    };
  }
}

type Ehdr = ReturnType<typeof Elf64_Ehdr.read>;
type Shdr = ReturnType<typeof Elf64_Shdr.read>;

interface Source {
  readonly file: string;
  readonly bytes: Uint8Array;
}

function firstSection(at: Source, shoff: number): Shdr {
  slice(at, shoff, Elf64_Shdr.size, 'section header 0');
  return Elf64_Shdr.read(at.bytes, shoff);
}

function readSegments(at: Source, header: Ehdr, count: number): ElfSegment[] {
  if (count === 0) return [];
  const phoff = position(at, header.e_phoff, Elf64_Ehdr.offsets.e_phoff, 'e_phoff');
  entrySize(at, header.e_phentsize, Elf64_Phdr.size, Elf64_Ehdr.offsets.e_phentsize, 'e_phentsize');
  slice(at, phoff, count * Elf64_Phdr.size, 'program headers');
  return Array.from({ length: count }, (_, i) => {
    const offset = phoff + i * Elf64_Phdr.size;
    const entry = Elf64_Phdr.read(at.bytes, offset);
    const name = `program header ${i}`;
    return {
      type: entry.p_type,
      flags: entry.p_flags,
      offset: position(at, entry.p_offset, offset, `p_offset of ${name}`),
      vaddr: entry.p_vaddr,
      paddr: entry.p_paddr,
      filesz: position(at, entry.p_filesz, offset, `p_filesz of ${name}`),
      memsz: position(at, entry.p_memsz, offset, `p_memsz of ${name}`),
    };
  });
}

function readSections(at: Source, header: Ehdr, shoff: number, count: number, names: number): ElfSection[] {
  entrySize(at, header.e_shentsize, Elf64_Shdr.size, Elf64_Ehdr.offsets.e_shentsize, 'e_shentsize');
  slice(at, shoff, count * Elf64_Shdr.size, 'section headers');
  const entryAt = (i: number) => Elf64_Shdr.read(at.bytes, shoff + i * Elf64_Shdr.size);
  const table = names < count ? entryAt(names) : undefined;
  return Array.from({ length: count }, (_, i) => {
    const offset = shoff + i * Elf64_Shdr.size;
    const entry = entryAt(i);
    const field = `of section header ${i}`;
    let name = '';
    if (table !== undefined && table.sh_type !== SHT_NOBITS) {
      const start = position(at, table.sh_offset, shoff + names * Elf64_Shdr.size, 'sh_offset of the section names');
      const size = position(at, table.sh_size, shoff + names * Elf64_Shdr.size, 'sh_size of the section names');
      name = cString(at, start + entry.sh_name, start + size, `sh_name ${field}`);
    }
    return {
      name,
      type: entry.sh_type,
      addr: entry.sh_addr,
      offset: position(at, entry.sh_offset, offset, `sh_offset ${field}`),
      size: position(at, entry.sh_size, offset, `sh_size ${field}`),
      link: entry.sh_link,
    };
  });
}

/** File offset of a virtual address, by the PT_LOAD segment that holds it. */
function fileOffset(elf: ElfFile, vaddr: bigint, field: string): number {
  for (const { type, vaddr: start, offset, filesz } of elf.segments) {
    if (type === PT_LOAD && vaddr >= start && vaddr < start + BigInt(filesz)) return offset + Number(vaddr - start);
  }
  throw new FormatError({ file: elf.file, field, expected: 'an address in a PT_LOAD segment', found: hex(vaddr) });
}

/** A file offset or a size as a number. */
function position(at: Source, value: bigint, offset: number, field: string): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new FormatError({ file: at.file, offset, field, expected: 'less than 2^53', found: hex(value) });
}

function entrySize(at: Source, found: number, expected: number, offset: number, field: string): void {
  if (found === expected) return;
  throw new FormatError({ file: at.file, offset, field, expected: `${expected}`, found: `${found}` });
}

function slice(at: Source, offset: number, length: number, field: string): Uint8Array {
  if (offset + length <= at.bytes.length) return at.bytes.subarray(offset, offset + length);
  throw new FormatError({
    file: at.file,
    offset,
    field,
    expected: `${length} bytes`,
    found: `${Math.max(0, at.bytes.length - offset)} before the end of the file`,
  });
}

/** NUL-terminated text that begins at `start` and ends before `end`. */
function cString(at: Source, start: number, end: number, field: string): string {
  const limit = Math.min(end, start + STRING_MAX);
  const nul = start < limit ? at.bytes.subarray(start, limit).indexOf(0) : -1;
  if (nul >= 0) return latin1(at.bytes.subarray(start, start + nul));
  const expected = `text that ends before byte ${limit}`;
  throw new FormatError({ file: at.file, offset: start, field, expected, found: 'no end' });
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

function preview(bytes: Uint8Array): string {
  const start = Buffer.from(bytes.subarray(0, 4)).toString('hex');
  return start === '' ? 'an empty file' : `bytes ${start}`;
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
