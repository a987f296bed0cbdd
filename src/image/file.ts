/**
 * One image file: magics, then entries.
 *
 *     u32 IMG_COMMON_MAGIC | IMG_SERVICE_MAGIC      not in the inventory
 *     u32 magic of the type                         src/image/types.ts
 *     { u32 size, message, [raw bytes, [padding]] }...
 *
 * All little-endian. A file is read through a window of 64 KiB, so that one of any length costs little memory; an entry
 * that is larger gets a buffer of its own, up to 64 MiB and never beyond what the file has.
 */
import { viewOf } from '../abi/struct.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import type { Message } from './proto.ts';
import type { Sink, Source } from './store.ts';
import { IMG_COMMON_MAGIC, IMG_SERVICE_MAGIC, type ImageType, images, type Part, typeOfMagic } from './types.ts';
import { Writer } from './wire.ts';

/** A million mappings of one process take some 50 MiB. */
const MAX_ENTRY = 64 << 20;
export const WINDOW = 64 << 10;

/** One entry as it stands in the file. */
export interface ImageRecord<V = unknown> {
  readonly message: Message<V>;
  readonly value: V;
  /** Byte of the file where the message begins. */
  readonly at: number;
  /** The raw bytes behind it; blobSize is 0 where there are none. */
  readonly blobAt: number;
  readonly blobSize: number;
}

/** Narrows a record to one message. */
export function isRecord<V>(record: ImageRecord, message: Message<V>): record is ImageRecord<V> {
  return (record.message as unknown) === message;
}

/** Reads forward through a source, a window at a time. */
export class Window {
  readonly source: Source;
  bytes = new Uint8Array(0);
  /** Byte of the file where `bytes` begins. */
  base = 0;
  #buffer: Uint8Array<ArrayBuffer>;

  constructor(source: Source) {
    this.source = source;
    this.#buffer = new Uint8Array(Math.min(WINDOW, source.size));
  }

  /** The `count` bytes at `at`, valid until the next call. FormatError where the file ends before. */
  take(at: number, count: number, field: string): Uint8Array {
    const { name: file, size } = this.source;
    if (count > size - at) {
      throw new FormatError({
        file,
        offset: at,
        field,
        expected: `${count} bytes`,
        found: `${Math.max(0, size - at)}`,
      });
    }
    if (at < this.base || at + count > this.base + this.bytes.length) this.#fill(at, count, field);
    return this.bytes.subarray(at - this.base, at - this.base + count);
  }

  #fill(at: number, count: number, field: string): void {
    const { name: file, size } = this.source;
    if (count > this.#buffer.length) this.#buffer = new Uint8Array(count);
    const wanted = Math.min(this.#buffer.length, size - at);
    const got = readFully(this.source, this.#buffer.subarray(0, wanted), at);
    if (got < count) {
      throw new FormatError({ file, offset: at, field, expected: `${count} bytes`, found: `${got}` });
    }
    this.bytes = this.#buffer.subarray(0, got);
    this.base = at;
  }
}

/** Reads until `into` is full or the source ends; returns the number of bytes. */
export function readFully(source: Source, into: Uint8Array, position: number): number {
  let done = 0;
  while (done < into.length) {
    const got = source.read(into.subarray(done), position + done);
    if (got === 0) break;
    done += got;
  }
  return done;
}

/** Checks both magics; where no type is demanded, the file's own says which it is. Returns where the entries begin. */
export function openImage(window: Window, wanted: ImageType | undefined): { type: ImageType; at: number } {
  const { name: file } = window.source;
  const magicAt = (at: number) => viewOf(window.take(at, 4, 'magic')).getUint32(0, true);
  const found = (at: number, expected: string): never => {
    const magic = magicAt(at);
    const known = typeOfMagic(magic)?.name;
    const text = `0x${magic.toString(16).padStart(8, '0')}${known === undefined ? '' : ` (${known})`}`;
    throw new FormatError({ file, offset: at, field: 'magic', expected, found: text });
  };
  const first = magicAt(0);
  const bare = first === images.INVENTORY.magic;
  if (!bare && first !== IMG_COMMON_MAGIC && first !== IMG_SERVICE_MAGIC) {
    if (typeOfMagic(first) !== undefined) {
      throw new UnsupportedError({
        what: `image ${file}`,
        why: 'it is of version 1, which has no common magic',
        remedy: 'convert the images with the CRIU that made them',
      });
    }
    found(0, 'the magic of CRIU images, 0x54564319');
  }
  const at = bare ? 0 : 4;
  const type = typeOfMagic(magicAt(at));
  if (wanted !== undefined && type !== wanted) found(at, `0x${wanted.magic.toString(16)} (${wanted.name})`);
  if (type === undefined) return found(at, 'the magic of an image type');
  const service = type === images.STATS || type === images.IRMAP_CACHE;
  if (!bare && (first === IMG_SERVICE_MAGIC) !== service) found(0, service ? '0x55105940' : '0x54564319');
  return { type, at: at + 4 };
}

/** The type of an image by the magics that it begins with. FormatError, UnsupportedError as for records(). */
export function typeOf(source: Source): ImageType {
  return openImage(new Window(source), undefined).type;
}

/**
 * The entries of an image, one after the other.
 *
 * @throws FormatError with file, byte and field for whatever is damaged, UnsupportedError for a version 1 image
 */
export function* records(source: Source, wanted?: ImageType): Generator<ImageRecord> {
  const window = new Window(source);
  const { type, at: start } = openImage(window, wanted);
  let at = start;
  let inner = 0;
  for (let index = 0; at < source.size; index++) {
    const part = (inner > 0 ? type.inner!.part : index === 0 && type.head ? type.head : type.entry) as Part<unknown>;
    const { message } = part;
    const size = viewOf(window.take(at, 4, `${message.name}: size`)).getUint32(0, true);
    if (size > Math.min(source.size - at - 4, MAX_ENTRY)) {
      throw new FormatError({
        file: source.name,
        offset: at,
        field: `${message.name}: size`,
        expected: `at most ${Math.min(source.size - at - 4, MAX_ENTRY)}`,
        found: `${size}`,
      });
    }
    const value = message.decode(window.take(at + 4, size, message.name), { file: source.name, offset: at + 4 });
    const blobAt = at + 4 + size;
    const blobSize = part.blob?.(value, source.size - blobAt) ?? 0;
    const end = blobAt + padded(blobSize, part);
    if (end > source.size) {
      throw new FormatError({
        file: source.name,
        offset: blobAt,
        field: `data of ${message.name}`,
        expected: `${end - blobAt} bytes`,
        found: `${source.size - blobAt}`,
      });
    }
    yield { message, value, at: at + 4, blobAt, blobSize };
    at = end;
    if (inner > 0) inner--;
    else if (type.inner !== undefined) inner = type.inner.count(value);
  }
  if (inner > 0) {
    const field = `${type.entry.message.name}: messages`;
    throw new FormatError({ file: source.name, offset: at, field, expected: `${inner} more`, found: 'the end' });
  }
}

/** All entries of an image whose entries have no raw bytes and one message. Errors as for records(). */
export function readEntries<E>(source: Source, type: ImageType<E, never, never>): E[] {
  return Array.from(records(source, type as ImageType), (record) => record.value as E);
}

/** The entry of an image that has exactly one. Errors as for records(). */
export function readEntry<E>(source: Source, type: ImageType<E, never, never>): E {
  const entries = readEntries(source, type);
  if (entries.length === 1) return entries[0]!;
  const field = type.entry.message.name;
  throw new FormatError({ file: source.name, field, expected: 'one entry', found: `${entries.length}` });
}

/** The raw bytes of a record. They are not more than the file has, but may be as many. */
export function readBlob(source: Source, record: ImageRecord): Uint8Array {
  const blob = new Uint8Array(record.blobSize);
  const got = readFully(source, blob, record.blobAt);
  if (got === blob.length) return blob;
  const field = `data of ${record.message.name}`;
  const [expected, found] = [`${blob.length} bytes`, `${got}`];
  throw new FormatError({ file: source.name, offset: record.blobAt, field, expected, found });
}

/** Those that are done: an image of many processes has thousands of files. */
const spare: Writer[] = [];

/** Writes one image file. Values that a field cannot hold give RangeError, missing ones TypeError. */
export class ImageWriter<E, H = never, I = never> {
  readonly #sink: Sink;
  readonly #type: ImageType<E, H, I>;
  /** What is not in the sink yet. */
  readonly #to: Writer;

  constructor(sink: Sink, type: ImageType<E, H, I>) {
    this.#sink = sink;
    this.#type = type;
    this.#to = spare.pop() ?? new Writer(WINDOW);
    const first = { STATS: IMG_SERVICE_MAGIC, IRMAP_CACHE: IMG_SERVICE_MAGIC }[type.name] ?? IMG_COMMON_MAGIC;
    if (type.name !== 'INVENTORY') this.u32(first);
    this.u32(type.magic);
  }

  /** The first message, where it is of another kind than the entries. */
  head(value: H, blob?: Uint8Array): void {
    this.#part(this.#type.head!, value, blob);
  }

  entry(value: E, blob?: Uint8Array): void {
    this.#part(this.#type.entry, value, blob);
  }

  /** One of the messages that follow an entry. */
  inner(value: I, blob?: Uint8Array): void {
    this.#part(this.#type.inner!.part, value, blob);
  }

  /** Raw bytes of an entry that come in pieces; the entry is written without them before. */
  raw(bytes: Uint8Array): void {
    if (bytes.length > WINDOW - this.#to.at) this.#flush();
    if (bytes.length > WINDOW) this.#sink.write(bytes);
    else this.#to.raw(bytes);
  }

  u32(value: number): void {
    if (WINDOW - this.#to.at < 4) this.#flush();
    this.#to.u32(value);
  }

  /** Ends the file. */
  close(): void {
    this.#flush();
    this.#sink.close();
    // One that has become large is not worth its memory.
    if (this.#to.bytes.length === WINDOW) spare.push(this.#to);
  }

  #part<V>(part: Part<V>, value: V, blob: Uint8Array | undefined): void {
    const to = this.#to;
    if (to.at > WINDOW / 2) this.#flush();
    const start = to.at;
    to.u32(0);
    part.message.append(to, value);
    viewOf(to.bytes).setUint32(start, to.at - start - 4, true);
    if (to.at > WINDOW) this.#flush();
    if (blob === undefined) return;
    this.raw(blob);
    this.raw(new Uint8Array(padded(blob.length, part) - blob.length));
  }

  #flush(): void {
    if (this.#to.at > 0) this.#sink.write(this.#to.bytes.subarray(0, this.#to.at));
    this.#to.at = 0;
  }
}

/** Writes an image whose entries have no raw bytes, whole. */
export function writeEntries<E>(sink: Sink, type: ImageType<E, never, never>, entries: Iterable<E>): void {
  const writer = new ImageWriter(sink, type);
  for (const entry of entries) writer.entry(entry);
  writer.close();
}

function padded<V>(size: number, part: Part<V>): number {
  const pad = part.pad ?? 1;
  return Math.ceil(size / pad) * pad;
}
