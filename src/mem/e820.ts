/**
 * The map of physical memory that firmware gives to a kernel, and a boot loader to the next one:
 * arch/x86/include/asm/e820/types.h, arch/x86/kernel/e820.c.
 */
import { boot_e820_entry } from '../abi/bootparam.ts';
import { FormatError } from '../errors.ts';
import { findOverlap, formatRange, intersect, normalise, type Range, subtract } from './range.ts';

/** One range and what it is: E820_TYPE_*. */
export interface E820Entry extends Range {
  readonly type: number;
}

/** Sorts and joins neighbours of one type. @throws FormatError where entries overlap, or one is empty */
export function sortE820(entries: readonly E820Entry[], file = 'e820 map'): E820Entry[] {
  checkE820(entries, file);
  const joined: E820Entry[] = [];
  for (const entry of entries.toSorted((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (last !== undefined && last.end === entry.start && last.type === entry.type) {
      joined[joined.length - 1] = { ...last, end: entry.end };
    } else joined.push({ start: entry.start, end: entry.end, type: entry.type });
  }
  return joined;
}

/**
 * A map in which an address has two types means whatever its reader makes of it.
 *
 * @param file where the map is from, for the message @throws FormatError where entries overlap, or one is empty
 */
export function checkE820(entries: readonly E820Entry[], file = 'e820 map'): void {
  const at = entries.findIndex(({ start, end }) => !(start < end));
  if (at >= 0) {
    const { start, end } = entries[at]!;
    const found = `0x${start.toString(16)} and 0x${end.toString(16)}`;
    throw new FormatError({ file, field: `entry ${at}`, expected: 'a start below its end', found });
  }
  const [one, other] = findOverlap(entries) ?? [];
  if (one !== undefined && other !== undefined) {
    throw new FormatError({
      file,
      field: 'entries',
      expected: 'ranges that do not overlap',
      found: `${formatRange(one)} (type ${one.type}) and ${formatRange(other)} (type ${other.type})`,
    });
  }
}

/** What has a type, as a set of ranges. */
export function rangesOfType(entries: readonly E820Entry[], type: number): Range[] {
  return normalise(entries.filter((entry) => entry.type === type));
}

/**
 * Gives another type to what lies in `ranges` and has the type `from`; nothing else changes (e820__range_update() of the
 * kernel does the same for one range). Who wants to be sure that all of `ranges` changed compares total() of rangesOfType().
 *
 * @returns the map sorted and joined @throws FormatError as checkE820()
 */
export function punch(entries: readonly E820Entry[], ranges: readonly Range[], from: number, to: number): E820Entry[] {
  checkE820(entries);
  const before = rangesOfType(entries, from);
  return sortE820([
    ...entries.filter(({ type }) => type !== from),
    ...subtract(before, ranges).map((range) => ({ ...range, type: from })),
    ...intersect(before, ranges).map((range) => ({ ...range, type: to })),
  ]);
}

/** Packed `boot_e820_entry` records, 20 bytes each. */
export function writeE820(entries: readonly E820Entry[]): Uint8Array {
  const { size: recordSize } = boot_e820_entry;
  const bytes = new Uint8Array(entries.length * recordSize);
  for (const [i, { start, end, type }] of entries.entries()) {
    boot_e820_entry.write({ addr: start, size: end - start, type }, bytes, i * recordSize);
  }
  return bytes;
}

/** @param file where the bytes are from, for the message @throws FormatError where they are no whole number of records */
export function readE820(bytes: Uint8Array, file: string): E820Entry[] {
  const { size: recordSize } = boot_e820_entry;
  if (bytes.length % recordSize !== 0) {
    const expected = `a multiple of ${recordSize} bytes`;
    throw new FormatError({ file, field: 'e820 entries', expected, found: `${bytes.length} bytes` });
  }
  return Array.from({ length: bytes.length / recordSize }, (_, i) => {
    const { addr, size, type } = boot_e820_entry.read(bytes, i * recordSize);
    return { start: addr, end: addr + size, type };
  });
}
