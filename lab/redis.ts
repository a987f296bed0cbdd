/** A client of redis that counts over one connection all the time: Redis serialization protocol. */
import { connect, type Socket } from 'node:net';

const EVERY_MS = 50;
const PATIENCE_MS = 300_000;
/** Questions that are asked without waiting for the answers. */
const AT_ONCE = 500;

export class RedisClient {
  readonly #socket: Socket;
  readonly #waiting: ((answer: string) => void)[] = [];
  readonly #pulse: NodeJS.Timeout;
  #text = '';
  #count = 0;
  #last = performance.now();
  #longest = 0;
  #fault: Error | undefined;

  /** @param count what the counter is */
  constructor(port: number, count = 0) {
    this.#count = count;
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

  /** Puts keys into the database. @param size of each value, in bytes */
  async fill(keys: number, size: number): Promise<void> {
    const answers = await this.#askAll(keys, (i) => ['SET', `key${i}`, contentOf(i, size)]);
    const fault = answers.find((answer) => answer !== '+OK');
    if (fault !== undefined) throw new Error(`a key was not taken: ${fault}`);
  }

  /** @returns how many keys have the value that they were given */
  async check(keys: number, size: number): Promise<number> {
    const answers = await this.#askAll(
      keys,
      (i) => ['GET', `key${i}`],
      (answer, i) => answer === contentOf(i, size),
    );
    return answers.filter((right) => right).length;
  }

  /** @returns a field of what the database says of itself: `uptime_in_seconds` and the like */
  async info(field: string): Promise<string> {
    const said = await this.#ask('INFO');
    return new RegExp(`^${field}:(.*)\r$`, 'm').exec(said)![1]!;
  }

  /** By what the database knows the connection: its number, and the port of this end as the database sees it. */
  async connection(): Promise<string> {
    const [, id, port] = /^id=(\d+) addr=\S*:(\d+) /.exec(await this.#ask('CLIENT', 'INFO'))!;
    return `number ${id}, from port ${port}`;
  }

  /** Has it count no more. @returns how far it counted */
  async stop(): Promise<number> {
    clearInterval(this.#pulse);
    await this.#ask('PING');
    if (this.#fault !== undefined) throw this.#fault;
    return this.#count;
  }

  /** Waits until it has counted on. */
  async counted(more: number): Promise<void> {
    const wanted = this.#count + more;
    while (this.#count < wanted) {
      if (this.#fault !== undefined) throw this.#fault;
      if (performance.now() - this.#last > PATIENCE_MS) throw new Error(`no answer after ${this.#count}`);
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

  async #askAll<T = string>(
    count: number,
    question: (i: number) => readonly string[],
    taken: (answer: string, i: number) => T = (answer) => answer as T,
  ): Promise<T[]> {
    const results: T[] = [];
    for (let from = 0; from < count; from += AT_ONCE) {
      const some = Array.from({ length: Math.min(AT_ONCE, count - from) }, (_, k) => from + k);
      const answers = await Promise.all(some.map((i) => this.#ask(...question(i))));
      results.push(...answers.map((answer, k) => taken(answer, from + k)));
    }
    return results;
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

const contentOf = (i: number, size: number) => `${i} `.repeat(Math.ceil(size / `${i} `.length)).slice(0, size);
