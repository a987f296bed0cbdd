/**
 * The way back from a second kernel into the one that jumped to it with KEXEC_PRESERVE_CONTEXT: the jump-back entry is an
 * address in the first kernel's control page, outside of what the second one knows as memory and maps when it ends, so
 * the helper brings page tables of its own.
 *
 *     +0      code with its parameters
 *     +4096   identity map: the PML4, behind it the rest of the tables, last a PML5
 *
 * The entry is left by `ret` of the first kernel's code, with the stack pointing at a word that becomes the address at
 * which that kernel calls the image the next time (arch/x86/kernel/relocate_kernel_64.S); 0, as no image is called twice.
 */
import { align, assemble, dq } from './assemble.ts';
import { cli, jmp, jz, lea, mov, or, test } from './instructions.ts';
import { cr0, cr3, cr4, eax, ecx, label, mem, qword, rax, rcx, rsp } from './operands.ts';

const CR0_WP = 1 << 16;
const CR4_LA57 = 1 << 12;
const PAGE = 4096;
const GB = 2 ** 30;

/** Bits of a page table entry: present, writable, accessed, dirty; and that it maps 2 MB. */
const TABLE = 0x63n;
const LARGE_PAGE = 0xe3n;

/**
 * The helper, to be loaded at physical address `at`, a multiple of 4096, and entered at its first byte.
 *
 * @param entry the jump-back entry
 * @param limit the identity map covers addresses below it
 */
export function jumpBackHelper(at: number, entry: number, limit: number): Uint8Array {
  const { bytes: tables, pml5 } = identityMap(at + PAGE, limit);
  const code = helperCode(entry, at + PAGE, at + PAGE + pml5);
  const bytes = new Uint8Array(PAGE + tables.length);
  bytes.set(code);
  bytes.set(tables, PAGE);
  return bytes;
}

/** Size of the helper in bytes. */
export function jumpBackHelperSize(limit: number): number {
  return PAGE + identityMap(0, limit).bytes.length;
}

/**
 * Paging must be as deep as the first kernel left it, which is as deep as it is here. WP is set because the first kernel
 * may restore CR4.CET, and CET without WP faults (SDM Vol. 3, 2.5); kexec has cleared it.
 */
function helperCode(entry: number, pml4: number, pml5: number): Uint8Array {
  const [fourLevels, entryAt, stack, tables4, tables5] = [
    label('four_levels'),
    label('entry'),
    label('stack'),
    label('pml4'),
    label('pml5'),
  ];
  return assemble(
    cli(),
    mov(rax, qword({ rip: tables4 })),
    ...[mov(rcx, cr4), test(ecx, CR4_LA57), jz(fourLevels)],
    mov(rax, qword({ rip: tables5 })),
    fourLevels,
    mov(cr3, rax),
    ...[mov(rax, cr0), or(eax, CR0_WP), mov(cr0, rax)],
    lea(rsp, mem({ rip: stack })),
    mov(rax, qword({ rip: entryAt })),
    jmp(rax),
    align(8),
    ...[entryAt, dq(entry), tables4, dq(pml4), tables5, dq(pml5), stack, dq(0)],
  ).bytes;
}

/** Tables for physical address `at`: PML4, one PDPT for each 512 GB, one PD for each GB, PML5. */
function identityMap(at: number, limit: number): { bytes: Uint8Array; pml5: number } {
  const gigabytes = Math.ceil(limit / GB);
  const pdpts = Math.ceil(gigabytes / 512);
  const pml5 = (1 + pdpts + gigabytes) * PAGE;
  const bytes = new Uint8Array(pml5 + PAGE);
  const view = new DataView(bytes.buffer);
  const point = (table: number, index: number, to: number) =>
    view.setBigUint64(table + index * 8, BigInt(at + to) | TABLE, true);
  const [firstPdpt, firstPd] = [PAGE, (1 + pdpts) * PAGE];
  for (let i = 0; i < pdpts; i++) point(0, i, firstPdpt + i * PAGE);
  for (let gigabyte = 0; gigabyte < gigabytes; gigabyte++) {
    const pd = firstPd + gigabyte * PAGE;
    point(firstPdpt + Math.floor(gigabyte / 512) * PAGE, gigabyte % 512, pd);
    for (let i = 0; i < 512; i++) {
      view.setBigUint64(pd + i * 8, (BigInt(gigabyte) << 30n) | (BigInt(i) << 21n) | LARGE_PAGE, true);
    }
  }
  point(pml5, 0, 0);
  return { bytes, pml5 };
}
