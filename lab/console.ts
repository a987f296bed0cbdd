/** What a guest says on its console: kept, waited for, and shown when something goes wrong. */
import type { Socket } from 'node:net';
import { TideoverError } from '../src/errors.ts';
import { within } from './deadline.ts';

/** The guest ended while something was expected of it. */
export class GuestGoneError extends TideoverError {
  readonly code = 'guest-gone';
}

/** Lines that an error message shows. */
const SHOWN = 25;

export class Console {
  #text = '';
  #waiters = new Set<() => void>();
  #ended: string | undefined;
  #socket: Socket;
  #scheduled: NodeJS.Timeout | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.#text += text.replaceAll('\r', '');
      // A serial port gives a few bytes at a time; patterns are tried for many of them at once.
      this.#scheduled ??= setTimeout(() => this.#wake(), 20);
    });
  }

  /** All of it since the machine was switched on, without carriage returns. */
  get text(): string {
    return this.#text;
  }

  /** Types on it. */
  write(text: string): void {
    this.#socket.write(text);
  }

  /**
   * Waits for a pattern in what the guest says, from `since` on (a length of `text`; 0 is the beginning).
   * @throws TimeLimitError, GuestGoneError: both with the console's last lines
   */
  async waitFor(pattern: RegExp, milliseconds: number, since = 0): Promise<RegExpExecArray> {
    let wake: () => void = () => {};
    const found = new Promise<RegExpExecArray>((resolve, reject) => {
      wake = () => {
        const match = pattern.exec(this.text.slice(since));
        if (match !== null) resolve(match);
        else if (this.#ended !== undefined) reject(new GuestGoneError(`${this.#ended}${this.lastLines()}`));
      };
      this.#waiters.add(wake);
      wake();
    });
    try {
      return await within(milliseconds, `${pattern} on the console`, found, () => this.lastLines());
    } finally {
      this.#waiters.delete(wake);
    }
  }

  /** Nothing more will come. @param reason for people */
  end(reason: string): void {
    this.#ended = reason;
    this.#wake();
  }

  /** For the end of an error message. */
  lastLines(): string {
    const lines = this.text.trimEnd().split('\n').slice(-SHOWN);
    return `; the console's last lines:\n${lines.map((line) => `  | ${line}`).join('\n')}`;
  }

  #wake(): void {
    clearTimeout(this.#scheduled);
    this.#scheduled = undefined;
    for (const wake of this.#waiters) wake();
  }
}
