/**
 * Images of RAM with no header: QEMU's memory-backend-file, pmemsave, what a hypervisor keeps. Byte n is physical address n unless
 * the caller says which ranges stand in the file one after the other.
 */
import { PAGE_SIZE } from '../mem/address.ts';
import type { Range } from '../mem/range.ts';
import { setBits } from './bitmap.ts';
import type { Reader } from './io/reader.ts';
import type { PageSource } from './source.ts';

/** @param ranges of physical memory, in the order in which they stand in the file */
export function openRaw(reader: Reader, ranges: readonly Range[] = [{ start: 0, end: reader.size }]): PageSource {
  let position = 0;
  const pieces: readonly Piece[] = ranges.map(({ start, end }) => {
    const piece = { start, end, position };
    position += end - start;
    return piece;
  });
  return {
    file: reader.name,
    format: 'raw',
    pageSize: PAGE_SIZE,
    ranges: ranges.toSorted((a, b) => a.start - b.start),
    notes: [],
    header: { incomplete: position > reader.size, flattened: false, files: 1 },
    storedPages(first, bits) {
      bits.fill(0);
      for (const { start, end } of pieces) {
        const from = Math.ceil(start / PAGE_SIZE) - first;
        const to = Math.min(Math.floor(end / PAGE_SIZE) - first, bits.length * 8);
        if (from < to) setBits(bits, Math.max(0, from), to);
      }
    },
    ...(reader.nextData !== undefined && {
      nextData: (address: number) => nextInPieces(pieces, address, (position) => reader.nextData!(position)),
    }),
    readPhysical(address, into) {
      for (let done = 0; done < into.length; ) {
        const at = address + done;
        const piece = pieces.find(({ start, end }) => start <= at && at < end);
        if (piece === undefined) return { reason: 'missing', address: at };
        const length = Math.min(into.length - done, piece.end - at);
        const from = piece.position + at - piece.start;
        const count = reader.read(from, into.subarray(done, done + length));
        if (count < length) {
          return { reason: from + count < reader.size ? 'damaged' : 'incomplete', address: at + count };
        }
        done += length;
      }
      return undefined;
    },
    close: () => reader.close(),
  };
}

interface Piece extends Range {
  /** In the file. */
  readonly position: number;
}

function nextInPieces(pieces: readonly Piece[], address: number, next: (position: number) => number): number {
  let nearest = Number.POSITIVE_INFINITY;
  for (const { start, end, position } of pieces) {
    const from = Math.max(start, address);
    if (from >= end) continue;
    const found = start + next(position + from - start) - position;
    if (found < end) nearest = Math.min(nearest, found);
  }
  return nearest;
}
