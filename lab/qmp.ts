/** QEMU's machine protocol: JSON commands, answers and events, one a line (docs/interop/qmp-spec). */
import type { Socket } from 'node:net';
import { TideoverError } from '../src/errors.ts';

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

/** QEMU refused a command. */
export class QmpError extends TideoverError {
  readonly code = 'qmp';
}

interface Waiter {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Qmp {
  /** All events so far. */
  readonly events: QmpEvent[] = [];
  #socket: Socket;
  #waiting: Waiter[] = [];
  #rest = '';

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      const lines = (this.#rest + text).split('\n');
      this.#rest = lines.pop()!;
      for (const line of lines) this.#line(line);
    });
    socket.on('close', () => {
      for (const { command, reject } of this.#waiting.splice(0)) reject(new QmpError(`${command}: QEMU has ended`));
    });
    void this.command('qmp_capabilities').catch(() => {});
  }

  /** @throws QmpError with QEMU's own text */
  command(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) {
        reject(new QmpError(`${command}: QEMU has ended`));
        return;
      }
      this.#waiting.push({ command, resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  #line(line: string): void {
    if (line.trim() === '') return;
    const message = JSON.parse(line) as { return?: unknown; error?: { desc: string } } & QmpEvent;
    if (message.event !== undefined) {
      this.events.push(message);
      return;
    }
    if (message.return === undefined && message.error === undefined) return;
    // Commands are answered in their order.
    const waiter = this.#waiting.shift();
    if (message.error !== undefined) waiter?.reject(new QmpError(`${waiter.command}: ${message.error.desc}`));
    else waiter?.resolve(message.return);
  }
}
