/** A client of the demo's database that counts over one connection all the time: Redis serialization protocol. */
import { connect, type Socket } from 'node:net';

const EVERY_MS = 50;

export class Client {
  readonly #socket: Socket;
  readonly #waiting: ((answer: string) => void)[] = [];
  readonly #pulse: NodeJS.Timeout;
  #text = '';
  #count = 0;
  #last = performance.now();
  #longest = 0;
  #fault: Error | undefined;

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1');
    this.#socket.setEncoding('latin1').on('data', (text: string) => this.#take(text));
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('close', () => this.#fail(new Error('the connection of the client was closed')));
    this.#pulse = setInterval(() => this.#increment(), EVERY_MS);
  }

  /** How far it counted, and its longest wait for an answer in ms. */
  get said(): { count: number; longest: number } {
    return { count: this.#count, longest: this.#longest };
  }

  /** Puts keys into the database. */
  async fill(keys: number): Promise<void> {
    const answers = Array.from({ length: keys }, (_, i) => this.#ask('SET', `key${i}`, contentOf(i)));
    for (const answer of answers) if ((await answer) !== '+OK') throw new Error(`a key was not taken: ${await answer}`);
  }

  /** @returns how many keys have the value that they were given */
  async check(keys: number): Promise<number> {
    const answers = await Promise.all(Array.from({ length: keys }, (_, i) => this.#ask('GET', `key${i}`)));
    return answers.filter((answer, i) => answer === contentOf(i)).length;
  }

  /** Waits until it has counted on. */
  async counted(more: number): Promise<void> {
    const wanted = this.#count + more;
    while (this.#count < wanted) {
      if (this.#fault !== undefined) throw this.#fault;
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }

  end(): void {
    clearInterval(this.#pulse);
    this.#socket.removeAllListeners('close').destroy();
  }

  async #increment(): Promise<void> {
    const answer = await this.#ask('INCR', 'counter');
    this.#longest = Math.max(this.#longest, performance.now() - this.#last);
    this.#last = performance.now();
    if (answer !== `:${this.#count + 1}`) this.#fail(new Error(`after ${this.#count} the database counted ${answer}`));
    this.#count++;
  }

  #ask(...words: string[]): Promise<string> {
    this.#socket.write(`*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Answers in the order of the questions: a line, or for $ as many bytes as it says. */
  #take(text: string): void {
    this.#text += text;
    for (let end = this.#text.indexOf('\r\n'); end >= 0; end = this.#text.indexOf('\r\n')) {
      let answer = this.#text.slice(0, end);
      let next = end + 2;
      if (answer.startsWith('$') && answer !== '$-1') {
        const size = Number(answer.slice(1));
        if (this.#text.length < next + size + 2) return;
        answer = this.#text.slice(next, next + size);
        next += size + 2;
      }
      this.#text = this.#text.slice(next);
      this.#waiting.shift()?.(answer);
    }
  }

  #fail(error: Error): void {
    this.#fault ??= error;
    clearInterval(this.#pulse);
  }
}

const contentOf = (i: number) => `${i} `.repeat(Math.ceil(1000 / `${i} `.length)).slice(0, 1000);
