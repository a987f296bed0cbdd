/** Threads that copy memory into an image or back. This file is also what such a thread runs. */
import { CHUNK_PAGES, CONTROL_WORDS, type Copied, type CopyJob, copyPages, takeChunk } from '../crash/filter/job.ts';
import { inThread, serve } from '../crash/filter/thread.ts';
import { type ThreadOptions, together } from '../crash/filter/threads.ts';
import { openDump } from '../crash/open.ts';
import { VerifyError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { Range } from '../mem/range.ts';
import { type Memory, openPhysical, PhysicalWindows } from './physical.ts';
import { openReader, outputTo, type Place } from './place.ts';

interface SaveTask {
  readonly kind: 'save';
  readonly memory: Memory;
  readonly extents: Place['extents'];
  readonly job: CopyJob;
}

interface RestoreTask {
  readonly kind: 'restore';
  readonly image: Place;
  readonly device: string | undefined;
  readonly pages: Range;
  readonly control: Int32Array<SharedArrayBuffer>;
}

const NAME = 'hibernate';
const start = (task: SaveTask | RestoreTask, stop: () => void) =>
  inThread<Copied>(new URL(import.meta.url), NAME, task, stop);

/** Compresses memory into an output. @throws what a thread met */
export function saveInThreads(
  memory: Memory,
  extents: Place['extents'],
  job: CopyJob,
  options: ThreadOptions,
): Promise<Copied> {
  return together(job, options, (stop) => start({ kind: 'save', memory, extents, job }, stop));
}

/**
 * Puts the pages of an image where they were; those that it describes and does not hold become zeros.
 *
 * @param pages numbers of the first and behind the last @param device see PhysicalWindows
 * @throws VerifyError, with the page that is not what its checksum says
 */
export function restoreInThreads(
  image: Place,
  pages: Range,
  options: ThreadOptions,
  device: string | undefined,
): Promise<Copied> {
  const control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
  const task: RestoreTask = { kind: 'restore', image, device, pages, control };
  return together(task, options, (stop) => start(task, stop));
}

function restorePages({ image, device, pages, control }: RestoreTask): Copied {
  const source = openDump([openReader(image)]);
  const windows = new PhysicalWindows(source.ranges, 'write', device);
  const copied: Copied = { pages: 0, zero: 0, unreadable: 0 };
  const bits = new Uint8Array(CHUNK_PAGES / 8);
  try {
    for (;;) {
      const chunk = takeChunk({ pages, control });
      if (chunk === undefined) return copied;
      const first = pages.start + chunk * CHUNK_PAGES;
      source.storedPages(first, bits);
      for (let i = 0; i < CHUNK_PAGES; i++) {
        const address = (first + i) * PAGE_SIZE;
        const page = windows.at(address, PAGE_SIZE);
        if (page === undefined) continue;
        if (((bits[i >>> 3]! >> (i & 7)) & 1) === 0) {
          page.fill(0);
          copied.zero++;
          continue;
        }
        const hole = source.readPhysical(address, page);
        if (hole !== undefined) {
          throw new VerifyError(
            `${image.path}: page at 0x${address.toString(16)}`,
            'it whole',
            hole.detail ?? hole.reason,
          );
        }
        copied.pages++;
      }
    }
  } finally {
    windows.close();
    source.close();
  }
}

serve<SaveTask | RestoreTask>(NAME, (task) => {
  if (task.kind === 'restore') return restorePages(task);
  const source = openPhysical(task.memory);
  try {
    return copyPages(source, task.job, outputTo(task.job.fd, task.extents));
  } finally {
    source.close();
  }
});
