/** Reading what a format says must be there, and looking at it. */
import { FormatError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { Reader } from './io/reader.ts';

/**
 * Bytes of a header or table.
 * @throws FormatError where the source ends before them
 */
export function readExactly(reader: Reader, position: number, length: number, field: string): Uint8Array {
  // Asked before the buffer is made: a length from a damaged header must not cost its memory.
  let found = Math.max(0, Math.min(length, reader.size - position));
  if (found === length) {
    const into = new Uint8Array(length);
    found = reader.read(position, into);
    if (found === length) return into;
  }
  throw new FormatError({
    file: reader.name,
    offset: position,
    field,
    expected: `${length} bytes`,
    found: `${found} before the end`,
  });
}

/** A 64-bit field as a file offset, size or physical address. @throws FormatError where it is beyond `limit` */
export function bounded(reader: Reader, at: number, field: string, value: bigint, limit: number): number {
  if (value <= BigInt(limit)) return Number(value);
  const expected = `at most 0x${limit.toString(16)}`;
  throw new FormatError({ file: reader.name, offset: at, field, expected, found: `0x${value.toString(16)}` });
}

const ZEROS = new Uint8Array(PAGE_SIZE);

/** Whether all bytes are 0. @param page of PAGE_SIZE bytes */
export function isZero(page: Uint8Array): boolean {
  // Most that are not show it at once.
  return page[0] === 0 && page[PAGE_SIZE >> 1] === 0 && Buffer.compare(page, ZEROS) === 0;
}
