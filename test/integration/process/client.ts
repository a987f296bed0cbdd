/** A client of what is checkpointed, outside of the tree. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { PATIENCE } from '../patience.ts';

/** One end of a connection, by lines. */
export class Client {
  readonly #socket: Socket;
  #text = '';
  ended = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text) => {
      this.#text += text;
    });
    for (const event of ['end', 'error', 'close']) {
      socket.on(event, () => {
        this.ended = true;
      });
    }
  }

  static async connect(port: number, host: string): Promise<Client> {
    const socket = connect(port, host);
    await once(socket, 'connect');
    return new Client(socket);
  }

  /** Connects to a server that is about to listen. */
  static async connectTo(port: number, host: string): Promise<Client> {
    for (const deadline = performance.now() + PATIENCE; ; ) {
      try {
        return await Client.connect(port, host);
      } catch (error) {
        if (performance.now() > deadline) throw error;
        await setTimeout(10);
      }
    }
  }

  async ask(text: string): Promise<string> {
    this.write(`${text}\n`);
    return this.line();
  }

  async line(): Promise<string> {
    for (const deadline = performance.now() + PATIENCE; ; ) {
      const end = this.#text.indexOf('\n');
      if (end >= 0) {
        const line = this.#text.slice(0, end).replace(/\r$/, '');
        this.#text = this.#text.slice(end + 1);
        return line;
      }
      if (performance.now() > deadline || this.ended) throw new Error(`no answer; ${this.#text.length} bytes came`);
      await setTimeout(10);
    }
  }

  write(text: string): void {
    this.#socket.write(text);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.destroy();
  }
}
