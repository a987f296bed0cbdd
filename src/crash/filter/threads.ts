/** Threads that do a job together. This file is also what such a thread runs: it opens the dump for itself, and begins. */
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Range } from '../../mem/range.ts';
import { openDumpFiles } from '../open.ts';
import { type Copied, type CopyJob, chunksOf, copyPages, NEXT, stopJob } from './job.ts';
import { inThread, serve } from './thread.ts';
import { type CompareJob, comparePages } from './verify.ts';

/** A dump that every thread can open. */
export interface DumpFiles {
  readonly paths: readonly [string, ...string[]];
  /** See OpenOptions. */
  readonly ram?: readonly Range[];
}

export interface ThreadOptions {
  readonly threads: number;
  readonly signal?: AbortSignal;
  /** Called now and then with how much memory has been gone through, of how much: in bytes. */
  readonly onProgress?: (done: number, total: number) => void;
}

interface Task {
  readonly files: DumpFiles;
  readonly job: CopyJob | CompareJob;
}

const PROGRESS_MS = 200;
const NAME = 'crash filter';

/** Does a job by several threads, and adds up what they counted. @throws what one of them met; AbortError after the signal */
export function inThreads(files: DumpFiles, job: CopyJob | CompareJob, options: ThreadOptions): Promise<Copied> {
  const task: Task = { files, job };
  return together(job, options, (stop) => inThread<Copied>(new URL(import.meta.url), NAME, task, stop));
}

/** The same where threads open something else. @param thread starts one; `stop` makes the others end soon */
export async function together(
  job: Pick<CopyJob, 'pages' | 'control'>,
  { threads, signal, onProgress }: ThreadOptions,
  thread: (stop: () => void) => Promise<Copied>,
): Promise<Copied> {
  const stop = () => stopJob(job.control);
  signal?.throwIfAborted();
  signal?.addEventListener('abort', stop);
  const chunks = chunksOf(job.pages);
  const total = (job.pages.end - job.pages.start) * PAGE_SIZE;
  const report = () => onProgress?.(Math.min(1, Atomics.load(job.control, NEXT) / chunks) * total, total);
  const timer = setInterval(report, PROGRESS_MS);
  try {
    const count = Math.max(1, Math.min(threads, chunks));
    const results = await Promise.all(Array.from({ length: count }, () => thread(stop)));
    signal?.throwIfAborted();
    const sum: Copied = { pages: 0, zero: 0, unreadable: 0 };
    for (const { pages, zero, unreadable } of results) {
      sum.pages += pages;
      sum.zero += zero;
      sum.unreadable += unreadable;
    }
    const difference = results.find((result) => result.difference !== undefined)?.difference;
    return { ...sum, ...(difference && { difference }) };
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', stop);
  }
}

serve<Task>(NAME, ({ files, job }) => {
  const source = openDumpFiles(files.paths, files.ram === undefined ? {} : { ram: files.ram });
  try {
    return job.kind === 'compare' ? comparePages(source, job) : copyPages(source, job);
  } finally {
    source.close();
  }
});
