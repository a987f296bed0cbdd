/** Puts a machine's memory back from an image, so that its kernel can be entered. */
import type { ThreadOptions } from '../crash/filter/threads.ts';
import { openDump } from '../crash/open.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { Range } from '../mem/range.ts';
import { type Description, openImage, type State, writeState } from './image.ts';
import { openReader, type Place, writeSynced } from './place.ts';
import { restoreInThreads } from './threads.ts';

/** What an image says, with its head checked. @throws FormatError */
export function describeImage(place: Place): {
  readonly description: Description;
  readonly state: State;
  readonly size: number;
} {
  const reader = openReader(place);
  try {
    const { description, state, size } = openImage(reader);
    return { description, state, size };
  } finally {
    reader.close();
  }
}

/**
 * Writes all pages of an image, or of any dump that is whole, to where they were.
 *
 * @param leave whole pages that are not touched: where this kernel lives @param device see PhysicalWindows
 * @returns pages written, and filled with zeros
 * @throws VerifyError where a page is damaged; SyscallError EPERM where this kernel uses the memory
 */
export async function restoreMemory(
  place: Place,
  options: ThreadOptions,
  leave: readonly Range[] = [],
  device?: string,
): Promise<{ readonly pages: number; readonly zero: number }> {
  const source = openDump([openReader(place)]);
  const end = source.ranges.at(-1)?.end ?? 0;
  source.close();
  const { pages, zero } = await restoreInThreads(place, { start: 0, end: end / PAGE_SIZE }, leave, options, device);
  return { pages, zero };
}

/** Marks an image, on the disk when this returns. */
export function markImage(place: Place, state: State): void {
  writeSynced(place, (output) => writeState(output, state));
}
