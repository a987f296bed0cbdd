/**
 * ELF-64 file structures: <elf.h>, System V ABI chapter 4 and 5, and the x86-64 psABI.
 *
 * 64-bit fields are bigint: kernel addresses use all of their bits, and a damaged file may hold anything.
 */
import { bytes, struct, u8, u16, u32, u64 } from './struct.ts';

export const EI_CLASS = 4;
export const EI_DATA = 5;
export const EI_VERSION = 6;
export const EI_NIDENT = 16;
export const ELFMAG = '\x7fELF';
export const ELFCLASS64 = 2;
export const ELFDATA2LSB = 1;
export const EV_CURRENT = 1;

export const ET_REL = 1;
export const ET_EXEC = 2;
export const ET_DYN = 3;
export const ET_CORE = 4;

export const EM_386 = 3;
export const EM_X86_64 = 62;

/** e_phnum when the true count does not fit and stands in sh_info of section 0. */
export const PN_XNUM = 0xffff;

export const Elf64_Ehdr = struct('Elf64_Ehdr', 64, {
  e_ident: bytes(EI_NIDENT),
  e_type: u16,
  e_machine: u16,
  e_version: u32,
  e_entry: u64,
  e_phoff: u64,
  e_shoff: u64,
  e_flags: u32,
  e_ehsize: u16,
  e_phentsize: u16,
  e_phnum: u16,
  e_shentsize: u16,
  e_shnum: u16,
  e_shstrndx: u16,
});

export const PT_NULL = 0;
export const PT_LOAD = 1;
export const PT_DYNAMIC = 2;
export const PT_INTERP = 3;
export const PT_NOTE = 4;
/** Whether the stack may be executed, by its flags. */
export const PT_GNU_STACK = 0x6474e551;

export const PF_X = 1;
export const PF_W = 2;
export const PF_R = 4;

export const Elf64_Phdr = struct('Elf64_Phdr', 56, {
  p_type: u32,
  p_flags: u32,
  p_offset: u64,
  p_vaddr: u64,
  p_paddr: u64,
  p_filesz: u64,
  p_memsz: u64,
  p_align: u64,
});

export const SHT_NULL = 0;
export const SHT_PROGBITS = 1;
export const SHT_SYMTAB = 2;
export const SHT_STRTAB = 3;
export const SHT_NOTE = 7;
export const SHT_NOBITS = 8;
export const SHT_DYNSYM = 11;

/** e_shstrndx when the true index stands in sh_link of section 0. */
export const SHN_XINDEX = 0xffff;

export const Elf64_Shdr = struct('Elf64_Shdr', 64, {
  sh_name: u32,
  sh_type: u32,
  sh_flags: u64,
  sh_addr: u64,
  sh_offset: u64,
  sh_size: u64,
  sh_link: u32,
  sh_info: u32,
  sh_addralign: u64,
  sh_entsize: u64,
});

export const Elf64_Sym = struct('Elf64_Sym', 24, {
  st_name: u32,
  st_info: u8,
  st_other: u8,
  st_shndx: u16,
  st_value: u64,
  st_size: u64,
});

export const DT_NULL = 0n;
export const DT_NEEDED = 1n;
export const DT_STRTAB = 5n;
export const DT_STRSZ = 10n;
export const DT_SONAME = 14n;
export const DT_RPATH = 15n;
export const DT_RUNPATH = 29n;

export const Elf64_Dyn = struct('Elf64_Dyn', 16, { d_tag: u64, d_val: u64 });

/** Header of a note; the name and the descriptor follow, each padded to 4 bytes. */
export const Elf64_Nhdr = struct('Elf64_Nhdr', 12, { n_namesz: u32, n_descsz: u32, n_type: u32 });
