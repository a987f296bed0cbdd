/**
 * One file of another machine, read and written at any place, by whoever waits for it: the SSH File Transfer Protocol, version 3
 * (draft-ietf-secsh-filexfer-02), over a pair of pipes. At their other end is ssh(1), or http.ts in a process of its own.
 *
 *     packet: u32 length, u8 type, u32 id, ...    string: u32 length, bytes
 */

import { readNext } from '../crash/io/file.ts';
import { append } from '../crash/io/output.ts';

export const SSH_FXP_INIT = 1;
export const SSH_FXP_VERSION = 2;
export const SSH_FXP_OPEN = 3;
export const SSH_FXP_CLOSE = 4;
export const SSH_FXP_READ = 5;
export const SSH_FXP_WRITE = 6;
export const SSH_FXP_STATUS = 101;
export const SSH_FXP_HANDLE = 102;
export const SSH_FXP_DATA = 103;
export const SSH_FXP_EXTENDED = 200;
export const SSH_FXF_READ = 1;
export const SSH_FXF_WRITE = 2;
export const SSH_FXF_CREAT = 8;
const SSH_FILEXFER_ATTR_PERMISSIONS = 4;
export const SSH_FX_OK = 0;
export const SSH_FX_EOF = 1;
export const SSH_FX_FAILURE = 4;
/** PROTOCOL of OpenSSH, 4.4: fsync(2) of a handle. */
export const FSYNC = 'fsync@openssh.com';

const VERSION = 3;
/** OpenSSH takes packets of 256 KiB; every server takes ones of 32 KiB, with some room for their heads. */
const PIECE = 32 << 10;
/** Asked for before an answer is waited for. */
const WINDOW = 64;
const LONGEST = 1 << 20;

/** Descriptors, which are of the process: a thread that has these numbers can use the file, one at a time. */
export interface Remote {
  /** For messages. */
  readonly name: string;
  readonly to: number;
  readonly from: number;
  readonly handle: Uint8Array;
}

/** Opens a file, which is made if there is none, for its owner alone. @throws Error with what the other end says */
export function openRemote(name: string, to: number, from: number, path: string): Remote {
  const conversation = new Conversation(name, to, from);
  append(to, packet(SSH_FXP_INIT, u32(VERSION)));
  const { type } = conversation.receive();
  if (type !== SSH_FXP_VERSION) throw new Error(`${name}: there is no SFTP at the other end`);
  const flags = u32(SSH_FXF_READ | SSH_FXF_WRITE | SSH_FXF_CREAT);
  const attributes = [u32(SSH_FILEXFER_ATTR_PERMISSIONS), u32(0o600)];
  const [answer] = conversation.ask([[SSH_FXP_OPEN, text(path), flags, ...attributes]]);
  if (answer!.type !== SSH_FXP_HANDLE) throw conversation.failure('open', answer!);
  return { name, to, from, handle: answer!.body.subarray(4, 4 + answer!.body.readUInt32BE(0)) };
}

/** As Reader.read: fewer bytes than asked for only at the end. @throws Error with what the other end says */
export function readRemote({ name, to, from, handle }: Remote, position: number, into: Uint8Array): number {
  const conversation = new Conversation(name, to, from);
  for (let done = 0; done < into.length; ) {
    const pieces = windowOf(done, into.length);
    const answers = conversation.ask(
      pieces.map(([at, length]) => [SSH_FXP_READ, string(handle), u64(position + at), u32(length)]),
    );
    for (const [i, answer] of answers.entries()) {
      const [at, length] = pieces[i]!;
      if (answer.type === SSH_FXP_STATUS && answer.body.readUInt32BE(0) === SSH_FX_EOF) return done;
      if (answer.type !== SSH_FXP_DATA) throw conversation.failure('read', answer);
      const bytes = answer.body.subarray(4, 4 + answer.body.readUInt32BE(0));
      into.set(bytes, at);
      done = at + bytes.length;
      // What it sent of a later piece is asked for again.
      if (bytes.length < length) break;
    }
  }
  return into.length;
}

/** @throws Error with what the other end says: SFTP has no word for a disk that is full */
export function writeRemote({ name, to, from, handle }: Remote, position: number, bytes: Uint8Array): void {
  const conversation = new Conversation(name, to, from);
  for (let done = 0; done < bytes.length; ) {
    const pieces = windowOf(done, bytes.length);
    const answers = conversation.ask(
      pieces.map(([at, length]) => [
        SSH_FXP_WRITE,
        string(handle),
        u64(position + at),
        string(bytes.subarray(at, at + length)),
      ]),
    );
    for (const answer of answers) conversation.succeed('write', answer);
    const [at, length] = pieces.at(-1)!;
    done = at + length;
  }
}

/** All that was written is on the other machine's disk. @throws Error, also where the server cannot tell */
export function syncRemote({ name, to, from, handle }: Remote): void {
  const conversation = new Conversation(name, to, from);
  conversation.succeed('sync', conversation.ask([[SSH_FXP_EXTENDED, text(FSYNC), string(handle)]])[0]!);
}

/** @throws Error */
export function closeRemote({ name, to, from, handle }: Remote): void {
  const conversation = new Conversation(name, to, from);
  conversation.succeed('close', conversation.ask([[SSH_FXP_CLOSE, string(handle)]])[0]!);
}

function windowOf(from: number, to: number): [at: number, length: number][] {
  const pieces: [number, number][] = [];
  for (let at = from; at < to && pieces.length < WINDOW; at += PIECE) pieces.push([at, Math.min(PIECE, to - at)]);
  return pieces;
}

interface Answer {
  readonly type: number;
  readonly id: number;
  readonly body: Buffer;
}

class Conversation {
  readonly #name: string;
  readonly #to: number;
  readonly #from: number;

  constructor(name: string, to: number, from: number) {
    this.#name = name;
    this.#to = to;
    this.#from = from;
  }

  /** @returns the answers, in the order of what was asked */
  ask(requests: readonly (readonly [type: number, ...body: Uint8Array[]])[]): Answer[] {
    for (const [id, [type, ...body]] of requests.entries()) append(this.#to, packet(type, u32(id), ...body));
    const answers = new Array<Answer>(requests.length);
    for (let i = 0; i < requests.length; i++) {
      const answer = this.receive();
      if (answer.id >= requests.length) throw new Error(`${this.#name}: an answer to what nobody asked`);
      answers[answer.id] = answer;
    }
    return answers;
  }

  receive(): Answer {
    const length = this.#read(4).readUInt32BE(0);
    if (length < 5 || length > LONGEST) throw new Error(`${this.#name}: a packet of ${length} bytes`);
    const bytes = this.#read(length);
    return { type: bytes[0]!, id: bytes.readUInt32BE(1), body: bytes.subarray(5) };
  }

  succeed(what: string, answer: Answer): void {
    if (answer.type !== SSH_FXP_STATUS || answer.body.readUInt32BE(0) !== SSH_FX_OK) throw this.failure(what, answer);
  }

  failure(what: string, { type, body }: Answer): Error {
    const said = type === SSH_FXP_STATUS ? body.toString('utf8', 8, 8 + body.readUInt32BE(4)) : `packet ${type}`;
    return new Error(`${this.#name}: ${what}: ${said}`);
  }

  #read(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    if (readNext(this.#from, bytes) === length) return bytes;
    throw new Error(`${this.#name}: the connection has ended`);
  }
}

export function packet(type: number, ...body: readonly Uint8Array[]): Uint8Array {
  const length = 1 + body.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([u32(length), Uint8Array.of(type), ...body]);
}

export function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

export function string(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([u32(bytes.length), bytes]);
}

export function text(value: string): Uint8Array {
  return string(Buffer.from(value));
}
