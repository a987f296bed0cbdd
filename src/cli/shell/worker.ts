/**
 * The shell's other thread: it has the dump, and does what is asked of it. So the thread that has the terminal can end it
 * whenever somebody wants, and begins another.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { failure } from '../exit.ts';
import { printFailure, type Settings, type Sink } from '../io.ts';
import { Completer } from './complete.ts';
import { Session, type SessionInput } from './session.ts';

/** How what is printed is to look. */
export interface Look {
  readonly isTTY: boolean;
  readonly columns: number | undefined;
}

type Request =
  | { readonly kind: 'run'; readonly words: readonly string[]; readonly stdout: Look; readonly stderr: Look }
  | { readonly kind: 'complete'; readonly line: string };
type Answer =
  | { readonly kind: 'out' | 'err'; readonly text: string }
  | { readonly kind: 'done'; readonly exit: number }
  | { readonly kind: 'completed'; readonly result: [string[], string] }
  | { readonly kind: 'failed'; readonly exit: number };

interface Data {
  readonly tideover: 'crash shell';
  readonly input: SessionInput;
  readonly stderr: Look;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** What is to be printed. */
export interface Printer {
  out(text: string): void;
  err(text: string): void;
}

/** A thread with the dump. One thing is asked of it at a time. */
export class SessionThread {
  readonly #worker: Worker;
  #answered: PromiseWithResolvers<Answer> | undefined;
  #printer: Printer;
  ended = false;

  constructor(input: SessionInput, stderr: Look, printer: Printer) {
    const data: Data = { tideover: 'crash shell', input, stderr, env: process.env };
    this.#printer = printer;
    this.#worker = new Worker(new URL(import.meta.url), { workerData: data });
    this.#worker.on('message', (answer: Answer) => {
      if (answer.kind === 'out') this.#printer.out(answer.text);
      else if (answer.kind === 'err') this.#printer.err(answer.text);
      else this.#answered?.resolve(answer);
    });
    this.#worker.on('error', (error) => this.#answered?.reject(error));
    this.#worker.on('exit', () => {
      this.ended = true;
      this.#answered?.resolve({ kind: 'failed', exit: 130 });
    });
  }

  async run(words: readonly string[], stdout: Look, stderr: Look, printer: Printer): Promise<number> {
    this.#printer = printer;
    const answer = await this.#ask({ kind: 'run', words, stdout, stderr });
    return 'exit' in answer ? answer.exit : 1;
  }

  async complete(line: string): Promise<[string[], string]> {
    const answer = await this.#ask({ kind: 'complete', line });
    return answer.kind === 'completed' ? answer.result : [[], line];
  }

  /** In the middle of whatever it does. */
  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #ask(request: Request): Promise<Answer> {
    this.#answered = Promise.withResolvers<Answer>();
    if (this.ended) this.#answered.resolve({ kind: 'failed', exit: 130 });
    else this.#worker.postMessage(request);
    return this.#answered.promise;
  }
}

function isData(data: unknown): data is Data {
  return typeof data === 'object' && data !== null && (data as Partial<Data>).tideover === 'crash shell';
}

if (!isMainThread && isData(workerData)) {
  const { input, stderr, env } = workerData;
  const tell = (answer: Answer) => parentPort!.postMessage(answer);
  const sink = (kind: 'out' | 'err', { isTTY, columns }: Look): Sink => ({
    isTTY,
    ...(columns !== undefined && { columns }),
    write: (text) => tell({ kind, text }),
  });
  let opened: { readonly session: Session; readonly completer: Completer } | undefined;
  const open = async () => {
    if (opened === undefined) {
      const session = await Session.open(input);
      opened = { session, completer: new Completer(session) };
    }
    return opened;
  };
  parentPort!.on('message', async (request: Request) => {
    try {
      const { session, completer } = await open();
      if (request.kind === 'complete') tell({ kind: 'completed', result: completer.complete(request.line) });
      else {
        const streams = { stdout: sink('out', request.stdout), stderr: sink('err', request.stderr), env };
        tell({ kind: 'done', exit: await session.run(request.words, streams) });
      }
    } catch (error) {
      const settings: Settings = { json: false, verbose: 0, quiet: false, color: 'auto' };
      const failed = failure(error);
      const streams = { stdout: sink('out', stderr), stderr: sink('err', stderr), env };
      printFailure(streams, settings, failed, error);
      tell({ kind: 'failed', exit: failed.exit });
    }
  });
}
