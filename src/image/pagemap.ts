/**
 * Which pages an image has: runs of {address, number of pages, flags}, whose contents stand in pages-N.img, page after page
 * in the same order, where a run has PE_PRESENT. A process can have hundreds of thousands of runs: they are read and
 * written here without an object for each.
 */
import { viewOf } from '../abi/struct.ts';
import { FormatError } from '../errors.ts';
import { ImageWriter, openImage, WINDOW, Window } from './file.ts';
import { isExact } from './kinds.ts';
import { PE_PARENT, PE_PRESENT, pagemap_entry } from './messages/memory.ts';
import type { Sink, Source } from './store.ts';
import { type ImageType, images } from './types.ts';
import { Reader, TWO32 } from './wire.ts';

/**
 * The runs of a pagemap without an object for each: a process can have hundreds of thousands.
 *
 * @param run called with the address, the number of pages and PE_ flags, in the order of the file
 * @returns the number N of pages-N.img
 * @throws FormatError
 */
export function readPagemap(source: Source, run: (vaddr: number, nrPages: number, flags: number) => void): number {
  const window = new Window(source);
  const { name: file, size } = source;
  let { at } = openImage(window, images.PAGEMAP as ImageType);
  const entry = (): { from: number; length: number } => {
    const length = viewOf(window.take(at, 4, 'pagemap_entry: size')).getUint32(0, true);
    if (length > Math.min(size - at - 4, WINDOW - 4)) {
      const [expected, found] = [`at most ${Math.min(size - at - 4, WINDOW - 4)}`, `${length}`];
      throw new FormatError({ file, offset: at, field: 'pagemap_entry: size', expected, found });
    }
    window.take(at + 4, length, 'pagemap_entry');
    const from = at + 4;
    at = from + length;
    return { from, length };
  };
  const head = entry();
  const headBytes = window.take(head.from, head.length, 'pagemap_head');
  const { pages_id } = images.PAGEMAP.head!.message.decode(headBytes, { file, offset: head.from });
  let reader = new Reader(window.bytes, file, window.base);
  while (at < size) {
    at += plainRuns(window.bytes, at - window.base, run);
    if (at === size) break;
    const { from, length } = entry();
    if (reader.bytes !== window.bytes) reader = new Reader(window.bytes, file, window.base);
    reader.at = from - window.base;
    reader.end = reader.at + length;
    pagemapRun(reader, run);
  }
  return pages_id;
}

/** What takeNumber() has read: not in variables of this file, which would make an object of each number. */
const taken = new Float64Array(1);

/** Reads a varint of up to 49 bits, behind a tag. @returns where it ends, or 0 if it is something else or not all there */
function takeNumber(bytes: Uint8Array, at: number, tag: number): number {
  if (at >= bytes.length || bytes[at] !== tag) return 0;
  let value = 0;
  let next = at + 1;
  for (let scale = 1; scale < 2 ** 49 && next < bytes.length; scale *= 0x80) {
    const byte = bytes[next++]!;
    value += (byte & 0x7f) * scale;
    if (byte > 0x7f) continue;
    taken[0] = value;
    return next;
  }
  return 0;
}

/**
 * Takes the entries that are as everybody writes them: size, address, number of pages, flags, and that number once more. A restore
 * waits for all of them to be read.
 *
 * @param from where the first one begins @returns bytes of those that were taken, up to the first one that is something else
 */
function plainRuns(
  bytes: Uint8Array,
  from: number,
  run: (vaddr: number, nrPages: number, flags: number) => void,
): number {
  let done = from;
  while (done >= 0 && done + 4 < bytes.length) {
    const end = done + 4 + bytes[done]!;
    if (end > bytes.length || (bytes[done + 1]! | bytes[done + 2]! | bytes[done + 3]!) !== 0) break;
    let at = takeNumber(bytes, done + 4, 0x08);
    const vaddr = taken[0]!;
    if (at > 0) at = takeNumber(bytes, at, 0x10);
    let nrPages = taken[0]!;
    if (at === 0 || nrPages > 0xffff_ffff) break;
    at = takeNumber(bytes, at, 0x20);
    const flags = taken[0]!;
    if (at === 0 || flags > 0xffff_ffff) break;
    if (at < end) {
      at = takeNumber(bytes, at, 0x28);
      nrPages = taken[0]!;
    }
    if (at !== end) break;
    run(vaddr, nrPages, flags);
    done = end;
  }
  return done - from;
}

/** One pagemap_entry, by hand. Without flags it is an old one: present, unless in the parent image. */
function pagemapRun(reader: Reader, run: (vaddr: number, nrPages: number, flags: number) => void): void {
  const begin = reader.at;
  let vaddr = 0;
  let compat = 0;
  let nrPages = 0;
  let flags = 0;
  let inParent = 0;
  /** A bit for each field number that was met. */
  let seen = 0;
  reader.field = pagemap_entry.name;
  while (reader.at < reader.end) {
    const start = reader.at;
    reader.varint();
    const number = reader.lo >>> 3;
    const wire = reader.lo & 7;
    if (reader.hi !== 0 || number === 0) reader.fail(start, 'a field number', `${reader.hi * TWO32 + number}`);
    if (number > 5) {
      reader.skip(wire);
      continue;
    }
    if (wire !== 0) reader.fail(start, 'wire type 0', `${wire}`);
    if (seen & (1 << number)) reader.fail(start, 'one value', 'a second one');
    seen |= 1 << number;
    reader.varint();
    const value = reader.hi * TWO32 + reader.lo;
    const isFit = number === 1 || number === 5 ? isExact(reader.lo, reader.hi) : value < (number === 3 ? 2 : TWO32);
    if (!isFit) reader.fail(start, `a value of field ${number}`, `${value}`);
    if (number === 1) vaddr = value;
    else if (number === 2) compat = value;
    else if (number === 3) inParent = value;
    else if (number === 4) flags = value;
    else nrPages = value;
  }
  if ((seen & 6) !== 6) reader.fail(begin, 'vaddr and compat_nr_pages', 'an entry without');
  if (inParent) flags |= PE_PARENT;
  else if ((seen & (1 << 4)) === 0) flags = PE_PRESENT;
  run(vaddr, seen & (1 << 5) ? nrPages : compat, flags);
}

/** Of entries that wait to be handed on, in bytes. */
const ROOM = 32 << 10;
/** Size and message: a size, four tags and four numbers of up to 64 bits. */
const MAX_RUN = 4 + 4 * (1 + 10);

/** Writes a pagemap run by run, in ascending order of addresses. A process can have hundreds of thousands, and stands still. */
export class PagemapWriter {
  readonly #writer: ImageWriter<never, { pages_id: number }>;
  readonly #bytes = new Uint8Array(ROOM);
  #at = 0;

  /** @param pagesId the N of pages-N.img */
  constructor(sink: Sink, pagesId: number) {
    this.#writer = new ImageWriter(sink, images.PAGEMAP as unknown as ImageType<never, { pages_id: number }, never>);
    this.#writer.head({ pages_id: pagesId });
  }

  /** @param nrPages in pages of 4096 bytes */
  run(vaddr: number, nrPages: number, flags: number): void {
    if (this.#at > ROOM - MAX_RUN) this.#flush();
    const bytes = this.#bytes;
    const begin = this.#at + 4;
    // The order of the fields is that of their numbers; in_parent (3) is not written any more.
    let at = putNumber(bytes, begin, 0x08, vaddr);
    at = putNumber(bytes, at, 0x10, Math.min(nrPages, 0xffff_ffff));
    at = putNumber(bytes, at, 0x20, flags);
    at = putNumber(bytes, at, 0x28, nrPages);
    bytes[this.#at] = at - begin;
    this.#at = at;
  }

  close(): void {
    this.#flush();
    this.#writer.close();
  }

  #flush(): void {
    this.#writer.raw(this.#bytes.subarray(0, this.#at));
    // The upper bytes of a size stay zero.
    this.#bytes.fill(0);
    this.#at = 0;
  }
}

/** A field and its value as a varint. @returns where the next one begins */
function putNumber(bytes: Uint8Array, at: number, tag: number, value: number): number {
  if (!(value >= 0 && Number.isSafeInteger(value))) throw new RangeError(`pagemap_entry: ${value} does not fit uint64`);
  let next = at;
  bytes[next++] = tag;
  let rest = value;
  for (; rest > 0x7fff_ffff; rest = Math.floor(rest / 0x80)) bytes[next++] = (rest % 0x80) | 0x80;
  let low = rest | 0;
  for (; low > 0x7f; low >>>= 7) bytes[next++] = (low & 0x7f) | 0x80;
  bytes[next++] = low;
  return next;
}
