/**
 * A vmlinux, the uncompressed kernel: ELF with physical addresses in its program headers. It has no setup header, so what
 * a bzImage says in it is made up here; it is entered at its first byte, startup_64 of arch/x86/kernel/head_64.S, and
 * lies where it was linked.
 */
import { BOOT_FLAG, LOADED_HIGH, SETUP_HEADER_MAGIC, setup_header } from '../abi/bootparam.ts';
import { EM_X86_64, ET_EXEC, PT_LOAD } from '../abi/elf.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { readElf, segmentBytes } from '../mem/elf.ts';
import type { BootImage } from './bootimage.ts';

/** COMMAND_LINE_SIZE of arch/x86/include/asm/setup.h, less the NUL. */
const COMMAND_LINE_MAX = 2047;
const PROTOCOL = 0x020f;
/** PMD_SIZE: page tables of head_64.S map the kernel in these. */
const ALIGNMENT = 0x200000;

/**
 * Reads a vmlinux, and lays its segments out as they lie in memory.
 *
 * @param file its name, for messages
 * @throws FormatError where the file is damaged
 * @throws UnsupportedError for ELF files that are not an x86-64 kernel
 */
export function readVmlinux(bytes: Uint8Array, file: string): BootImage {
  const elf = readElf(bytes, file);
  const unsupported = (field: string, why: string) =>
    new UnsupportedError({
      what: `${file}: ${field}`,
      why,
      remedy: 'give a bzImage or the vmlinux of an x86-64 kernel',
    });
  if (elf.machine !== EM_X86_64) throw unsupported('e_machine', `${elf.machine} is not EM_X86_64`);
  if (elf.type !== ET_EXEC) throw unsupported('e_type', `${elf.type} is not ET_EXEC, which kernels are`);
  const loads = elf.segments.filter(({ type, memsz }) => type === PT_LOAD && memsz > 0);
  if (loads.length === 0) throw unsupported('p_type', 'there is no PT_LOAD segment');
  const base = loads.reduce((low, { paddr }) => (paddr < low ? paddr : low), loads[0]!.paddr);
  const end = loads.reduce((high, { paddr, memsz }) => max(high, paddr + BigInt(memsz)), 0n);
  if (end > TOP_OF_MEMORY) {
    throw new FormatError({ file, field: 'p_paddr', expected: 'physical addresses', found: `0x${end.toString(16)}` });
  }
  if (end - base > SIZE_MAX) {
    const found = `${end - base} bytes from the first to the last`;
    throw new FormatError({ file, field: 'p_memsz', expected: `segments within ${SIZE_MAX} bytes`, found });
  }
  if (elf.entry < base || elf.entry >= end) {
    throw unsupported('e_entry', `0x${elf.entry.toString(16)} lies in no segment's physical addresses`);
  }
  const contents = loads.map((segment) => ({
    at: Number(segment.paddr - base),
    bytes: segmentBytes(elf, segment),
  }));
  // Segments need not begin at page boundaries, as what is loaded must: they are put together.
  const flat = new Uint8Array(contents.reduce((high, each) => Math.max(high, each.at + each.bytes.length), 0));
  for (const each of contents) flat.set(each.bytes, each.at);
  return {
    file,
    format: 'vmlinux',
    version: '',
    setupHeader: setup_header.write({
      boot_flag: BOOT_FLAG,
      header: SETUP_HEADER_MAGIC,
      version: PROTOCOL,
      loadflags: LOADED_HIGH,
      cmdline_size: COMMAND_LINE_MAX,
      kernel_alignment: ALIGNMENT,
    }),
    parts: [{ offset: 0, bytes: flat, memorySize: Number(end - base) }],
    size: Number(end - base),
    alignment: ALIGNMENT,
    preferred: Number(base),
    relocatable: false,
    entry64: Number(elf.entry - base),
    entry32: undefined,
    above4G: true,
    fiveLevel: true,
    efiKexec: true,
    commandLineMax: COMMAND_LINE_MAX,
    initrdMax: Number.MAX_SAFE_INTEGER,
  };
}

/** KERNEL_IMAGE_SIZE of arch/x86/include/asm/page_64_types.h. */
const SIZE_MAX = 1n << 30n;
/** Physical addresses have at most 52 bits. */
const TOP_OF_MEMORY = 2n ** 52n;

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
