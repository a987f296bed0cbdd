/** Kernel images and machines made up for tests: the smallest files that are what they say. */

import {
  BOOT_FLAG,
  LOADED_HIGH,
  SETUP_HEADER_MAGIC,
  SETUP_HEADER_OFFSET,
  setup_header,
  XLF_5LEVEL,
  XLF_CAN_BE_LOADED_ABOVE_4G,
  XLF_KERNEL_64,
} from '../../../src/abi/bootparam.ts';
import { E820_TYPE_RAM, E820_TYPE_RESERVED } from '../../../src/abi/e820.ts';
import type { Machine } from '../../../src/kexec/machine.ts';
import type { E820Entry } from '../../../src/mem/e820.ts';

type Header = ReturnType<typeof setup_header.read>;

/** A relocatable 64-bit bzImage whose protected-mode part has `kernelSize` bytes (a multiple of 16). */
export function bzImage(change: Partial<Header> = {}, kernelSize = 4096): Uint8Array {
  const setupSects = change.setup_sects ?? 3;
  const bytes = new Uint8Array((setupSects + 1) * 512 + kernelSize);
  for (let i = (setupSects + 1) * 512; i < bytes.length; i++) bytes[i] = i % 251;
  setup_header.write(
    {
      setup_sects: setupSects,
      syssize: kernelSize / 16,
      boot_flag: BOOT_FLAG,
      jump: 0x6aeb,
      header: SETUP_HEADER_MAGIC,
      version: 0x20f,
      kernel_version: 0x400,
      loadflags: LOADED_HIGH,
      initrd_addr_max: 0x7fffffff,
      kernel_alignment: 0x200000,
      relocatable_kernel: 1,
      xloadflags: XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G | XLF_5LEVEL,
      cmdline_size: 2047,
      pref_address: 0x1000000n,
      init_size: 0x2000000,
      ...change,
    },
    bytes,
    SETUP_HEADER_OFFSET,
  );
  bytes.set(Buffer.from('6.99.0-test (somebody) #1\0'), 0x600);
  return bytes;
}

/** A machine with this memory and nothing else to tell. */
export function machine(firmware: readonly E820Entry[], change: Partial<Machine> = {}): Machine {
  return {
    firmware,
    systemRam: firmware.filter(({ type }) => type === E820_TYPE_RAM),
    crashRanges: [],
    bootParams: undefined,
    acpiRsdp: 0,
    efi: undefined,
    fiveLevel: false,
    serialPort: 0x3f8,
    ...change,
  };
}

/** 2 GB as QEMU's q35 shows them. */
export const q35 = machine([
  { start: 0, end: 0x9fc00, type: E820_TYPE_RAM },
  { start: 0x9fc00, end: 0xa0000, type: E820_TYPE_RESERVED },
  { start: 0xf0000, end: 0x100000, type: E820_TYPE_RESERVED },
  { start: 0x100000, end: 0x7ffe0000, type: E820_TYPE_RAM },
  { start: 0x7ffe0000, end: 0x80000000, type: E820_TYPE_RESERVED },
]);
