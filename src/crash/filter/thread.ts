/** One thread: what it is given, and its answer or error on the way back. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

type Answer<T> = { readonly result: T } | { readonly error: Readonly<Record<string, unknown>> };

interface Named {
  /** Whose work it is: in the program that is one file, each thread runs the whole of it. */
  readonly tideover: string;
  readonly task: unknown;
}

/**
 * Runs a module in a thread of its own, in which it serves `name`.
 *
 * @param stop called where it fails: others may wait for it
 * @throws what it met there
 */
export async function inThread<T>(module: URL, name: string, task: unknown, stop: () => void): Promise<T> {
  const workerData: Named = { tideover: name, task };
  const worker = new Worker(module, { workerData });
  try {
    const answer = await new Promise<Answer<T>>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', (code) => reject(new Error(`a thread ended with ${code}`)));
    });
    // What an error has beyond its message does not come over by itself: code and errno of the system's.
    if ('error' in answer) throw Object.assign(new Error(), answer.error);
    return answer.result;
  } catch (error) {
    stop();
    throw error;
  } finally {
    await worker.terminate();
  }
}

/** Does the work that this thread was started for, if it is of this name. */
export function serve<Task>(name: string, work: (task: Task) => unknown): void {
  if (isMainThread || !isNamed(workerData) || workerData.tideover !== name) return;
  let answer: Answer<unknown>;
  try {
    answer = { result: work(workerData.task as Task) };
  } catch (error) {
    const { message, stack } = error as Error;
    answer = { error: { ...(error as object), message, stack } };
  }
  parentPort!.postMessage(answer);
}

function isNamed(data: unknown): data is Named {
  return typeof data === 'object' && data !== null && typeof (data as Partial<Named>).tideover === 'string';
}
