/** Searches all physical memory of a dump. Nothing is kept but one piece of it. */
import type { PageSource } from '../source.ts';

export interface Hit {
  /** Physical. */
  readonly address: number;
  /** The word that was found; undefined for a text. */
  readonly found: bigint | undefined;
}

const PIECE = 2 ** 20;
const PAGE = 4096;

/** Words of 64 bits that are one of these but for the bits of `mask`. How many values there are makes no difference to the time. */
export function* searchWords(
  source: PageSource,
  values: readonly bigint[],
  mask: bigint,
  signal: AbortSignal,
): Generator<Hit> {
  const [keepLow, keepHigh] = halves(~mask);
  const wanted = new Set(values.map((value) => value & ~mask));
  // One byte says of nearly all words that they are not wanted.
  const perhaps = new Uint8Array(2 ** 16);
  for (const value of wanted) perhaps[slot(...halves(value))] = 1;
  for (const { start, bytes } of pieces(source, 0, signal)) {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i + 1 < words.length; i += 2) {
      if (perhaps[slot(words[i]! & keepLow, words[i + 1]! & keepHigh)] === 0) continue;
      const found = view.getBigUint64(i * 4, true);
      if (wanted.has(found & ~mask)) yield { address: start + i * 4, found };
    }
  }
}

/** A word as two signed numbers of 32 bits. */
function halves(value: bigint): [low: number, high: number] {
  return [Number(value & 0xffffffffn) | 0, Number((value >> 32n) & 0xffffffffn) | 0];
}

/** Multiplicative hashing to 16 bits: pointers to neighbours differ in few bits. */
function slot(low: number, high: number): number {
  return Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1) >>> 16;
}

/** A text, which may lie over the border of two pages. */
export function* searchText(source: PageSource, text: Uint8Array, signal: AbortSignal): Generator<Hit> {
  for (const { start, bytes, length } of pieces(source, text.length - 1, signal)) {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = buffer.indexOf(text); at >= 0 && at < length; at = buffer.indexOf(text, at + 1)) {
      yield { address: start + at, found: undefined };
    }
  }
}

/** Memory piece by piece, each with `more` bytes of what follows it. Pages that are missing are zeros. */
function* pieces(source: PageSource, more: number, signal: AbortSignal) {
  const buffer = new Uint8Array(PIECE + Math.ceil(more / PAGE) * PAGE);
  for (const range of source.ranges) {
    const first = Math.ceil(range.start / PAGE) * PAGE;
    for (let start = first; start < range.end; start += PIECE) {
      signal.throwIfAborted();
      const length = Math.min(PIECE, range.end - start);
      const bytes = buffer.subarray(0, Math.min(buffer.length, range.end - start));
      if (source.readPhysical(start, bytes) !== undefined) {
        for (let at = 0; at < bytes.length; at += PAGE) {
          const page = bytes.subarray(at, at + PAGE);
          if (source.readPhysical(start + at, page) !== undefined) page.fill(0);
        }
      }
      yield { start, length, bytes: bytes.subarray(0, Math.min(bytes.length, length + more)) };
    }
  }
}
