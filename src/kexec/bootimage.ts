/**
 * What a kernel's file says about where and how it can be loaded: a bzImage through the setup header of the boot
 * protocol, a vmlinux through its ELF program headers. Only bytes are looked at, nothing of this machine.
 *
 *     bzImage:  0      boot sector; the setup header begins at 0x1f1
 *               512    real-mode setup code, setup_sects sectors (not needed when a kernel starts a kernel)
 *               ...    protected-mode kernel: 32-bit entry at +0, 64-bit entry at +0x200
 *
 * Documentation/arch/x86/boot.rst.
 */
import {
  BOOT_FLAG,
  LOADED_HIGH,
  SETUP_HEADER_JUMP_END,
  SETUP_HEADER_MAGIC,
  SETUP_HEADER_OFFSET,
  setup_header,
  XLF_5LEVEL,
  XLF_CAN_BE_LOADED_ABOVE_4G,
  XLF_EFI_KEXEC,
  XLF_KERNEL_64,
} from '../abi/bootparam.ts';
import { FormatError, UnsupportedError } from '../errors.ts';

export interface BootImage {
  /** Path or name, for messages. */
  readonly file: string;
  readonly format: 'bzImage' | 'vmlinux';
  /** As `uname -r` and more; empty where the file does not say. */
  readonly version: string;
  /** Goes to boot_params at SETUP_HEADER_OFFSET, before the loader's own fields. */
  readonly setupHeader: Uint8Array;
  /** What to load, each at its offset from the load address. */
  readonly parts: readonly { readonly offset: number; readonly bytes: Uint8Array; readonly memorySize: number }[];
  /** Bytes from the load address on that the kernel uses before it looks at the memory map. */
  readonly size: number;
  /** The load address must be a multiple of it. */
  readonly alignment: number;
  /** Where it would like to lie, and must lie if it is not relocatable. */
  readonly preferred: number;
  readonly relocatable: boolean;
  /** Offset of the 64-bit entry from the load address; undefined where the kernel has the 32-bit one only. */
  readonly entry64: number | undefined;
  /** Offset of the 32-bit entry from the load address; undefined where the kernel has the 64-bit one only. */
  readonly entry32: number | undefined;
  /** Kernel, initrd, command line and boot_params may lie above 4 GB. */
  readonly above4G: boolean;
  /** Its 64-bit entry may be taken with 5-level paging active. */
  readonly fiveLevel: boolean;
  /** Takes EFI's tables from a kernel that has used them. */
  readonly efiKexec: boolean;
  /** Longest command line in bytes, without its NUL. */
  readonly commandLineMax: number;
  /** Highest address that a byte of the initrd may have. */
  readonly initrdMax: number;
}

/** The 64-bit entry of a bzImage: boot.rst, "64-bit Boot Protocol". */
const BZIMAGE_ENTRY_64 = 0x200;

/** init_size and pref_address are there from 2.10 on, xloadflags from 2.12 on. */
const OLDEST_PROTOCOL = 0x020a;
const XLOADFLAGS_PROTOCOL = 0x020c;

/** Physical addresses have at most 52 bits. */
const TOP_OF_MEMORY = 2n ** 52n;

/** Is this worth giving to `readBzImage`? */
export function isBzImage(bytes: Uint8Array): boolean {
  if (bytes.length < SETUP_HEADER_OFFSET + setup_header.size) return false;
  const header = setup_header.read(bytes, SETUP_HEADER_OFFSET);
  return header.boot_flag === BOOT_FLAG && header.header === SETUP_HEADER_MAGIC;
}

/**
 * Reads a bzImage. The parts are views of `bytes`.
 *
 * @param file its name, for messages
 * @throws FormatError where the file is cut or is no bzImage
 * @throws UnsupportedError for images that cannot be loaded; it names the field that says so
 */
export function readBzImage(bytes: Uint8Array, file: string): BootImage {
  const wrong = (field: keyof typeof setup_header.offsets, expected: string, found: string) =>
    new FormatError({ file, offset: SETUP_HEADER_OFFSET + setup_header.offsets[field], field, expected, found });
  const unsupported = (field: string, why: string, remedy: string) =>
    new UnsupportedError({ what: `${file}: ${field}`, why, remedy });

  if (bytes.length < SETUP_HEADER_OFFSET + setup_header.size) {
    throw wrong('setup_sects', 'a setup header', `a file of ${bytes.length} bytes`);
  }
  const header = setup_header.read(bytes, SETUP_HEADER_OFFSET);
  if (header.boot_flag !== BOOT_FLAG) throw wrong('boot_flag', hex(BOOT_FLAG), hex(header.boot_flag));
  if (header.header !== SETUP_HEADER_MAGIC) throw wrong('header', 'HdrS', hex(header.header));
  if (header.version < OLDEST_PROTOCOL) {
    throw unsupported(
      'version',
      `boot protocol ${protocolText(header.version)} is too old, ${protocolText(OLDEST_PROTOCOL)} is the oldest that tells where a kernel may lie`,
      'take a kernel of Linux 2.6.31 or later',
    );
  }
  if ((header.loadflags & LOADED_HIGH) === 0) {
    throw unsupported('loadflags', 'LOADED_HIGH is not set, this is a zImage', 'build a bzImage');
  }
  // A count of 0 means 4, for kernels older than the field: boot.rst.
  const kernelAt = ((header.setup_sects || 4) + 1) * 512;
  const kernelLength = header.syssize * 16;
  if (kernelAt + kernelLength > bytes.length) {
    const needed = `${kernelAt + kernelLength} bytes (setup_sects ${header.setup_sects}, syssize ${hex(header.syssize)})`;
    throw wrong('syssize', needed, `a file of ${bytes.length} bytes: it is truncated`);
  }
  if (header.init_size < kernelLength) {
    throw wrong('init_size', `at least the kernel's ${hex(kernelLength)} bytes`, hex(header.init_size));
  }
  if (!isPowerOfTwo(header.kernel_alignment) || header.kernel_alignment < 4096) {
    throw wrong('kernel_alignment', 'a power of two, a page at least', hex(header.kernel_alignment));
  }
  if (header.pref_address >= TOP_OF_MEMORY) {
    throw wrong('pref_address', `an address below ${hex(TOP_OF_MEMORY)}`, `0x${header.pref_address.toString(16)}`);
  }
  const headerEnd = SETUP_HEADER_JUMP_END + (header.jump >>> 8);
  if (headerEnd < SETUP_HEADER_OFFSET + setup_header.offsets.init_size + 4 || headerEnd > 0x290) {
    throw wrong('jump', 'a header that ends behind init_size and before 0x290', `its end at ${hex(headerEnd)}`);
  }
  const xloadflags = header.version < XLOADFLAGS_PROTOCOL ? 0 : header.xloadflags;
  const above4G = (xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) !== 0;
  return {
    file,
    format: 'bzImage',
    version: versionText(bytes, header.kernel_version),
    setupHeader: bytes.subarray(SETUP_HEADER_OFFSET, headerEnd),
    parts: [{ offset: 0, bytes: bytes.subarray(kernelAt), memorySize: header.init_size }],
    size: header.init_size,
    alignment: header.kernel_alignment,
    preferred: Number(header.pref_address),
    relocatable: header.relocatable_kernel !== 0,
    entry64: (xloadflags & XLF_KERNEL_64) === 0 ? undefined : BZIMAGE_ENTRY_64,
    entry32: 0,
    above4G,
    fiveLevel: (xloadflags & XLF_5LEVEL) !== 0,
    efiKexec: (xloadflags & XLF_EFI_KEXEC) !== 0,
    commandLineMax: header.cmdline_size,
    // The field is for the 32-bit ramdisk_image; with ext_ramdisk_image there is no limit.
    initrdMax: above4G ? Number.MAX_SAFE_INTEGER : header.initrd_addr_max,
  };
}

/** The NUL-terminated text at kernel_version + 0x200. */
function versionText(bytes: Uint8Array, pointer: number): string {
  if (pointer === 0) return '';
  const from = pointer + 0x200;
  const end = bytes.indexOf(0, from);
  if (end < 0 || end - from > 1024) return '';
  return Buffer.from(bytes.subarray(from, end)).toString('latin1');
}

function protocolText(version: number): string {
  return `${version >>> 8}.${String(version & 0xff).padStart(2, '0')}`;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
