/** How large an image is going to be, before anything is touched: from pages here and there in the running kernel's memory. */
import { isZero } from '../crash/bytes.ts';
import { type Compression, pageCompressor } from '../crash/codec/page.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { Range } from '../mem/range.ts';
import { diskSize } from '../sys/devices.ts';
import { KernelPages } from '../sys/kcore.ts';
import type { Place } from './place.ts';

/** As many tell the size to about 3 in 100, and take a tenth of a second. */
const SAMPLES = 4096;
/** Of each page that is not zeros, beside what it holds: its descriptor, and its bits. */
const PER_PAGE = 24 + 0.25;

/** Bytes that the image may have. */
export function roomIn({ path, extents }: Place): number {
  const last = extents?.at(-1);
  return last === undefined ? diskSize(path) : last.start + last.length;
}

/**
 * @param memory what is saved: whole pages @param keepFree free pages are in the image too
 * @returns bytes, about; undefined where this kernel does not show its memory
 */
export function estimateImage(
  memory: readonly Range[],
  compression: Compression,
  keepFree: boolean,
): number | undefined {
  const total = memory.reduce((sum, { start, end }) => sum + (end - start) / PAGE_SIZE, 0);
  const compress = pageCompressor(compression, PAGE_SIZE);
  const page = new Uint8Array(PAGE_SIZE);
  let bytes = 0;
  try {
    using pages = new KernelPages();
    for (const address of spread(memory, total)) {
      if (!keepFree && !pages.isUsed(address)) continue;
      if (pages.read(address, page) && !isZero(page)) bytes += compress(page).length + PER_PAGE;
    }
  } catch {
    // No such file, or locked down: what is tried next says so.
    return undefined;
  }
  return Math.round((bytes / Math.min(SAMPLES, total)) * total);
}

/** Addresses of pages: one at a random place in each of as many equal parts. */
function* spread(memory: readonly Range[], total: number): Generator<number> {
  const count = Math.min(SAMPLES, total);
  let before = 0;
  let i = 0;
  for (let k = 0; k < count; k++) {
    const wanted = Math.floor(((k + Math.random()) * total) / count);
    for (;;) {
      const { start, end } = memory[i]!;
      const pages = (end - start) / PAGE_SIZE;
      if (wanted < before + pages) {
        yield start + (wanted - before) * PAGE_SIZE;
        break;
      }
      before += pages;
      i++;
    }
  }
}
