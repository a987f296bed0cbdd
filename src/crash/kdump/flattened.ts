/**
 * makedumpfile's flattened format: a dump written to a pipe, as pieces each with the place where it belongs. They come in any
 * order, and a later one counts where two overlap. What no piece covers is zeros.
 *
 * Read is it as the file that it describes, in place. For that an index of the pieces is kept, so their number is limited; QEMU
 * writes one for each 16 KiB. A longer stream is put together first (rearrange()).
 */
import { FormatError, UnsupportedError } from '../../errors.ts';
import { readExactly } from '../bytes.ts';
import type { Output } from '../io/output.ts';
import type { Reader } from '../io/reader.ts';
import { Window } from '../io/window.ts';
import { lastNotAbove } from '../sorted.ts';
import {
  FLATTENED_HEADER_SIZE,
  MAKEDUMPFILE_SIGNATURE,
  makedumpfile_data_header,
  makedumpfile_header,
} from './format.ts';

/** Pieces in an index of 100 MB. */
const MAX_PIECES = 2 ** 22;

export function isFlattened(magic: string): boolean {
  return magic.startsWith(MAKEDUMPFILE_SIGNATURE);
}

export interface FlattenedPiece {
  /** Where it belongs. */
  readonly offset: number;
  readonly size: number;
  /** Where it stands in the stream. */
  readonly position: number;
}

/**
 * The pieces of a stream in its order. The return value is whether it has an end: one that was cut has not.
 * @throws FormatError for a header that is none, or a piece that belongs nowhere
 */
export function* flattenedPieces(reader: Reader): Generator<FlattenedPiece, boolean> {
  checkHeader(reader.name, readExactly(reader, 0, makedumpfile_header.size, 'header of the flattened format'));
  const window = new Window(reader, 65536);
  for (let at = FLATTENED_HEADER_SIZE; ; ) {
    const bytes = window.at(at, makedumpfile_data_header.size);
    if (bytes.length < makedumpfile_data_header.size) return false;
    const piece = placeOf(reader.name, at, bytes);
    if (piece === undefined) return true;
    const position = at + makedumpfile_data_header.size;
    if (piece.size > 0) yield { ...piece, position };
    at = position + piece.size;
  }
}

function checkHeader(file: string, header: Uint8Array): void {
  const signature = new TextDecoder('latin1').decode(header.subarray(0, MAKEDUMPFILE_SIGNATURE.length));
  const at = makedumpfile_header.offsets;
  const [type, version] = [number64(header, at.type), number64(header, at.version)];
  if (isFlattened(signature) && type === 1n && version === 1n) return;
  throw new FormatError({
    file,
    offset: 0,
    field: 'signature, type and version',
    expected: `${MAKEDUMPFILE_SIGNATURE}, 1 and 1`,
    found: `${JSON.stringify(signature)}, ${type} and ${version}`,
  });
}

/** Where a piece belongs, by its header; undefined at the end of the stream. */
function placeOf(file: string, at: number, header: Uint8Array): { offset: number; size: number } | undefined {
  const offset = number64(header, makedumpfile_data_header.offsets.offset);
  const size = number64(header, makedumpfile_data_header.offsets.buf_size);
  if (offset === -1n && size === -1n) return undefined;
  if (offset >= 0n && size >= 0n && offset + size <= BigInt(Number.MAX_SAFE_INTEGER)) {
    return { offset: Number(offset), size: Number(size) };
  }
  const field = 'offset and size of a piece';
  throw new FormatError({ file, offset: at, field, expected: 'a place in a file', found: `${offset} and ${size}` });
}

/**
 * Puts a stream together, in the order in which it comes: makedumpfile -R.
 *
 * @param next fills a buffer with what comes next, and says how much there was
 * @throws FormatError where the stream is none, or ends before its end
 */
export function rearrange(name: string, next: (into: Uint8Array) => number, output: Output): void {
  let position = 0;
  const take = (into: Uint8Array, field: string) => {
    const count = next(into);
    if (count < into.length) {
      const expected = `${into.length} bytes`;
      throw new FormatError({ file: name, offset: position, field, expected, found: `${count} before the end` });
    }
    position += count;
  };
  const start = new Uint8Array(FLATTENED_HEADER_SIZE);
  take(start, 'header of the flattened format');
  checkHeader(name, start);
  const header = new Uint8Array(makedumpfile_data_header.size);
  const buffer = new Uint8Array(1 << 20);
  for (;;) {
    take(header, 'header of a piece');
    const piece = placeOf(name, position - header.length, header);
    if (piece === undefined) return;
    for (let done = 0; done < piece.size; ) {
      const part = buffer.subarray(0, Math.min(buffer.length, piece.size - done));
      take(part, 'piece');
      output.write(piece.offset + done, part);
      done += part.length;
    }
  }
}

/** The file that a stream describes. @throws FormatError, or UnsupportedError where its index would be too large */
export function openFlattened(reader: Reader): { readonly file: Reader; readonly isWhole: boolean } {
  const pieces: { readonly offset: number[]; readonly size: number[]; readonly position: number[] } = {
    offset: [],
    size: [],
    position: [],
  };
  const stream = flattenedPieces(reader);
  let next = stream.next();
  let isSorted = true;
  let size = 0;
  for (; !next.done; next = stream.next()) {
    const { value } = next;
    if (pieces.offset.length === MAX_PIECES) {
      throw new UnsupportedError({
        what: reader.name,
        why: `has more than ${MAX_PIECES} pieces`,
        remedy: 'put it together first, with: tideover crash filter -R FILE OUT',
      });
    }
    isSorted &&= value.offset >= size;
    size = Math.max(size, value.offset + value.size);
    pieces.offset.push(value.offset);
    pieces.size.push(value.size);
    pieces.position.push(value.position);
  }
  const isWhole = next.value;
  const index = isSorted ? pieces : latest(pieces);
  const [offset, length, position] = [index.offset, index.size, index.position].map((list) =>
    Float64Array.from(list),
  ) as [Float64Array, Float64Array, Float64Array];
  const file: Reader = {
    name: reader.name,
    size,
    read(from, into) {
      for (let done = 0; done < into.length; ) {
        const at = from + done;
        if (at >= size) return done;
        const i = lastNotAbove(offset, offset.length, at);
        const end = i < 0 ? 0 : offset[i]! + length[i]!;
        if (at >= end) {
          const gap = Math.min(into.length - done, (offset[i + 1] ?? size) - at);
          into.fill(0, done, done + gap);
          done += gap;
          continue;
        }
        const wanted = Math.min(into.length - done, end - at);
        const count = reader.read(position[i]! + at - offset[i]!, into.subarray(done, done + wanted));
        done += count;
        if (count < wanted) return done;
      }
      return into.length;
    },
    close: () => reader.close(),
  };
  return { file, isWhole };
}

interface Index {
  readonly offset: number[];
  readonly size: number[];
  readonly position: number[];
}

/** Pieces in the order of places, without overlaps: where two overlap, of the earlier one what sticks out. */
function latest(pieces: Index): Index {
  const order = Array.from(pieces.offset, (_, i) => i).sort((a, b) => pieces.offset[a]! - pieces.offset[b]!);
  const result: Index = { offset: [], size: [], position: [] };
  const endOf = (piece: number) => pieces.offset[piece]! + pieces.size[piece]!;
  /** A heap of the pieces that begin before `at`, the latest on top. */
  const heap: number[] = [];
  let next = 0;
  let at = 0;
  while (next < order.length || heap.length > 0) {
    while (heap.length > 0 && endOf(heap[0]!) <= at) pop(heap);
    if (heap.length === 0) {
      if (next === order.length) break;
      at = Math.max(at, pieces.offset[order[next]!]!);
    }
    while (next < order.length && pieces.offset[order[next]!]! <= at) push(heap, order[next++]!);
    const top = heap[0]!;
    if (endOf(top) <= at) continue;
    const until = Math.min(endOf(top), next < order.length ? pieces.offset[order[next]!]! : Number.POSITIVE_INFINITY);
    result.offset.push(at);
    result.size.push(until - at);
    result.position.push(pieces.position[top]! + at - pieces.offset[top]!);
    at = until;
  }
  return result;
}

function push(heap: number[], value: number): void {
  let i = heap.push(value) - 1;
  for (let up = (i - 1) >> 1; i > 0 && heap[up]! < value; up = (i - 1) >> 1) {
    heap[i] = heap[up]!;
    i = up;
  }
  heap[i] = value;
}

function pop(heap: number[]): void {
  const value = heap.pop()!;
  if (heap.length === 0) return;
  let i = 0;
  for (;;) {
    let child = 2 * i + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1]! > heap[child]!) child++;
    if (heap[child]! <= value) break;
    heap[i] = heap[child]!;
    i = child;
  }
  heap[i] = value;
}

function number64(bytes: Uint8Array, at: number): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(at);
}

/** Makes a flattened stream of what is written to it, in the order in which it is written. */
export class FlattenedOutput implements Output {
  readonly #append: (bytes: Uint8Array) => void;

  /** @param append takes the stream's next bytes */
  constructor(append: (bytes: Uint8Array) => void) {
    this.#append = append;
  }

  /** What a stream begins with. */
  begin(): void {
    const signature = new Uint8Array(16);
    signature.set(new TextEncoder().encode(MAKEDUMPFILE_SIGNATURE));
    const header = new Uint8Array(FLATTENED_HEADER_SIZE);
    makedumpfile_header.write({ signature, type: 1, version: 1 }, header);
    this.#append(header);
  }

  write(offset: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#append(makedumpfile_data_header.write({ offset, buf_size: bytes.length }));
    this.#append(bytes);
  }

  /** What a stream ends with. */
  end(): void {
    this.#append(makedumpfile_data_header.write({ offset: -1, buf_size: -1 }));
  }
}
