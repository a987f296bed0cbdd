/**
 * One large file on an HTTP server, read and written at any place. HTTP has no way to write into the middle, so the file
 * is cut into pieces of 2 MiB, each of which is a file there:
 *
 *     URL/00000000    bytes 0 to 2097151
 *     URL/00000001    ...                      cat URL/* is the file
 *
 * A piece is sent when all of it is written, or when it must be there. To the server that is one PUT, which replaces it whole or
 * not at all.
 */
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { get, type HttpServer, put } from './http.ts';

const PIECE = 2 << 20;
/** Pieces in memory. A dump's head, its descriptors and its pages are written by turns. */
const KEPT = 5;
const ATTEMPTS = 3;

interface Piece {
  readonly index: number;
  readonly bytes: Buffer;
  /** How much of it there is, at the server or here. */
  length: number;
  /** What was written here, from and to, where the rest is not known; undefined where all of it is. */
  known: { from: number; to: number } | undefined;
  dirty: boolean;
}

export class PiecesFile {
  readonly #server: HttpServer;
  readonly #url: string;
  /** The last used comes last. */
  readonly #pieces = new Map<number, Piece>();

  constructor(server: HttpServer, url: string) {
    this.#server = server;
    this.#url = url.replace(/\/+$/, '');
  }

  /** @returns fewer bytes than asked for at the end. @throws Error with what the server said */
  async read(position: number, length: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (let at = position; at < position + length; ) {
      const within = at % PIECE;
      const piece = await this.#whole((at - within) / PIECE);
      const part = piece.bytes.subarray(within, Math.min(piece.length, within + position + length - at));
      if (part.length === 0) break;
      parts.push(Uint8Array.from(part));
      at += part.length;
    }
    return Buffer.concat(parts);
  }

  async write(position: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const within = (position + done) % PIECE;
      const part = bytes.subarray(done, done + PIECE - within);
      await this.#put((position + done - within) / PIECE, within, part);
      done += part.length;
    }
  }

  /** All that was written is with the server. */
  async sync(): Promise<void> {
    for (const piece of this.#pieces.values()) await this.#send(piece);
  }

  async #put(index: number, from: number, bytes: Uint8Array): Promise<void> {
    const to = from + bytes.length;
    let piece = this.#pieces.get(index);
    // What lies between two parts that were written is the server's.
    if (piece?.known !== undefined && (from > piece.known.to || to < piece.known.from))
      piece = await this.#whole(index);
    piece ??= { index, bytes: Buffer.alloc(PIECE), length: 0, known: { from, to }, dirty: true };
    piece.bytes.set(bytes, from);
    piece.dirty = true;
    piece.length = Math.max(piece.length, to);
    if (piece.known !== undefined) {
      piece.known = { from: Math.min(from, piece.known.from), to: Math.max(to, piece.known.to) };
      if (piece.known.from === 0 && piece.known.to === PIECE) piece.known = undefined;
    }
    await this.#use(piece);
    // The next comes right behind it.
    if (to === PIECE && piece.known === undefined) await this.#send(piece);
  }

  /** A piece with all that there is of it. */
  async #whole(index: number): Promise<Piece> {
    const here = this.#pieces.get(index);
    if (here !== undefined && here.known === undefined) {
      await this.#use(here);
      return here;
    }
    const there = await this.#often(() => get(this.#server, this.#name(index)));
    const bytes = Buffer.alloc(PIECE);
    if (there !== undefined) bytes.set(there.subarray(0, PIECE));
    if (here?.known !== undefined) bytes.set(here.bytes.subarray(here.known.from, here.known.to), here.known.from);
    const length = Math.max(there?.length ?? 0, here?.length ?? 0);
    const piece = { index, bytes, length, known: undefined, dirty: here?.dirty ?? false };
    await this.#use(piece);
    return piece;
  }

  async #use(piece: Piece): Promise<void> {
    this.#pieces.delete(piece.index);
    this.#pieces.set(piece.index, piece);
    if (this.#pieces.size <= KEPT) return;
    const [oldest] = this.#pieces.values();
    await this.#send(oldest!);
    this.#pieces.delete(oldest!.index);
  }

  async #send(piece: Piece): Promise<void> {
    if (!piece.dirty) return;
    const { index, bytes, length } = piece.known === undefined ? piece : await this.#whole(piece.index);
    const body = () => Readable.from([bytes.subarray(0, length)]);
    await this.#often(() => put(this.#server, this.#name(index), body(), { length }));
    const sent = this.#pieces.get(index);
    if (sent !== undefined) sent.dirty = false;
  }

  #name(index: number): string {
    return `${this.#url}/${String(index).padStart(8, '0')}`;
  }

  /** A connection may end between two requests; a server that refuses is not asked again. */
  async #often<T>(ask: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await ask();
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === undefined || attempt === ATTEMPTS) throw error;
        await delay(1000);
      }
    }
  }
}
