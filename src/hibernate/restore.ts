/** Puts a machine's memory back from an image, so that its kernel can be entered. */
import { closeSync, fsyncSync, openSync } from 'node:fs';
import type { ThreadOptions } from '../crash/filter/threads.ts';
import { openFile } from '../crash/io/file.ts';
import { writeAt } from '../crash/io/output.ts';
import { openDumpFiles } from '../crash/open.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { type Description, openImage, type State, writeState } from './image.ts';
import { restoreInThreads } from './threads.ts';

/** What an image says, with its head checked. @throws FormatError */
export function describeImage(path: string): {
  readonly description: Description;
  readonly state: State;
  readonly size: number;
} {
  const reader = openFile(path);
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
 * @param device see PhysicalWindows
 * @returns pages written, and filled with zeros
 * @throws VerifyError where a page is damaged; SyscallError EPERM where this kernel uses the memory
 */
export async function restoreMemory(
  path: string,
  options: ThreadOptions,
  device?: string,
): Promise<{ readonly pages: number; readonly zero: number }> {
  const source = openDumpFiles([path]);
  const end = source.ranges.at(-1)?.end ?? 0;
  source.close();
  const { pages, zero } = await restoreInThreads(path, { start: 0, end: end / PAGE_SIZE }, options, device);
  return { pages, zero };
}

/** Marks an image, on the disk when this returns. */
export function markImage(path: string, state: State): void {
  const fd = openSync(path, 'r+');
  try {
    writeState({ write: (position, bytes) => writeAt(fd, position, bytes) }, state);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
