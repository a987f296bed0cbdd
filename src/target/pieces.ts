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
  /** Memory of pieces that are gone. It is used again: the collector may leave thirty such lie before it begins. */
  readonly #spare: Buffer[] = [];

  constructor(server: HttpServer, url: string) {
    this.#server = server;
    this.#url = url.replace(/\/+$/, '');
  }

  /** @returns fewer bytes than there is room for at the end. @throws Error with what the server said */
  async read(position: number, into: Uint8Array): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const within = (position + done) % PIECE;
      const piece = await this.#whole((position + done - within) / PIECE);
      const part = piece.bytes.subarray(within, Math.min(piece.length, within + into.length - done));
      if (part.length === 0) break;
      into.set(part, done);
      done += part.length;
    }
    return done;
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
    piece ??= { index, bytes: this.#memory(), length: 0, known: { from, to }, dirty: true };
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
    const bytes = this.#memory();
    const found = (await this.#often(() => get(this.#server, this.#name(index), bytes))) ?? 0;
    if (here?.known !== undefined) {
      const { from, to } = here.known;
      bytes.set(here.bytes.subarray(from, to), from);
      this.#spare.push(here.bytes);
    }
    const length = Math.max(found, here?.length ?? 0);
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
    // What is not all here has been replaced by what is.
    const sent = this.#pieces.get(oldest!.index);
    if (sent === undefined) return;
    this.#pieces.delete(sent.index);
    this.#spare.push(sent.bytes);
  }

  #memory(): Buffer {
    return this.#spare.pop()?.fill(0) ?? Buffer.alloc(PIECE);
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

  /** A connection may break, or be silent; a server that refuses is not asked again. */
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
