/** A client outside of a guest that talks over one connection all the time, while the guest's kernel is changed. */
import { connect, type Socket } from 'node:net';

export class Client {
  readonly #socket: Socket;
  #asked = 0;
  #answered = 0;
  #longest = 0;
  #last = performance.now();
  #fault: string | undefined;
  #text = '';
  /** Of the program in its namespace: the same all the time. */
  #pid: string | undefined;
  readonly #pulse: NodeJS.Timeout;

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1');
    this.#socket.on('data', (bytes) => this.#take(bytes.toString()));
    this.#socket.on('error', (error) => this.#fail(error.message));
    this.#socket.on('close', () => this.#fail('the connection was closed'));
    this.#pulse = setInterval(() => this.#socket.write(`${this.#asked++}\n`), 50);
  }

  /** Lines that were answered, each once and in their order, and the longest time without an answer in ms. */
  get said(): { answered: number; longest: number } {
    if (this.#fault !== undefined) throw new Error(this.#fault);
    return { answered: this.#answered, longest: this.#longest };
  }

  /** Waits for further answers. */
  async more(count: number, milliseconds = 120_000): Promise<void> {
    const [wanted, until] = [this.#answered + count, performance.now() + milliseconds];
    while (this.#answered < wanted) {
      if (this.#fault !== undefined) throw new Error(this.#fault);
      if (performance.now() > until) throw new Error(`no more answers after ${this.#answered} of ${this.#asked}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  end(): void {
    clearInterval(this.#pulse);
    this.#socket.removeAllListeners('close').destroy();
  }

  #take(text: string): void {
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop()!;
    for (const line of lines) {
      this.#pid ??= line.split(' ')[2];
      if (line !== `${this.#answered} ${this.#answered + 1} ${this.#pid} whole`)
        this.#fail(`answer ${this.#answered}: ${line}`);
      this.#answered++;
    }
    const now = performance.now();
    this.#longest = Math.max(this.#longest, now - this.#last);
    this.#last = now;
  }

  #fail(fault: string): void {
    this.#fault ??= fault;
    clearInterval(this.#pulse);
  }
}
