/** What a plan must know of this machine. */

import { E820_TYPE_RAM, E820_TYPE_RESERVED, e820TypeOf } from '../abi/e820.ts';
import { type E820Entry, punch } from '../mem/e820.ts';
import { intersect, type Range } from '../mem/range.ts';
import { acpiRsdp, type EfiHandover, efiHandover, fiveLevelPaging, runningBootParams } from '../sys/firmware.ts';
import { readIomem } from '../sys/iomem.ts';
import { readFirmwareMap } from '../sys/memmap.ts';
import { readProcText } from '../sys/proc.ts';

export interface Machine {
  /** The firmware's map of physical memory. */
  readonly firmware: readonly E820Entry[];
  /** RAM that the running kernel uses, and so maps when it ends. */
  readonly systemRam: readonly Range[];
  /** Ranges reserved by crashkernel=. */
  readonly crashRanges: readonly Range[];
  /** The running kernel's zero page. */
  readonly bootParams: Uint8Array | undefined;
  readonly acpiRsdp: number;
  readonly efi: EfiHandover | undefined;
  readonly fiveLevel: boolean;
  /** I/O base of the serial console, or of the first port where there is none. */
  readonly serialPort: number;
}

/** @throws UnsupportedError where the kernel does not show its memory */
export function readMachine(): Machine {
  const bootParams = runningBootParams();
  const resources = readIomem();
  const named = (name: string) => resources.filter((resource) => resource.name === name);
  const firmware = readFirmwareMap().map(({ start, end, type }) => ({ start, end, type: e820TypeOf(type) }));
  const efi = efiHandover(bootParams);
  return {
    firmware: efi === undefined ? firmware : keepEfiTables(firmware, named('Reserved')),
    systemRam: named('System RAM').filter(({ depth }) => depth === 0),
    crashRanges: named('Crash kernel'),
    bootParams,
    acpiRsdp: acpiRsdp(bootParams),
    efi,
    fiveLevel: fiveLevelPaging(),
    serialPort: serialPort(readProcText('/proc/cmdline')),
  };
}

/**
 * EFI leaves tables (memory attributes, ESRT, the TPM's log) in what its map calls free RAM. The running kernel has reserved
 * them (efi_mem_reserve()), and the next one needs them too.
 *
 * @param reserved what is reserved in the running kernel's map
 */
export function keepEfiTables(firmware: readonly E820Entry[], reserved: readonly Range[]): E820Entry[] {
  return punch(firmware, intersect(reserved, [ABOVE_FIRST_MB]), E820_TYPE_RAM, E820_TYPE_RESERVED);
}

/** Below, kernels reserve what they want by themselves, and must be able to. */
const ABOVE_FIRST_MB = { start: 2 ** 20, end: Number.MAX_SAFE_INTEGER };

/** I/O bases of ttyS0 to ttyS3 on a PC: SERIAL_PORT_DFNS of arch/x86/include/asm/serial.h. */
const SERIAL_PORTS = [0x3f8, 0x2f8, 0x3e8, 0x2e8];

/** @param commandLine of the running kernel */
export function serialPort(commandLine: string): number {
  const match = /(?:^|\s)console=ttyS([0-3])\b/.exec(commandLine);
  return SERIAL_PORTS[match === null ? 0 : Number(match[1])]!;
}
