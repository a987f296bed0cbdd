/** Threads that copy memory into an image or back. This file is also what such a thread runs. */
import { availableParallelism } from 'node:os';
import { CHUNK_PAGES, CONTROL_WORDS, type Copied, type CopyJob, copyPages, takeChunk } from '../crash/filter/job.ts';
import { inThread, serve } from '../crash/filter/thread.ts';
import { type ThreadOptions, together } from '../crash/filter/threads.ts';
import { openDump } from '../crash/open.ts';
import { VerifyError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { type Range, subtract } from '../mem/range.ts';
import { type Memory, openPhysical, PhysicalWindows } from './physical.ts';
import { openOutput, openReader, type Place } from './place.ts';
import { nativeTools } from './tools.ts';

interface SaveTask {
  readonly kind: 'save';
  readonly memory: Memory;
  readonly to: Place;
  readonly job: CopyJob;
}

interface RestoreTask {
  readonly kind: 'restore';
  readonly image: Place;
  readonly device: string | undefined;
  readonly pages: Range;
  readonly leave: readonly Range[];
  readonly control: Int32Array<SharedArrayBuffer>;
}

/** One more than there are processors: while it waits for the disk, the others are packing (bench/hibernateimage.ts). */
export function usefulThreads(): number {
  return availableParallelism() + 1;
}

const NAME = 'hibernate';
const start = (task: SaveTask | RestoreTask, stop: () => void) =>
  inThread<Copied>(new URL(import.meta.url), NAME, task, stop);

/** Compresses memory into a place. @param job its descriptor is not used @throws what a thread met */
export function saveInThreads(memory: Memory, to: Place, job: CopyJob, options: ThreadOptions): Promise<Copied> {
  return together(job, threadsFor(to, options), (stop) => start({ kind: 'save', memory, to, job }, stop));
}

/**
 * Puts the pages of an image where they were; those that it describes and does not hold become zeros.
 *
 * @param pages numbers of the first and behind the last @param leave what is not touched, whatever the image says
 * @param device see PhysicalWindows
 * @throws VerifyError, with the page that is not what its checksum says
 */
export function restoreInThreads(
  image: Place,
  pages: Range,
  leave: readonly Range[],
  options: ThreadOptions,
  device: string | undefined,
): Promise<Copied> {
  const control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
  const task: RestoreTask = { kind: 'restore', image, device, pages, leave, control };
  return together(task, threadsFor(image, options), (stop) => start(task, stop));
}

/** What is at the other end answers one at a time. */
function threadsFor({ remote }: Place, options: ThreadOptions): ThreadOptions {
  return remote === undefined ? options : { ...options, threads: 1 };
}

function restorePages({ image, device, pages, leave, control }: RestoreTask): Copied {
  const source = openDump([openReader(image, { direct: true })], { tools: nativeTools() });
  const windows = new PhysicalWindows(subtract(source.ranges, leave), 'write', device);
  const copied: Copied = { pages: 0, zero: 0, unreadable: 0 };
  const bits = new Uint8Array(CHUNK_PAGES / 8);
  try {
    for (;;) {
      const chunk = takeChunk({ pages, control });
      if (chunk === undefined) return copied;
      const first = pages.start + chunk * CHUNK_PAGES;
      source.storedPages(first, bits);
      source.prepare?.(first, CHUNK_PAGES);
      const isStored = (i: number) => ((bits[i >>> 3]! >> (i & 7)) & 1) === 1;
      for (let i = 0; i < CHUNK_PAGES; ) {
        const stored = isStored(i);
        let end = i + 1;
        while (end < CHUNK_PAGES && isStored(end) === stored) end++;
        const address = (first + i) * PAGE_SIZE;
        const run = windows.at(address, (end - i) * PAGE_SIZE);
        if (run === undefined) {
          i++;
          continue;
        }
        const hole = stored ? source.readPhysical(address, run) : undefined;
        if (hole !== undefined) {
          throw new VerifyError(
            `${image.path}: page at 0x${hole.address.toString(16)}`,
            'it whole',
            hole.detail ?? hole.reason,
          );
        }
        if (!stored) run.fill(0);
        const count = run.length / PAGE_SIZE;
        copied[stored ? 'pages' : 'zero'] += count;
        i += count;
      }
    }
  } finally {
    windows.close();
    source.close();
  }
}

serve<SaveTask | RestoreTask>(NAME, (task) => {
  if (task.kind === 'restore') return restorePages(task);
  const { memory, to, job } = task;
  const source = openPhysical(memory);
  const output = openOutput(to, { direct: true });
  try {
    return copyPages(source, job, output, nativeTools());
  } finally {
    output.close();
    source.close();
  }
});
