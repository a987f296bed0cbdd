/**
 * The shell on a terminal. This thread has the terminal, another has the dump (worker.ts): Ctrl-C ends what the other does, and with it the other;
 * the next command begins a new one, which opens the dump again.
 */
import { createInterface, type Interface } from 'node:readline';
import { failure } from '../exit.ts';
import { type Io, printFailure, type Settings } from '../io.ts';
import { History } from './history.ts';
import { parseLine } from './line.ts';
import type { SessionInput } from './session.ts';
import { openTarget } from './target.ts';
import { type Look, type Printer, SessionThread } from './worker.ts';

const settings: Settings = { json: false, verbose: 0, quiet: false, color: 'auto' };

/** Until `quit`, or the end of what is typed. @param first a command to begin with */
export async function runTerminal(input: SessionInput, first: string, io: Io): Promise<void> {
  const terminal = new Terminal(input);
  io.onInterrupt(() => void terminal.interrupt());
  await terminal.run(first);
}

class Terminal {
  readonly #input: SessionInput;
  readonly #history = new History(process.env);
  readonly #readline: Interface;
  readonly #lines: string[] = [];
  #arrived = Promise.withResolvers<void>();
  #closed = false;
  #thread: SessionThread | undefined;
  #running = false;

  constructor(input: SessionInput) {
    this.#input = input;
    this.#readline = createInterface({
      input: process.stdin,
      output: process.stdout,
      prompt: 'crash> ',
      history: this.#history.lines.toReversed(),
      historySize: 1000,
      removeHistoryDuplicates: true,
      completer: (line: string, done: (error: Error | null, result: [string[], string]) => void) => {
        void this.#complete(line).then((result) => done(null, result));
      },
    });
    this.#readline.on('line', (line) => {
      this.#lines.push(line);
      this.#arrived.resolve();
    });
    this.#readline.on('SIGINT', () => void this.interrupt());
    this.#readline.on('close', () => {
      this.#closed = true;
      this.#arrived.resolve();
    });
  }

  async run(first: string): Promise<void> {
    try {
      await this.#do(first);
      for (;;) {
        if (!this.#closed && this.#lines.length === 0) this.#readline.prompt();
        const line = await this.#next();
        if (line === undefined || /^(?:quit|exit|q)$/.test(line)) break;
        if (line === '') continue;
        this.#history.add(line);
        await this.#do(line);
      }
    } finally {
      this.#readline.close();
      await this.#thread?.end();
    }
  }

  /** Ctrl-C: what runs ends, or what was typed is forgotten. */
  async interrupt(): Promise<void> {
    process.stdout.write('^C\n');
    if (this.#running) await this.#thread?.end();
    else {
      // As Ctrl-E and Ctrl-U would do.
      this.#readline.write(null, { ctrl: true, name: 'e' });
      this.#readline.write(null, { ctrl: true, name: 'u' });
      this.#readline.prompt();
    }
  }

  async #next(): Promise<string | undefined> {
    while (this.#lines.length === 0 && !this.#closed) {
      this.#arrived = Promise.withResolvers<void>();
      await this.#arrived.promise;
    }
    return this.#lines.shift()?.trim();
  }

  async #do(line: string): Promise<void> {
    const terminal: Printer = {
      out: (text) => void process.stdout.write(text),
      err: (text) => void process.stderr.write(text),
    };
    this.#running = true;
    try {
      const { words, to } = parseLine(line);
      if (words.length === 0) return;
      if (to === undefined) {
        await this.#session().run(words, look(process.stdout), look(process.stderr), terminal);
        return;
      }
      // The program behind a pipe has the terminal meanwhile.
      const target = openTarget(to);
      this.#readline.pause();
      process.stdin.setRawMode(false);
      try {
        const plain = { isTTY: false, columns: undefined };
        await this.#session().run(words, plain, look(process.stderr), {
          ...terminal,
          out: (text) => target.write(text),
        });
      } finally {
        await target.close();
        process.stdin.setRawMode(true);
        this.#readline.resume();
      }
    } catch (error) {
      printFailure(
        { stdout: process.stdout, stderr: process.stderr, env: process.env },
        settings,
        failure(error),
        error,
      );
    } finally {
      this.#running = false;
    }
  }

  async #complete(line: string): Promise<[string[], string]> {
    if (this.#running) return [[], line];
    return this.#session().complete(line);
  }

  #session(): SessionThread {
    if (this.#thread === undefined || this.#thread.ended) {
      const nobody: Printer = { out() {}, err: (text) => void process.stderr.write(text) };
      this.#thread = new SessionThread(this.#input, look(process.stderr), nobody);
    }
    return this.#thread;
  }
}

function look({ isTTY, columns }: NodeJS.WriteStream): Look {
  return { isTTY: isTTY === true, columns };
}
