/**
 * What the next kernel is told: one segment with the zero page, the command line, the setup_data list and the EFI
 * memory map. Documentation/arch/x86/zero-page.rst.
 *
 *     +0       boot_params
 *     +0x1000  command line, NUL
 *     ...      setup_data nodes, linked in this order: E820_EXT, EFI, RNG_SEED, then the caller's
 *     ...      EFI runtime memory map
 *
 * The list must fit the window that the kernel maps it through so early: NR_FIX_BTMAPS pages, 256 KB.
 */
import {
  boot_params,
  E820_MAX_ENTRIES_ZEROPAGE,
  EFI64_LOADER_SIGNATURE,
  efi_setup_data,
  LOADER_TYPE_UNDEFINED,
  SETUP_E820_EXT,
  SETUP_EFI,
  SETUP_HEADER_OFFSET,
  SETUP_RNG_SEED,
  setup_data,
} from '../abi/bootparam.ts';
import { UnsupportedError } from '../errors.ts';
import { type E820Entry, writeE820 } from '../mem/e820.ts';
import { alignUp } from '../mem/range.ts';
import type { EfiHandover } from '../sys/firmware.ts';
import type { BootImage } from './bootimage.ts';

export interface NextKernel {
  readonly image: BootImage;
  /** Load address. */
  readonly kernelAt: number;
  readonly initrd: { readonly start: number; readonly size: number } | undefined;
  readonly commandLine: string;
  readonly e820: readonly E820Entry[];
  /** The running kernel's own zero page, for screen, EDD and the like. Undefined: those stay zero. */
  readonly running: Uint8Array | undefined;
  /** 0: the kernel looks for it in the BIOS area. */
  readonly acpiRsdp: number;
  readonly efi: EfiHandover | undefined;
  /** 32 bytes for the next kernel's random generator. */
  readonly rngSeed: Uint8Array;
}

/** Where the command line begins in the segment. */
export const COMMAND_LINE_OFFSET = 4096;
const EARLY_MAP_WINDOW = 256 * 1024;

/** Bytes that `bootParams` is going to take, the same for any address. */
export function bootParamsSize(next: NextKernel): number {
  return layOut(next).size;
}

/**
 * The segment, for loading at physical address `at`.
 *
 * @throws UnsupportedError where the command line is longer than the kernel takes, or the memory map is too long
 */
export function bootParams(next: NextKernel, at: number): Uint8Array {
  const { image } = next;
  const { nodes, memmapAt, size, commandLine } = layOut(next);
  const bytes = new Uint8Array(size);
  bytes.set(image.setupHeader, SETUP_HEADER_OFFSET);
  const params = boot_params.read(bytes);
  const { hdr } = params;

  hdr.type_of_loader = LOADER_TYPE_UNDEFINED;
  hdr.code32_start = next.kernelAt % TWO32;
  [hdr.cmd_line_ptr, params.ext_cmd_line_ptr] = halves(at + COMMAND_LINE_OFFSET);
  if (next.initrd !== undefined) {
    [hdr.ramdisk_image, params.ext_ramdisk_image] = halves(next.initrd.start);
    [hdr.ramdisk_size, params.ext_ramdisk_size] = halves(next.initrd.size);
  }
  for (const [i, entry] of next.e820.slice(0, E820_MAX_ENTRIES_ZEROPAGE).entries()) {
    params.e820_table[i] = { addr: entry.start, size: entry.end - entry.start, type: entry.type };
  }
  params.e820_entries = Math.min(next.e820.length, E820_MAX_ENTRIES_ZEROPAGE);
  params.acpi_rsdp_addr = next.acpiRsdp;
  if (next.running !== undefined) {
    const running = boot_params.read(next.running);
    params.screen_info = running.screen_info;
    params.eddbuf = running.eddbuf;
    params.eddbuf_entries = running.eddbuf_entries;
    params.edd_mbr_sig_buffer = running.edd_mbr_sig_buffer;
    params.edd_mbr_sig_buf_entries = running.edd_mbr_sig_buf_entries;
    params.secure_boot = running.secure_boot;
    hdr.hardware_subarch = running.hdr.hardware_subarch;
  }
  if (next.efi !== undefined) {
    const [efi_systab, efi_systab_hi] = halves(next.efi.systab);
    const [efi_memmap, efi_memmap_hi] = halves(at + memmapAt);
    params.efi_info = {
      efi_loader_signature: EFI64_LOADER_SIGNATURE,
      efi_systab,
      efi_systab_hi,
      efi_memdesc_size: next.efi.memdescSize,
      efi_memdesc_version: next.efi.memdescVersion,
      efi_memmap,
      efi_memmap_hi,
      efi_memmap_size: next.efi.memmap.length,
    };
    bytes.set(next.efi.memmap, memmapAt);
  }
  for (const [i, node] of nodes.entries()) {
    const following = nodes[i + 1];
    setup_data.write(
      { next: following === undefined ? 0 : at + following.at, type: node.type, len: node.data.length },
      bytes,
      node.at,
    );
    bytes.set(node.data, node.at + setup_data.size);
  }
  hdr.setup_data = BigInt(at + nodes[0]!.at);
  boot_params.write(params, bytes);
  bytes.set(commandLine, COMMAND_LINE_OFFSET);
  return bytes;
}

function layOut(next: NextKernel) {
  const commandLine = Buffer.from(next.commandLine);
  if (commandLine.length > next.image.commandLineMax) {
    throw new UnsupportedError({
      what: `${next.image.file}: cmdline_size`,
      why: `the command line has ${commandLine.length} bytes and this kernel takes ${next.image.commandLineMax}`,
      remedy: 'shorten it',
    });
  }
  let end = COMMAND_LINE_OFFSET + commandLine.length + 1;
  const nodes: { at: number; type: number; data: Uint8Array }[] = [];
  const add = (type: number, data: Uint8Array) => {
    const at = alignUp(end, 16);
    nodes.push({ at, type, data });
    end = at + setup_data.size + data.length;
  };
  const rest = next.e820.slice(E820_MAX_ENTRIES_ZEROPAGE);
  if (rest.length > 0) add(SETUP_E820_EXT, writeE820(rest));
  if (next.efi !== undefined) {
    const { fwVendor, configTable, smbios } = next.efi;
    add(SETUP_EFI, efi_setup_data.write({ fw_vendor: fwVendor, tables: configTable, smbios }));
  }
  add(SETUP_RNG_SEED, next.rngSeed);
  if (end - nodes[0]!.at > EARLY_MAP_WINDOW) {
    throw new UnsupportedError({
      what: 'the memory map for the next kernel',
      why: `its ${next.e820.length} entries do not fit the 256 KB that a kernel maps so early`,
      remedy: 'reserve fewer, larger ranges',
    });
  }
  const memmapAt = alignUp(end, 16);
  return { commandLine, nodes, memmapAt, size: alignUp(memmapAt + (next.efi?.memmap.length ?? 0), 4096) };
}

const TWO32 = 2 ** 32;

/** Low and high 32 bits. */
function halves(value: number): [number, number] {
  return [value % TWO32, Math.floor(value / TWO32)];
}
