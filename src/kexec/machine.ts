/** What a plan must know of this machine. */

import { e820TypeOf } from '../abi/e820.ts';
import type { E820Entry } from '../mem/e820.ts';
import type { Range } from '../mem/range.ts';
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
  return {
    firmware: readFirmwareMap().map(({ start, end, type }) => ({ start, end, type: e820TypeOf(type) })),
    systemRam: named('System RAM').filter(({ depth }) => depth === 0),
    crashRanges: named('Crash kernel'),
    bootParams,
    acpiRsdp: acpiRsdp(bootParams),
    efi: efiHandover(bootParams),
    fiveLevel: fiveLevelPaging(),
    serialPort: serialPort(readProcText('/proc/cmdline')),
  };
}

/** I/O bases of ttyS0 to ttyS3 on a PC: SERIAL_PORT_DFNS of arch/x86/include/asm/serial.h. */
const SERIAL_PORTS = [0x3f8, 0x2f8, 0x3e8, 0x2e8];

/** @param commandLine of the running kernel */
export function serialPort(commandLine: string): number {
  const match = /(?:^|\s)console=ttyS([0-3])\b/.exec(commandLine);
  return SERIAL_PORTS[match === null ? 0 : Number(match[1])]!;
}
