/**
 * The purgatory's parameter block, 8 bytes into it: the interface between loader and machine code, and between tideover
 * and other boot loaders. docs/spec/purgatory.md. All addresses are physical.
 */
import { array, bytes, chars, struct, u16, u32, u64n } from '../abi/struct.ts';

export const PURGATORY_MAGIC = 'TIDEPURG';
export const PURGATORY_VERSION = 1;
/** Where the block begins. */
export const PARAMETERS_OFFSET = 8;

/** Put the VGA into text mode, 80 x 25. */
export const RESET_VGA = 1 << 0;
/** Put the interrupt controllers back to the vectors and masks that a BIOS leaves. */
export const RESET_PIC = 1 << 1;
/** Enter the kernel in 32-bit protected mode without paging. Everything must lie below 4 GB. */
export const ENTRY_32 = 1 << 2;

/** As many as kexec_load(2) takes segments. */
export const REGIONS_MAX = 16;

/** Memory that must be unchanged, and the SHA-256 that says so. */
export const purgatory_region = struct('purgatory_region', 48, { start: u64n, size: u64n, sha256: bytes(32) });

export const purgatory_parameters = struct('purgatory_parameters', 840, {
  magic: chars(8),
  version: u32,
  flags: u32,
  /** The kernel's entry. */
  entry: u64n,
  boot_params: u64n,
  /** 16 characters, in the command line, that become the jump-back entry in hex. 0: nowhere. */
  jump_back_text: u64n,
  /** What is to be copied before the kernel uses it. */
  backup_from: u64n,
  backup_to: u64n,
  /** 0: nothing. */
  backup_size: u64n,
  /** I/O base of a 16550 for the message on damage. 0: none. */
  serial_port: u16,
  region_count: u32,
  regions: array(purgatory_region, REGIONS_MAX),
});
