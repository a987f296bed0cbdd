/**
 * What an ELF-64 file of x86-64 begins with (elf(5)):
 *
 *     Elf64_Ehdr
 *     Elf64_Phdr[]
 *     Elf64_Shdr       section header 0, only where there are more program headers than e_phnum can say
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
  Elf64_Shdr,
  EM_X86_64,
  EV_CURRENT,
  PN_XNUM,
} from './elf.ts';

export interface ElfHeaders {
  /** ET_* */
  readonly type: number;
  /** Virtual address where a program begins. */
  readonly entry?: bigint;
  /** e_flags */
  readonly flags?: number;
  readonly segments: readonly Parameters<typeof Elf64_Phdr.write>[0][];
}

/** Bytes that the headers of so many segments take. */
export function elfHeadersSize(segments: number): number {
  return Elf64_Ehdr.size + segments * Elf64_Phdr.size + (segments >= PN_XNUM ? Elf64_Shdr.size : 0);
}

/** The headers; what they describe follows behind them. */
export function writeElfHeaders({ type, entry = 0n, flags = 0, segments }: ElfHeaders): Uint8Array {
  const count = segments.length;
  const isMany = count >= PN_XNUM;
  const bytes = new Uint8Array(elfHeadersSize(count));
  const sectionAt = Elf64_Ehdr.size + count * Elf64_Phdr.size;
  const e_ident = new Uint8Array(EI_NIDENT);
  e_ident.set(Buffer.from(ELFMAG, 'latin1'));
  [e_ident[EI_CLASS], e_ident[EI_DATA], e_ident[EI_VERSION]] = [ELFCLASS64, ELFDATA2LSB, EV_CURRENT];
  Elf64_Ehdr.write(
    {
      e_ident,
      e_type: type,
      e_machine: EM_X86_64,
      e_version: EV_CURRENT,
      e_entry: entry,
      e_phoff: BigInt(Elf64_Ehdr.size),
      e_shoff: isMany ? BigInt(sectionAt) : 0n,
      e_flags: flags,
      e_ehsize: Elf64_Ehdr.size,
      e_phentsize: Elf64_Phdr.size,
      e_phnum: isMany ? PN_XNUM : count,
      e_shentsize: isMany ? Elf64_Shdr.size : 0,
      e_shnum: isMany ? 1 : 0,
    },
    bytes,
  );
  for (const [i, segment] of segments.entries()) {
    Elf64_Phdr.write(segment, bytes, Elf64_Ehdr.size + i * Elf64_Phdr.size);
  }
  // As the kernel's core files have it (fill_extnum_info() of fs/binfmt_elf.c).
  if (isMany) Elf64_Shdr.write({ sh_size: 1n, sh_info: count }, bytes, sectionAt);
  return bytes;
}
