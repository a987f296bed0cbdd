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
export const PIECE = 32 << 10;
/** Asked for before an answer is waited for. */
const WINDOW = 64;
/** Of a packet: what is asked for, with its head, and what any server says besides. */
const LONGEST = 64 << 10;

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
  const answer = conversation.ask(SSH_FXP_OPEN, text(path), flags, ...attributes);
  if (answer.type !== SSH_FXP_HANDLE) throw conversation.failure('open', answer);
  return { name, to, from, handle: Uint8Array.from(stringAt(answer.body, 0)) };
}

/** As Reader.read: fewer bytes than asked for only at the end. @throws Error with what the other end says */
export function readRemote({ name, to, from, handle }: Remote, position: number, into: Uint8Array): number {
  const conversation = new Conversation(name, to, from);
  const found = new Int32Array(WINDOW);
  for (let done = 0; done < into.length; ) {
    const start = done;
    const [count, end] = windowOf(start, into.length);
    for (let i = 0, at = start; i < count; i++, at += PIECE) {
      conversation.send(i, SSH_FXP_READ, 0, string(handle), u64(position + at), u32(Math.min(PIECE, end - at)));
    }
    conversation.answers(count, ({ type, id, body }) => {
      if (type === SSH_FXP_STATUS && body.readUInt32BE(0) === SSH_FX_EOF) found[id] = 0;
      else if (type === SSH_FXP_DATA) {
        const bytes = stringAt(body, 0);
        into.set(bytes, start + id * PIECE);
        found[id] = bytes.length;
      } else throw conversation.failure('read', { type, id, body });
    });
    for (let i = 0; i < count; i++) {
      done = start + i * PIECE + found[i]!;
      // What it sent of a later piece is asked for again.
      if (found[i]! < Math.min(PIECE, end - start - i * PIECE)) break;
    }
    const isEnd = found.subarray(0, count).indexOf(0);
    if (isEnd >= 0 && done === start + isEnd * PIECE) return done;
  }
  return into.length;
}

/** @throws Error with what the other end says: SFTP has no word for a disk that is full */
export function writeRemote({ name, to, from, handle }: Remote, position: number, bytes: Uint8Array): void {
  const conversation = new Conversation(name, to, from);
  for (let done = 0; done < bytes.length; ) {
    const [count, end] = windowOf(done, bytes.length);
    for (let i = 0; i < count; i++) {
      const at = done + i * PIECE;
      const piece = bytes.subarray(at, Math.min(at + PIECE, end));
      // As it is, and not in a packet of its own: a machine's memory goes this way.
      conversation.send(i, SSH_FXP_WRITE, piece.length, string(handle), u64(position + at), u32(piece.length));
      append(to, piece);
    }
    conversation.answers(count, (answer) => conversation.succeed('write', answer));
    done = end;
  }
}

/** All that was written is on the other machine's disk. @throws Error, also where the server cannot tell */
export function syncRemote({ name, to, from, handle }: Remote): void {
  const conversation = new Conversation(name, to, from);
  conversation.succeed('sync', conversation.ask(SSH_FXP_EXTENDED, text(FSYNC), string(handle)));
}

/** @throws Error */
export function closeRemote({ name, to, from, handle }: Remote): void {
  const conversation = new Conversation(name, to, from);
  conversation.succeed('close', conversation.ask(SSH_FXP_CLOSE, string(handle)));
}

/** How many pieces are asked for at once, and where the last of them ends. */
function windowOf(from: number, to: number): readonly [count: number, end: number] {
  const count = Math.min(WINDOW, Math.ceil((to - from) / PIECE));
  return [count, Math.min(to, from + count * PIECE)];
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

  /** Asks one thing. @returns the answer, valid until the next */
  ask(type: number, ...body: Uint8Array[]): Answer {
    this.send(0, type, 0, ...body);
    return this.receive();
  }

  /** @param following how many bytes of the packet are still to follow */
  send(id: number, type: number, following: number, ...body: Uint8Array[]): void {
    append(this.#to, packetBefore(following, type, u32(id), ...body));
  }

  /** Takes as many answers, in whatever order they come, also where one of them is no good. @throws what `take` says first */
  answers(count: number, take: (answer: Answer) => void): void {
    let failure: unknown;
    for (let i = 0; i < count; i++) {
      const answer = this.receive();
      if (answer.id >= count) throw new Error(`${this.#name}: an answer to what nobody asked`);
      try {
        take(answer);
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /** @returns valid until the next */
  receive(): Answer {
    const found = readPacket(this.#from);
    if (found === undefined || found.length < 5) throw new Error(`${this.#name}: the connection has ended`);
    return { type: found[0]!, id: found.readUInt32BE(1), body: found.subarray(5) };
  }

  succeed(what: string, answer: Answer): void {
    if (answer.type !== SSH_FXP_STATUS || answer.body.readUInt32BE(0) !== SSH_FX_OK) throw this.failure(what, answer);
  }

  failure(what: string, { type, body }: Answer): Error {
    const said = type === SSH_FXP_STATUS ? stringAt(body, 4).toString() : `packet ${type}`;
    return new Error(`${this.#name}: ${what}: ${said}`);
  }
}

/** Each thread has one, and uses it again and again: the collector may leave a hundred such lie before it begins. */
const received = Buffer.alloc(LONGEST);

/** What comes next, behind its length: valid until the next call. @returns undefined at the end @throws Error where it is no packet */
export function readPacket(from: number): Buffer | undefined {
  if (readNext(from, received.subarray(0, 4)) < 4) return undefined;
  const length = received.readUInt32BE(0);
  if (length === 0 || length > LONGEST) throw new Error(`no SFTP, but a packet of ${length} bytes`);
  const found = received.subarray(0, length);
  return readNext(from, found) === length ? found : undefined;
}

export function packet(type: number, ...body: readonly Uint8Array[]): Uint8Array {
  return packetBefore(0, type, ...body);
}

/** A packet of which some bytes are still to follow. */
export function packetBefore(following: number, type: number, ...body: readonly Uint8Array[]): Uint8Array {
  const length = 1 + following + body.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([u32(length), Uint8Array.of(type), ...body]);
}

export function stringAt(body: Buffer, at: number): Buffer {
  return body.subarray(at + 4, at + 4 + body.readUInt32BE(at));
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
