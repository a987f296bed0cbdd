/** The host's side of the agent in a guest: commands, and files in and out. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { TideoverError } from '../src/errors.ts';
import { GuestGoneError } from './console.ts';
import { TimeLimitError, within } from './deadline.ts';
import { type Frame, FrameReader, quote, request } from './frames.ts';

export interface Result {
  /** Exit status; 128 and more is a signal's number and 128. */
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

export interface RunOptions {
  /** Milliseconds after which the command is killed and TimeLimitError thrown. */
  readonly timeout?: number;
  /** Its standard input; otherwise that is empty. */
  readonly input?: Uint8Array | string;
}

/** A command in a guest ended with another status than 0. */
export class GuestCommandError extends TideoverError {
  readonly code = 'guest-command';
  readonly result: Result;

  constructor(command: string, result: Result) {
    const output = [result.stderr, result.stdout]
      .map((text) => text.toString().trimEnd())
      .filter((text) => text !== '');
    super(`in the guest: ${command}: status ${result.status}${output.map((text) => `\n${text}`).join('')}`);
    this.result = result;
  }
}

/** What the guest said of itself when it started, or when it was asked. */
export interface Greeting {
  /** boot_id and PID of the agent: another one is another kernel or another agent. */
  readonly agent: string;
  /** uname -r */
  readonly release: string;
}

interface Job {
  resolve(result: Result): void;
  reject(error: Error): void;
  onData?(data: Buffer): void;
}

/** Silence on a channel that lets a hello in the middle of a frame be one. */
const SILENCE_MS = 1000;
/** Between pings while there is no answer. Longer than the silence. */
const PING_MS = 2500;
/** Of one frame. The guest keeps it in memory. */
const CHUNK = 1 << 20;
/** Chunks under way to the guest at a time. */
const WINDOW = 4;
/** Nothing but a hang takes so long, also where a guest has a small part of a busy processor. */
const DEFAULT_TIMEOUT_MS = 300_000;

export class Agent {
  #channels: Socket[] = [];
  #channel: Socket | undefined;
  #greeting: Greeting | undefined;
  #greeted = new Set<(greeting: Greeting) => void>();
  #jobs = new Map<number, Job>();
  #lastId = 0;
  #ended: string | undefined;
  #context: () => string;

  /** @param context added to error messages: what else is known of the guest */
  constructor(context: () => string) {
    this.#context = context;
  }

  /** A way by which the agent may speak. */
  listen(channel: Socket): void {
    const reader = new FrameReader();
    let quiet: NodeJS.Timeout | undefined;
    this.#channels.push(channel);
    channel.on('data', (bytes: Buffer) => {
      clearTimeout(quiet);
      quiet = setTimeout(() => this.#take(channel, reader.silence()), SILENCE_MS).unref();
      this.#take(channel, reader.push(bytes));
    });
    channel.on('error', () => channel.destroy());
  }

  /** What the agent said last, or undefined when it has not spoken yet. */
  get greeting(): Greeting | undefined {
    return this.#greeting;
  }

  /** Waits for an agent to answer that is not `other`: the one of the next kernel, or any when none is given. */
  async ready(milliseconds: number, other?: Greeting): Promise<Greeting> {
    const isNew = ({ agent }: Greeting) => agent !== other?.agent;
    if (this.#greeting !== undefined && isNew(this.#greeting)) return this.#greeting;
    let listener: (greeting: Greeting) => void = () => {};
    const arrived = new Promise<Greeting>((resolve) => {
      listener = (greeting) => {
        if (isNew(greeting)) resolve(greeting);
      };
      this.#greeted.add(listener);
    });
    const pings = setInterval(() => this.#ping(), PING_MS);
    try {
      return await this.#guarded(milliseconds, 'the agent in the guest', arrived);
    } finally {
      clearInterval(pings);
      this.#greeted.delete(listener);
    }
  }

  /** Runs a shell script, or a program with its arguments, to its end. Its status is part of the result. */
  async run(command: string | readonly string[], options: RunOptions = {}): Promise<Result> {
    const script = scriptOf(command);
    return this.#job('run', script, options, script);
  }

  /** Adds bytes to a file in the guest. Chunks of at most 1 MB. */
  async #put(path: string, chunk: Uint8Array, timeout: number): Promise<void> {
    if (path.includes('\n')) throw new RangeError(`${JSON.stringify(path)}: a guest's path cannot have a newline here`);
    const result = await this.#job('put', chunk, { timeout }, `write ${path}`, { path });
    if (result.status !== 0) throw new GuestCommandError(`write ${path}`, result);
  }

  /** Copies one file of the host to a path of the guest, bytes only. */
  async putFile(from: string, to: string, timeout: number): Promise<void> {
    await this.check(`: >${quote(to)}`, { timeout });
    const fd = openSync(from, 'r');
    const pending = new Set<Promise<void>>();
    try {
      for (;;) {
        const chunk = Buffer.allocUnsafe(CHUNK);
        const length = readSync(fd, chunk);
        if (length === 0) break;
        const written = this.#put(to, chunk.subarray(0, length), timeout).finally(() => pending.delete(written));
        pending.add(written);
        if (pending.size >= WINDOW) await Promise.race(pending);
      }
      await Promise.all(pending);
    } finally {
      await Promise.allSettled(pending);
      closeSync(fd);
    }
  }

  /** Runs a command and writes its stdout into a file of the host as it comes. Throws when the status is not 0. */
  async stream(command: string, to: string, timeout: number): Promise<void> {
    const fd = openSync(to, 'w');
    try {
      const onData = (data: Buffer) => {
        for (let at = 0; at < data.length; ) at += writeSync(fd, data, at);
      };
      const result = await this.#job('stream', command, { timeout }, command, { onData });
      if (result.status !== 0) throw new GuestCommandError(command, result);
    } finally {
      closeSync(fd);
    }
  }

  /** Runs a command that has to end with status 0. @throws GuestCommandError with what it said */
  async check(command: string | readonly string[], options: RunOptions = {}): Promise<Result> {
    const result = await this.run(command, options);
    if (result.status !== 0) throw new GuestCommandError(scriptOf(command), result);
    return result;
  }

  /** No agent will answer any more. */
  end(reason: string): void {
    this.#ended = reason;
    this.#abandon(reason);
    for (const channel of this.#channels) channel.destroy();
  }

  async #job(
    verb: string,
    payload: Uint8Array | string,
    options: RunOptions,
    description: string,
    more: { path?: string; onData?: (data: Buffer) => void } = {},
  ): Promise<Result> {
    const timeout = options.timeout ?? DEFAULT_TIMEOUT_MS;
    const start = performance.now();
    const { agent } = await this.ready(timeout);
    if (this.#ended !== undefined) throw this.#gone();
    this.#lastId += 1;
    const id = this.#lastId;
    const result = new Promise<Result>((resolve, reject) => {
      this.#jobs.set(id, { resolve, reject, ...(more.onData && { onData: more.onData }) });
    });
    const input = Buffer.from(options.input ?? '');
    for (let at = 0; at < input.length; at += CHUNK) {
      this.#send(request(agent, 'input', id, input.subarray(at, at + CHUNK)));
    }
    this.#send(request(agent, verb, id, Buffer.from(payload), more.path));
    try {
      const left = Math.max(1, timeout - (performance.now() - start));
      return await this.#guarded(left, `the end of: ${description}`, result);
    } catch (error) {
      if (error instanceof TimeLimitError && this.#ended === undefined) this.#send(request(agent, 'kill', id));
      throw error;
    } finally {
      this.#jobs.delete(id);
    }
  }

  #take(channel: Socket, frames: Frame[]): void {
    for (const frame of frames) {
      if (frame.kind === 'hello') {
        this.#hello(channel, frame);
        continue;
      }
      const job = this.#jobs.get(frame.id);
      if (frame.kind === 'out') job?.onData?.(frame.data);
      else job?.resolve({ status: frame.status, stdout: frame.stdout, stderr: frame.stderr });
    }
  }

  #hello(channel: Socket, { agent, release }: Greeting): void {
    if (this.#greeting !== undefined && this.#greeting.agent !== agent) {
      this.#abandon('the guest has another kernel now');
    }
    this.#channel = channel;
    this.#greeting = { agent, release };
    for (const listener of this.#greeted) listener(this.#greeting);
  }

  #ping(): void {
    const bytes = request(this.#greeting?.agent ?? 'any', 'ping');
    for (const channel of this.#channels) if (!channel.destroyed) channel.write(bytes);
  }

  #send(bytes: Buffer): void {
    this.#channel!.write(bytes);
  }

  #abandon(reason: string): void {
    for (const { reject } of this.#jobs.values()) reject(new GuestGoneError(`${reason}${this.#context()}`));
    this.#jobs.clear();
  }

  async #guarded<T>(milliseconds: number, what: string, promise: Promise<T>): Promise<T> {
    if (this.#ended !== undefined) throw this.#gone();
    let watch: NodeJS.Timeout | undefined;
    const gone = new Promise<never>((_, reject) => {
      watch = setInterval(() => {
        if (this.#ended !== undefined) reject(this.#gone());
      }, 100);
    });
    try {
      return await within(milliseconds, what, Promise.race([promise, gone]), this.#context);
    } finally {
      clearInterval(watch);
    }
  }

  #gone(): GuestGoneError {
    return new GuestGoneError(`${this.#ended}${this.#context()}`);
  }
}

function scriptOf(command: string | readonly string[]): string {
  return typeof command === 'string' ? command : command.map(quote).join(' ');
}
