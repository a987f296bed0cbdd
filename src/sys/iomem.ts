/** What lies where in physical memory: /proc/iomem. */
import { FormatError, UnsupportedError } from '../errors.ts';
import { readProcText } from './proc.ts';

export interface Resource {
  /** Physical address. */
  readonly start: number;
  /** Behind the last byte. */
  readonly end: number;
  /** `System RAM`, `Kernel code`, `Crash kernel`, `Reserved`, the name of a device, ... */
  readonly name: string;
  /** 0 at the top; a resource lies inside the nearest one before it of a lower depth. */
  readonly depth: number;
}

const FILE = '/proc/iomem';

/** @throws UnsupportedError where the kernel hides the addresses */
export function readIomem(): Resource[] {
  return parseIomem(readProcText(FILE), FILE);
}

/** @param file for the message of an error @throws UnsupportedError, FormatError */
export function parseIomem(text: string, file: string): Resource[] {
  const resources = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const match = /^((?: {2})*)([0-9a-f]+)-([0-9a-f]+) : (.*)$/s.exec(line);
      if (match === null) {
        throw new FormatError({ file, field: 'line', expected: 'a range and its name', found: JSON.stringify(line) });
      }
      const [, indent, first, last, name] = match;
      return {
        start: Number.parseInt(first!, 16),
        end: Number.parseInt(last!, 16) + 1,
        name: name!,
        depth: indent!.length / 2,
      };
    });
  // r_show() of kernel/resource.c writes zeros for those without CAP_SYS_ADMIN.
  if (resources.length > 1 && resources.every(({ start, end }) => start === 0 && end === 1)) {
    throw new UnsupportedError({
      what: 'the map of physical memory',
      why: `${file} shows all addresses as zero to a process without CAP_SYS_ADMIN`,
      remedy: 'run as root',
    });
  }
  return resources;
}
