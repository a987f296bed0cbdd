/** Compares what was written with what it was written from, page by page. */
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Range } from '../../mem/range.ts';
import { openDumpFiles } from '../open.ts';
import type { PageSource } from '../source.ts';
import { CHUNK_PAGES, type Copied, chunksOf, NEXT } from './job.ts';

export interface CompareJob {
  readonly kind: 'compare';
  /** The dump that was written. */
  readonly written: readonly [string, ...string[]];
  /** It is an image of RAM of these ranges. */
  readonly ram?: readonly Range[];
  /** A bit for each page that must be there. */
  readonly bits: Uint8Array<SharedArrayBuffer>;
  readonly pages: Range;
  readonly control: Int32Array<SharedArrayBuffer>;
}

/** One thread's part, up to the first page that is another. */
export function comparePages(source: PageSource, job: CompareJob): Copied {
  const copied: Copied = { pages: 0, zero: 0, unreadable: 0 };
  const written = openDumpFiles(job.written, job.ram === undefined ? {} : { ram: job.ram });
  try {
    const [ours, theirs] = [new Uint8Array(PAGE_SIZE), new Uint8Array(PAGE_SIZE)];
    const chunks = chunksOf(job.pages);
    for (let chunk = next(job); chunk < chunks; chunk = next(job)) {
      const first = job.pages.start + chunk * CHUNK_PAGES;
      const last = Math.min(first + CHUNK_PAGES, job.pages.end);
      for (let pfn = first; pfn < last; pfn++) {
        if (((job.bits[pfn >>> 3]! >> (pfn & 7)) & 1) === 0) continue;
        copied.pages++;
        if (source.readPhysical(pfn * PAGE_SIZE, theirs) !== undefined) {
          copied.unreadable++;
          continue;
        }
        const hole = written.readPhysical(pfn * PAGE_SIZE, ours);
        if (hole === undefined && Buffer.compare(ours, theirs) === 0) continue;
        const found = hole === undefined ? 'other bytes' : `a hole (${hole.reason})`;
        return { ...copied, difference: { address: pfn * PAGE_SIZE, found } };
      }
    }
    return copied;
  } finally {
    written.close();
  }
}

function next(job: CompareJob): number {
  return Atomics.add(job.control, NEXT, 1);
}
