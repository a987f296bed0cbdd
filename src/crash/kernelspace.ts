/** The kernel's own address space, by what VMCOREINFO says of it. */
import { FormatError } from '../errors.ts';
import { AddressSpace, isHole, PhysicalMemory } from './memory.ts';
import type { PageSource } from './source.ts';
import type { Vmcoreinfo } from './vmcoreinfo.ts';

/** Where x86-64 maps the kernel's image: __START_KERNEL_map, arch/x86/include/asm/page_64_types.h */
const START_KERNEL_MAP = 0xffff_ffff_8000_0000n;
/** The kernel's memory is mapped from a multiple of this on, KASLR or not (arch/x86/mm/kaslr.c). */
const PAGE_OFFSET_ALIGN = 2n ** 30n;

/** @throws FormatError where VMCOREINFO does not lead to the page tables */
export function kernelSpace(source: PageSource, info: Vmcoreinfo): AddressSpace {
  const top = info.symbol('swapper_pg_dir');
  const base = info.number('phys_base');
  if (top === undefined || base === undefined) {
    throw new FormatError({
      file: source.file,
      field: 'SYMBOL(swapper_pg_dir), NUMBER(phys_base) of VMCOREINFO',
      expected: 'both, as kernels for x86-64 have',
      found: 'not both',
    });
  }
  const root = Number(BigInt.asUintN(52, top - START_KERNEL_MAP + BigInt(base)));
  const levels = info.number('pgtable_l5_enabled') === 1 ? 5 : 4;
  const encryption = BigInt(info.number('sme_mask') ?? 0);
  return new AddressSpace(new PhysicalMemory(source), { root, levels, encryption });
}

/** Virtual less physical address of what the kernel maps of all memory, or undefined where it does not show. */
export function directMapOffset(space: AddressSpace, info: Vmcoreinfo): bigint | undefined {
  // A table that was allocated at boot, so its address is one of this mapping.
  const inside = info.symbol('mem_section');
  if (inside === undefined) return undefined;
  const found = space.translate(inside);
  if (isHole(found)) return undefined;
  const offset = inside - BigInt(found.physical);
  return offset % PAGE_OFFSET_ALIGN === 0n ? offset : undefined;
}
