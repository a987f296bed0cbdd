/**
 * A boot loader for tests that puts machine code and data into memory and enters one of the pieces in 64-bit mode, with an
 * identity map of the first 4 GB: a flat image for QEMU's -kernel, by the Multiboot Specification 0.6.96 (3.1: the header
 * with the address fields; 3.2: 32-bit protected mode, paging off, interrupts off).
 */
import { align, assemble, code32, dd, dq, dw } from '../../src/asm/assemble.ts';
import { jmp, jmpFar, lea, lgdt, mov, or, rdmsr, wrmsr } from '../../src/asm/instructions.ts';
import { cr0, cr3, cr4, eax, ecx, type Label, label, mem, rax, rsp } from '../../src/asm/operands.ts';

/** Where the loader itself lies, and behind it its page tables: PML4, PDPT, a PD for each GB. */
const LOADER = 0x100000;
const TABLES = 0x101000;
const GIGABYTES = 4;
const LOADER_END = TABLES + (2 + GIGABYTES) * 0x1000;

const MAGIC = 0x1badb002;
/** The header says where the image is to lie and where it is entered. */
const ADDRESS_FIELDS = 1 << 16;
const CR4_PAE = 1 << 5;
const MSR_EFER = 0xc000_0080;
const EFER_LME = 1 << 8;
const CR0_PG = 0x8000_0000;
const CODE_SELECTOR = 0x08;

/**
 * The image.
 *
 * @param pieces where each is to lie: physical addresses from 0x110000 on
 * @param entry which is jumped to, with `top` at the top of the stack
 */
export function flatImage(
  pieces: readonly { readonly at: number; readonly bytes: Uint8Array }[],
  entry: number,
  top: number,
): Uint8Array {
  const end = Math.max(LOADER_END, ...pieces.map(({ at, bytes }) => at + bytes.length));
  const image = new Uint8Array(end - LOADER);
  image.set(loader(end, entry, top));
  image.set(identityMap(), TABLES - LOADER);
  for (const { at, bytes } of pieces) image.set(bytes, at - LOADER);
  return image;
}

function loader(end: number, entry: number, top: number): Uint8Array {
  const [start, gdt, pointer] = [label('start'), label('gdt'), label('pointer')];
  const [far, long, stack] = [label('far'), label('long'), label('stack')];
  const build = (at: (label: Label) => number) =>
    assemble(
      ...[dd(MAGIC), dd(ADDRESS_FIELDS), dd(-(MAGIC + ADDRESS_FIELDS))],
      ...[dd(LOADER), dd(LOADER), dd(end), dd(end), dd(at(start))],
      start,
      code32(
        ...[mov(eax, TABLES), mov(cr3, eax)],
        ...[mov(eax, CR4_PAE), mov(cr4, eax)],
        ...[mov(ecx, MSR_EFER), rdmsr(), or(eax, EFER_LME), wrmsr()],
        ...[mov(eax, cr0), or(eax, CR0_PG), mov(cr0, eax)],
        ...[mov(eax, at(pointer)), lgdt(mem({ base: eax }))],
        ...[mov(eax, at(far)), jmpFar(mem({ base: eax }))],
      ),
      long,
      lea(rsp, mem({ rip: stack })),
      ...[mov(eax, entry), jmp(rax)],
      align(16),
      // null, then 64-bit code
      ...[gdt, dq(0, 0x00af9a000000ffffn), pointer, dw(15), dd(at(gdt)), far, dd(at(long)), dw(CODE_SELECTOR)],
      ...[align(8), stack, dq(top)],
    );
  // Addresses take the same room whatever they are: the first pass tells them to the second.
  const first = build(() => LOADER);
  return build((place) => LOADER + first.offsetOf(place)).bytes;
}

function identityMap(): Uint8Array {
  const [present, large] = [0x3n, 0x83n];
  const entries = new BigUint64Array((2 + GIGABYTES) * 512);
  entries[0] = BigInt(TABLES + 0x1000) | present;
  for (let i = 0; i < GIGABYTES; i++) entries[512 + i] = BigInt(TABLES + (2 + i) * 0x1000) | present;
  for (let i = 0; i < GIGABYTES * 512; i++) entries[1024 + i] = (BigInt(i) << 21n) | large;
  return new Uint8Array(entries.buffer);
}
