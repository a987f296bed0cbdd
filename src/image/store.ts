/**
 * Where images lie. A store has one image: files by name. It is written through a draft, which becomes the image when it
 * is committed and leaves nothing behind when it is not; and it is read through sources. Everything is synchronous, as
 * the processes are stopped meanwhile and the thread that traces them does the work.
 *
 * A store may be a stream that is read once and forwards. So small images come first, then pages, one pages-N.img after
 * the other, each with its size said when it is created; they are read in the same order.
 *
 * Beside CRIU's files each image has two of ours:
 *     tideover.json   first: who made it, where, for what machine (src/image/info.ts)
 *     tideover.sums   last: size and CRC-32 of every file
 */
import { crc32 } from '../crc32.ts';
import { FormatError } from '../errors.ts';
import { type ImageInfo, INFO_FILE, infoText } from './info.ts';
import { PAGES_SUMS_FILE, SUMS_FILE, Sums } from './sums.ts';
import { isRaw, typeOfFile } from './types.ts';

/** One file of an image, to read. */
export interface Source {
  /** For errors: its path, or its name where it has none. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** Reads up to `into.length` bytes at `position`; returns how many, 0 at the end. */
  read(into: Uint8Array, position: number): number;
  close(): void;
}

/** One file of an image, to write from its beginning to its end. */
export interface Sink {
  /** Takes all of `bytes`, which may be used again when this returns. SyscallError ENOSPC where there is no room. */
  write(bytes: Uint8Array): void;
  close(): void;
}

/** An image that is complete. */
export interface ImageStore {
  /** For messages: the directory, or what else it is. */
  readonly name: string;
  /** It is read once, and what stands last in it is not known before. */
  readonly forwards?: boolean;
  /** Of a stream: takes into memory what is still to come, so that its writer need not wait for whoever asks for it. */
  takeAll?(): void;
  /** Names of all files that belong to an image; a stream knows those that have come. */
  names(): string[];
  has(file: string): boolean;
  /** FormatError where there is no such file. */
  open(file: string): Source;
  /** The image that this one builds on, the same one each time; undefined where it is whole by itself. */
  parent?(): ImageStore | undefined;
  close(): void;
}

/** An image that is being written. */
export interface ImageDraft {
  /** Memory goes to a page server: each pagemap must be written before its pages, and is not in this image. */
  readonly sendsMemory?: boolean;
  /** A commit takes no time, and may still find no room: it comes before the processes end. */
  readonly commitsAtOnce?: boolean;
  /** Whoever reads already goes on with the image when it is committed: that comes when the processes have ended. */
  readonly commitsToReader?: boolean;
  /**
   * Begins a file.
   * @param size in bytes; demanded of pages, a hint for others
   * @throws Error for a name that no image has
   */
  create(file: string, size?: number): Sink;
  /**
   * Gives a file its room beforehand, or with a size of 0 only its place among the others, where that makes writing it faster. It may
   * become another size, or none at all. SyscallError ENOSPC where there is no room.
   * @param hurried somebody waits while it is written: what can be done for that beforehand is done
   */
  reserve?(file: string, size: number, hurried: boolean): void;
  /** Takes away what was written so far, where that can be done: all of it is written once more. */
  clear?(): void;
  /** Has whoever reads already see what was written so far. */
  announce?(): void;
  /** All files are written: writes what stands behind them. Nothing that is left to be done needs room, but with `commitsAtOnce`. */
  seal(): void;
  /** Makes what was written the image, sealed or not. */
  commit(): void;
  /** Undoes everything, also after a failed commit. After one that did not fail only a directory does. */
  abort(): void;
  /** After a failed commit: leaves all that was written where it is. @returns where that is, for messages */
  keep(): string;
}

/** What a kind of store does for a draft. */
export interface Backend {
  create(file: string, size: number | undefined): Sink;
  reserve?(file: string, size: number, hurried: boolean): void;
  announce?(): void;
  clear?(): void;
  commit(): void;
  abort(): void;
  keep(): string;
}

/** Names of the files of an image: CRIU's, those of its plugins, ours, and their forms in JSON. Never a path. */
export function isImageFile(file: string): boolean {
  if (file === INFO_FILE || file === SUMS_FILE || file === PAGES_SUMS_FILE) return true;
  const plain = file.replace(/\.json$/, '');
  return /^[A-Za-z0-9][A-Za-z0-9._-]*\.img$/.test(plain) || typeOfFile(plain) !== undefined || isRaw(plain);
}

/**
 * A draft over a kind of store: it writes both files of ours, and sums up all others as they are written.
 * @param info undefined where nobody knows, as of CRIU's images @param sumsFile name of the second
 */
export function draftOn(backend: Backend, info: ImageInfo | undefined, sumsFile = SUMS_FILE): ImageDraft {
  const sums = new Sums();
  const create = (file: string, size?: number): Sink => {
    if (!isImageFile(file)) throw new Error(`${file} is not the name of an image`);
    if (sums.has(file)) throw new Error(`${file} is written twice`);
    const sink = backend.create(file, size);
    let sum = 0;
    let length = 0;
    return {
      write(bytes) {
        sink.write(bytes);
        sum = crc32(bytes, sum);
        length += bytes.length;
      },
      close() {
        sink.close();
        sums.set(file, { size: length, crc32: sum });
      },
    };
  };
  const whole = (sink: Sink, text: string) => {
    sink.write(Buffer.from(text));
    sink.close();
  };
  let sealed = false;
  const seal = (): void => {
    if (!sealed) whole(backend.create(sumsFile, undefined), sums.text(sumsFile));
    sealed = true;
  };
  const begin = () => {
    if (info !== undefined) whole(create(INFO_FILE), infoText(info));
  };
  const clear = () => {
    backend.clear!();
    sums.clear();
    sealed = false;
    begin();
  };
  begin();
  return {
    create,
    ...(backend.reserve === undefined
      ? {}
      : { reserve: (file, size, hurried) => backend.reserve!(file, size, hurried) }),
    ...(backend.clear === undefined ? {} : { clear }),
    ...(backend.announce === undefined ? {} : { announce: () => backend.announce!() }),
    seal,
    commit() {
      seal();
      backend.commit();
    },
    abort: () => backend.abort(),
    keep: () => backend.keep(),
  };
}

/** The error for a file that is not there. */
export function missing(store: string, file: string): FormatError {
  return new FormatError({ file: store, field: file, expected: 'the file', found: 'none' });
}

/** Calls `use` with an opened file, and closes it. */
export function withSource<T>(store: ImageStore, file: string, use: (source: Source) => T): T {
  const source = store.open(file);
  let result: T;
  try {
    result = use(source);
  } catch (error) {
    try {
      source.close();
    } catch {
      // The first error names the place.
    }
    throw error;
  }
  source.close();
  return result;
}

/** Copies a file from where it lies, in pieces. */
export function copySource(source: Source, sink: Sink): void {
  const buffer = new Uint8Array(256 << 10);
  for (let at = 0, got = 0; at < source.size; at += got) {
    got = source.read(buffer, at);
    if (got === 0) {
      const [expected, found] = [`${source.size} bytes`, `${at}`];
      throw new FormatError({ file: source.name, offset: at, field: 'size', expected, found });
    }
    sink.write(buffer.subarray(0, got));
  }
  sink.close();
}

/** The bytes of a file that is small, at most `limit`. */
export function readWhole(source: Source, limit: number): Uint8Array {
  if (source.size > limit) {
    throw new FormatError({ file: source.name, field: 'size', expected: `at most ${limit}`, found: `${source.size}` });
  }
  const bytes = new Uint8Array(source.size);
  let done = 0;
  while (done < bytes.length) {
    const got = source.read(bytes.subarray(done), done);
    if (got === 0) {
      const [expected, found] = [`${bytes.length} bytes`, `${done}`];
      throw new FormatError({ file: source.name, offset: done, field: 'size', expected, found });
    }
    done += got;
  }
  return bytes;
}

/** Bytes as a source. */
export function memorySource(name: string, bytes: Uint8Array): Source {
  return {
    name,
    size: bytes.length,
    read(into, position) {
      const part = bytes.subarray(position, position + into.length);
      into.set(part);
      return part.length;
    },
    close() {},
  };
}

/** An image in memory: for small ones, and for tests. */
export class MemoryStore implements ImageStore {
  readonly name: string;
  readonly files: Map<string, Uint8Array>;

  constructor(files: Map<string, Uint8Array> = new Map(), name = 'memory') {
    this.files = files;
    this.name = name;
  }

  /** A draft that becomes this store's image. */
  draft(info?: ImageInfo): ImageDraft {
    const files = new Map<string, Uint8Array>();
    const create = (file: string): Sink => {
      const parts: Uint8Array[] = [];
      return {
        write: (bytes) => parts.push(bytes.slice()),
        close: () => files.set(file, Buffer.concat(parts)),
      };
    };
    const commit = () => {
      this.files.clear();
      for (const [file, bytes] of files) this.files.set(file, bytes);
    };
    return draftOn({ create, commit, abort: () => files.clear(), keep: () => this.name }, info);
  }

  names(): string[] {
    return [...this.files.keys()].sort();
  }

  has(file: string): boolean {
    return this.files.has(file);
  }

  open(file: string): Source {
    const bytes = this.files.get(file);
    if (bytes === undefined) throw missing(this.name, file);
    return memorySource(file, bytes);
  }

  close(): void {}
}
