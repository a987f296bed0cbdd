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

/** Words of 64 bits that are one of these but for the bits of `mask`. */
export function* searchWords(
  source: PageSource,
  values: readonly bigint[],
  mask: bigint,
  signal: AbortSignal,
): Generator<Hit> {
  const halves = (value: bigint) =>
    [Number(value & 0xffffffffn) | 0, Number((value >> 32n) & 0xffffffffn) | 0] as const;
  const [keepLow, keepHigh] = halves(~mask);
  const wanted = values.map(halves).map(([low, high]) => [low & keepLow, high & keepHigh] as const);
  for (const { start, bytes } of pieces(source, 0, signal)) {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    for (let i = 0; i + 1 < words.length; i += 2) {
      const low = words[i]! & keepLow;
      for (const [wantedLow, wantedHigh] of wanted) {
        if (low !== wantedLow || (words[i + 1]! & keepHigh) !== wantedHigh) continue;
        const found = new DataView(bytes.buffer, bytes.byteOffset + i * 4, 8).getBigUint64(0, true);
        yield { address: start + i * 4, found };
      }
    }
  }
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
