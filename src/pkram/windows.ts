/**
 * Through what this kernel lets physical memory be reached that it does not use: /dev/mem, or devices that are a part of it each, where
 * the memory map makes such of it. /dev/mem is absent without CONFIG_DEVMEM, and shut by lockdown; what a driver has claimed it
 * refuses with CONFIG_IO_STRICT_DEVMEM.
 *
 *     memory map      reserved      soft reserved             PRAM
 *     reached by      /dev/mem      /dev/mem, else /dev/daxN  /dev/pmemN, else /dev/mem
 */
import { closeSync, openSync } from 'node:fs';
import { PAGE_SIZE } from '../mem/address.ts';
import { intersect, overlaps, type Range, subtract } from '../mem/range.ts';
import { readIomem } from '../sys/iomem.ts';
import { readFirmwareMap } from '../sys/memmap.ts';
import { daxDevices, type MemoryDevice, pmemDevices } from '../sys/memorydevices.ts';

export const MEMORY = '/dev/mem';

/** A part of physical memory, and what it is reached through. */
export interface Window extends MemoryDevice {
  /** Physical address of the device's first byte. */
  readonly origin: number;
}

/** A device, or file, that has all of physical memory. */
export function wholeMemory(path: string, range: Range): Window {
  return { ...range, path, origin: 0, grain: PAGE_SIZE };
}

/** What ranges are reached through; where there is nothing else, /dev/mem. Loads drivers where they are needed. */
export function windowsOn(ranges: readonly Range[]): Window[] {
  const devices: MemoryDevice[] = [];
  // Here memmap=SIZE!START counts too, which the firmware's map does not have.
  const pram = intersect(
    ranges,
    readIomem().filter(({ name }) => name === 'Persistent Memory (legacy)'),
  );
  // Not by /dev/mem as long as no driver has it: whenever udev loads one, all users are to have locked the same.
  if (pram.length > 0) devices.push(...pmemDevices((found) => subtract(pram, found).length === 0));
  const soft = isOpen(MEMORY) ? [] : intersect(ranges, softReserved());
  if (soft.length > 0) {
    const isOurs = (device: Range) => soft.some((range) => overlaps(range, device));
    devices.push(...daxDevices(isOurs, (found) => subtract(soft, found).length === 0));
  }
  const rest = subtract(ranges, devices);
  return [
    ...devices.map((device) => ({ ...device, origin: device.start })),
    ...rest.map((range) => wholeMemory(MEMORY, range)),
  ];
}

/** Linux 7.2 does not have it in /proc/iomem. */
function softReserved(): Range[] {
  return readFirmwareMap().filter(({ type }) => type === 'Soft Reserved');
}

function isOpen(path: string): boolean {
  try {
    closeSync(openSync(path, 'r'));
    return true;
  } catch {
    return false;
  }
}
