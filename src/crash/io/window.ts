/** Many small reads of a source, most of them one after the other, as few larger ones. */
import type { Reader } from './reader.ts';

export class Window {
  readonly #reader: Reader;
  readonly #buffer: Uint8Array;
  #start = 0;
  #end = 0;

  /** @param size of the largest read, in bytes @param allocate see PageTools */
  constructor(reader: Reader, size: number, allocate: (size: number) => Uint8Array = (bytes) => new Uint8Array(bytes)) {
    this.#reader = reader;
    this.#buffer = allocate(size);
  }

  /** Reads a piece now, at most `size` bytes. */
  load(position: number, length: number): void {
    this.#start = position;
    this.#end = position + this.#reader.read(position, this.#buffer.subarray(0, length));
  }

  /** Whether a piece can be had without reading. */
  holds(position: number, length: number): boolean {
    return this.#start <= position && position + length <= this.#end;
  }

  /** Bytes from a position on, fewer where the source ends; valid until the next call. @param length at most `size` */
  at(position: number, length: number): Uint8Array {
    if (position < this.#start || position + length > this.#end) {
      // What goes on where the last read ended is read ahead; a jump is probably one of many.
      const isNext = position >= this.#start && position <= this.#end;
      const count = this.#reader.read(position, this.#buffer.subarray(0, isNext ? this.#buffer.length : length));
      this.#start = position;
      this.#end = position + count;
    }
    const from = position - this.#start;
    return this.#buffer.subarray(from, Math.min(from + length, this.#end - this.#start));
  }
}
