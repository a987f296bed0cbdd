/** Threads that do a job together. This file is also what such a thread runs: it opens the dump for itself, and begins. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Range } from '../../mem/range.ts';
import { openDumpFiles } from '../open.ts';
import { type Copied, type CopyJob, chunksOf, copyPages, NEXT, stopJob } from './job.ts';
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
  readonly tideover: 'crash filter';
  readonly files: DumpFiles;
  readonly job: CopyJob | CompareJob;
}

type Answer = { readonly result: Copied } | { readonly error: Readonly<Record<string, unknown>> };

const PROGRESS_MS = 200;

/** Does a job by several threads, and adds up what they counted. @throws what one of them met; AbortError after the signal */
export async function inThreads(files: DumpFiles, job: CopyJob | CompareJob, options: ThreadOptions): Promise<Copied> {
  const { signal, onProgress } = options;
  const stop = () => stopJob(job.control);
  signal?.throwIfAborted();
  signal?.addEventListener('abort', stop);
  const chunks = chunksOf(job.pages);
  const total = (job.pages.end - job.pages.start) * PAGE_SIZE;
  const report = () => onProgress?.(Math.min(1, Atomics.load(job.control, NEXT) / chunks) * total, total);
  const timer = setInterval(report, PROGRESS_MS);
  try {
    const task: Task = { tideover: 'crash filter', files, job };
    const count = Math.max(1, Math.min(options.threads, chunks));
    const results = await Promise.all(Array.from({ length: count }, () => inThread(task, stop)));
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

async function inThread(task: Task, stop: () => void): Promise<Copied> {
  const worker = new Worker(new URL(import.meta.url), { workerData: task });
  try {
    const answer = await new Promise<Answer>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', (code) => reject(new Error(`a thread ended with ${code}`)));
    });
    // What an error has beyond its message does not come over by itself: code and errno of the system's.
    if ('error' in answer) throw Object.assign(new Error(), answer.error);
    return answer.result;
  } catch (error) {
    // The others wait for their turn behind this one.
    stop();
    throw error;
  } finally {
    await worker.terminate();
  }
}

function isTask(data: unknown): data is Task {
  return typeof data === 'object' && data !== null && (data as Partial<Task>).tideover === 'crash filter';
}

if (!isMainThread && isTask(workerData)) {
  const { files, job } = workerData;
  let answer: Answer;
  try {
    const source = openDumpFiles(files.paths, files.ram === undefined ? {} : { ram: files.ram });
    try {
      answer = { result: job.kind === 'compare' ? comparePages(source, job) : copyPages(source, job) };
    } finally {
      source.close();
    }
  } catch (error) {
    const { message, stack } = error as Error;
    answer = { error: { ...(error as object), message, stack } };
  }
  parentPort!.postMessage(answer);
}
