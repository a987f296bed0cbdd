/** Bitmaps with a bit for each page, lowest bit first: in a file, where they may be larger than memory should be. */
import type { Range } from '../mem/range.ts';
import type { Reader } from './io/reader.ts';
import { Window } from './io/window.ts';

/** Bits of which the number before them is kept. */
const BLOCK_BITS = 4096;
const BLOCK_BYTES = BLOCK_BITS / 8;
const CHUNK = 65536;

const bitsIn = Uint8Array.from({ length: 256 }, (_, byte) => {
  let count = 0;
  for (let bits = byte; bits !== 0; bits &= bits - 1) count++;
  return count;
});

/** Set bits in bytes. */
export function countBits(bytes: Uint8Array): number {
  let count = 0;
  for (const byte of bytes) count += bitsIn[byte]!;
  return count;
}

/** Sets bits `from` to before `to`. */
export function setBits(bits: Uint8Array, from: number, to: number): void {
  let at = from;
  for (; at < to && at % 8 !== 0; at++) bits[at >>> 3]! |= 1 << (at & 7);
  const whole = to - (to % 8);
  if (at < whole) {
    bits.fill(0xff, at / 8, whole / 8);
    at = whole;
  }
  for (; at < to; at++) bits[at >>> 3]! |= 1 << (at & 7);
}

/** A bitmap in a file, with the number of bits set before any place at hand. */
export class FileBitmap {
  /** How many bits there are. */
  readonly length: number;
  /** How many of them are set. */
  readonly count: number;
  readonly #position: number;
  readonly #before: Float64Array;
  readonly #window: Window;

  /**
   * Reads it once.
   * @param length in bits; what the file does not have of them is not set
   */
  constructor(reader: Reader, position: number, length: number) {
    this.length = length;
    this.#position = position;
    this.#window = new Window(reader, CHUNK);
    this.#before = new Float64Array(Math.ceil(length / BLOCK_BITS));
    let count = 0;
    for (const { at, bytes } of chunks(this.#window, position, length)) {
      for (let i = 0; i < bytes.length; i += BLOCK_BYTES) {
        this.#before[(at + i) / BLOCK_BYTES] = count;
        count += countBits(bytes.subarray(i, i + BLOCK_BYTES));
      }
    }
    this.count = count;
  }

  has(bit: number): boolean {
    if (bit >= this.length) return false;
    const [byte = 0] = this.#window.at(this.#position + Math.floor(bit / 8), 1);
    return ((byte >> (bit % 8)) & 1) === 1;
  }

  /** How many bits are set before this one. */
  rank(bit: number): number {
    if (bit >= this.length) return this.count;
    const block = Math.floor(bit / BLOCK_BITS);
    const length = Math.floor(bit / 8) - block * BLOCK_BYTES;
    const bytes = this.#window.at(this.#position + block * BLOCK_BYTES, BLOCK_BYTES);
    let count = this.#before[block]!;
    for (let i = 0; i < length; i++) count += bitsIn[bytes[i] ?? 0]!;
    return count + bitsIn[(bytes[length] ?? 0) & ((1 << (bit % 8)) - 1)]!;
  }

  /** Copies bits from `first`, a multiple of 8, on; those that do not exist are not set. */
  copy(first: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const at = first / 8 + done;
      const wanted = Math.min(CHUNK, into.length - done);
      const length = Math.max(0, Math.min(wanted, Math.ceil(this.length / 8) - at));
      const bytes = length === 0 ? new Uint8Array(0) : this.#window.at(this.#position + at, length);
      into.set(bytes, done);
      into.fill(0, done + bytes.length, done + wanted);
      done += wanted;
    }
    const behind = this.length - first;
    if (behind > 0 && behind < into.length * 8 && behind % 8 !== 0) into[behind >> 3]! &= (1 << (behind % 8)) - 1;
  }
}

/**
 * Runs of set bits of a bitmap in a file, as ranges of bit numbers.
 * @returns undefined where there are more than `limit`
 */
export function runsOfBits(reader: Reader, position: number, length: number, limit: number): Range[] | undefined {
  const runs: Range[] = [];
  let start = -1;
  for (const { at, bytes } of chunks(new Window(reader, CHUNK), position, length)) {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!;
      if (byte === (start < 0 ? 0 : 0xff)) continue;
      for (let bit = 0; bit < 8; bit++) {
        const isSet = ((byte >> bit) & 1) === 1;
        if (isSet === start >= 0) continue;
        const here = (at + i) * 8 + bit;
        if (isSet) {
          start = here;
          continue;
        }
        if (runs.length === limit) return undefined;
        runs.push({ start, end: here });
        start = -1;
      }
    }
  }
  if (start < 0) return runs;
  return runs.length === limit ? undefined : [...runs, { start, end: length }];
}

/** The bitmap in pieces: `at` counts bytes from its beginning. Bits beyond `length` are cleared. */
function* chunks(window: Window, position: number, length: number): Generator<{ at: number; bytes: Uint8Array }> {
  const total = Math.ceil(length / 8);
  for (let at = 0; at < total; at += CHUNK) {
    const wanted = Math.min(CHUNK, total - at);
    let bytes = window.at(position + at, wanted);
    if (at + wanted === total && length % 8 !== 0 && bytes.length === wanted) {
      bytes = bytes.slice();
      bytes[wanted - 1]! &= (1 << (length % 8)) - 1;
    }
    yield { at, bytes };
    if (bytes.length < wanted) return;
  }
}
