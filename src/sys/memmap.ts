/** The memory map as the firmware gave it to the kernel, untouched by parameters: /sys/firmware/memmap. */
import { readdirSync } from 'node:fs';
import { FormatError, UnsupportedError } from '../errors.ts';
import { readProcText } from './proc.ts';

export interface FirmwareRange {
  /** Physical address. */
  readonly start: number;
  /** Behind the last byte. */
  readonly end: number;
  /** As e820_type_to_string() of arch/x86/kernel/e820.c names it: `System RAM`, `Reserved`, `ACPI Tables`, ... */
  readonly type: string;
}

const FOLDER = '/sys/firmware/memmap';

/** In the order of the firmware's map. @throws UnsupportedError (kernel without CONFIG_FIRMWARE_MEMMAP) */
export function readFirmwareMap(): FirmwareRange[] {
  const numbers = entries().map(Number);
  return numbers
    .sort((a, b) => a - b)
    .map((number) => {
      const [start, end, type] = ['start', 'end', 'type'].map((field) => readProcText(`${FOLDER}/${number}/${field}`));
      return parseFirmwareRange({ start: start!, end: end!, type: type! }, `${FOLDER}/${number}`);
    });
}

/** @param file for the message of an error */
export function parseFirmwareRange(text: { start: string; end: string; type: string }, file: string): FirmwareRange {
  const address = (field: 'start' | 'end') => {
    if (!/^0x[0-9a-f]+\n?$/.test(text[field])) {
      throw new FormatError({
        file: `${file}/${field}`,
        field,
        expected: 'an address',
        found: JSON.stringify(text[field]),
      });
    }
    return Number.parseInt(text[field], 16);
  };
  return { start: address('start'), end: address('end') + 1, type: text.type.replace(/\n$/, '') };
}

function entries(): string[] {
  try {
    return readdirSync(FOLDER);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new UnsupportedError({
      what: "the firmware's memory map",
      why: `${FOLDER} is missing: the kernel is built without CONFIG_FIRMWARE_MEMMAP`,
      remedy: 'use a kernel that has it (those of distributions do)',
    });
  }
}
