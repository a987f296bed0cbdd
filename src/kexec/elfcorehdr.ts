/**
 * The ELF headers that tell a capture kernel of the one that died: where each processor's registers were noted, the
 * vmcoreinfo, and which memory is worth reading. What /proc/vmcore there shows is made from them
 * (Documentation/admin-guide/kdump/vmcoreinfo.rst, fs/proc/vmcore.c).
 */
import { ET_CORE, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE } from '../abi/elf.ts';
import { writeElfHeaders } from '../abi/elfheaders.ts';
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
  const segments = [
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
  return writeElfHeaders({ type: ET_CORE, segments });
}
