/**
 * What an earlier kernel left out of this one's memory map, given to it: whole blocks of what the map calls soft reserved. What lies
 * beside them, and what it calls reserved, nobody can give to a kernel that runs.
 */
import { alignIn, contains, intersect, type Range } from '../mem/range.ts';
import { takeInBlocks } from '../sys/dax.ts';
import { readFirmwareMap } from '../sys/memmap.ts';
import { memoryBlockSize } from '../sys/memoryblocks.ts';
import type { MediumRange } from './medium.ts';

/** Bytes of ranges that can become ordinary memory of this kernel. */
export function returnable(ranges: readonly MediumRange[]): number {
  const { blocks, size } = blocksIn(ranges);
  return blocks.length * size;
}

/**
 * Makes ranges ordinary memory as far as that can be done. No medium may be open in them, and what is in them is lost.
 *
 * @returns bytes that are ordinary memory now
 * @throws UnsupportedError where a driver is missing
 */
export async function returnRanges(ranges: readonly MediumRange[]): Promise<number> {
  const { blocks, size, soft } = blocksIn(ranges);
  return size * (await takeInBlocks(blocks, size, (start) => soft.some((range) => contains(range, start))));
}

function blocksIn(ranges: readonly MediumRange[]): { blocks: number[]; size: number; soft: Range[] } {
  const softReserved = readFirmwareMap().filter(({ type }) => type === 'Soft Reserved');
  const soft = intersect(
    ranges.map(({ start, size }) => ({ start, end: start + size })),
    softReserved,
  );
  const size = memoryBlockSize();
  if (size === undefined) return { blocks: [], size: 0, soft };
  const blocks = soft.flatMap((range) => {
    const inner = alignIn(range, size) ?? { start: 0, end: 0 };
    return Array.from({ length: (inner.end - inner.start) / size }, (_, i) => inner.start + i * size);
  });
  return { blocks, size, soft };
}
