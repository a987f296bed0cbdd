/**
 * The ELF headers that tell a capture kernel of the one that died: where each processor's registers were noted, the
 * vmcoreinfo, and which memory is worth reading. What /proc/vmcore there shows is made from them
 * (Documentation/admin-guide/kdump/vmcoreinfo.rst, fs/proc/vmcore.c).
 */
import {
  EI_CLASS,
  EI_DATA,
  EI_NIDENT,
  EI_VERSION,
  ELFCLASS64,
  ELFDATA2LSB,
  ELFMAG,
  Elf64_Ehdr,
  Elf64_Phdr,
  EM_X86_64,
  ET_CORE,
  EV_CURRENT,
  PF_R,
  PF_W,
  PF_X,
  PT_LOAD,
  PT_NOTE,
} from '../abi/elf.ts';
import type { Range } from '../mem/range.ts';

export interface CoreMemory extends Range {
  /** Where the content lies when the capture kernel runs, if that is somewhere else. */
  readonly copiedTo?: number;
  /** Kernel virtual address of `start`. */
  readonly virtual: bigint;
}

export interface DyingKernel {
  /** Physical addresses and sizes in bytes: a note of each processor, then vmcoreinfo. */
  readonly notes: readonly { readonly address: number; readonly size: number }[];
  readonly memory: readonly CoreMemory[];
}

/** One PT_NOTE for each note and one PT_LOAD for each piece of memory; addresses stand for file offsets. */
export function elfCoreHeaders({ notes, memory }: DyingKernel): Uint8Array {
  const count = notes.length + memory.length;
  const bytes = new Uint8Array(Elf64_Ehdr.size + count * Elf64_Phdr.size);
  const e_ident = new Uint8Array(EI_NIDENT);
  e_ident.set(Buffer.from(ELFMAG, 'latin1'));
  [e_ident[EI_CLASS], e_ident[EI_DATA], e_ident[EI_VERSION]] = [ELFCLASS64, ELFDATA2LSB, EV_CURRENT];
  Elf64_Ehdr.write(
    {
      e_ident,
      e_type: ET_CORE,
      e_machine: EM_X86_64,
      e_version: EV_CURRENT,
      e_phoff: BigInt(Elf64_Ehdr.size),
      e_ehsize: Elf64_Ehdr.size,
      e_phentsize: Elf64_Phdr.size,
      e_phnum: count,
    },
    bytes,
  );
  const headers = [
    ...notes.map(({ address, size }) => ({
      p_type: PT_NOTE,
      p_offset: BigInt(address),
      p_paddr: BigInt(address),
      p_filesz: BigInt(size),
      p_memsz: BigInt(size),
    })),
    ...memory.map(({ start, end, virtual, copiedTo = start }) => ({
      p_type: PT_LOAD,
      p_flags: PF_R | PF_W | PF_X,
      p_offset: BigInt(copiedTo),
      p_vaddr: virtual,
      p_paddr: BigInt(start),
      p_filesz: BigInt(end - start),
      p_memsz: BigInt(end - start),
    })),
  ];
  for (const [i, header] of headers.entries()) {
    Elf64_Phdr.write(header, bytes, Elf64_Ehdr.size + i * Elf64_Phdr.size);
  }
  return bytes;
}
