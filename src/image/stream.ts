/**
 * An image as a stream, `checkpoint -D - | ssh B tideover restore -D -`: a tar archive that is written and read once,
 * forwards (docs/adr/0005-image-stream.md). `tar x` makes of it the directory that CRIU knows, `tar c` a stream of
 * such a directory.
 *
 *     tideover.json, small images, pages-1.img, pages-2.img ..., tideover.sums
 *
 * Small images are kept in memory on both sides: the writer has to know a file's size before its first byte, and the reader
 * is asked for them in any order. Pages pass through.
 */
import * as fs from 'node:fs';
import { FormatError, SyscallError, UnsupportedError } from '../errors.ts';
import type { ImageInfo } from './info.ts';
import {
  draftOn,
  type ImageDraft,
  type ImageStore,
  isImageFile,
  memorySource,
  missing,
  type Sink,
  type Source,
} from './store.ts';
import { SUMS_FILE } from './sums.ts';
import { BLOCK, fileHeader, paddingOf, readHeader } from './tar.ts';
import { isRaw } from './types.ts';

/** Of all small images of one stream together, in bytes: a tree of a thousand processes has some 100 MiB. */
const MAX_KEPT = 256 << 20;

/** What goes through a pipe at once as long as nobody has widened it, in bytes. */
const GATHERED = 64 << 10;

/** Of pages that are read before they are asked for, at most, in bytes. */
const AHEAD = 4 << 20;

/** Memory is taken as the bytes come, not as a header promises them. */
const PIECE = 1 << 20;

/**
 * Begins an image on a file descriptor. Abort only leaves the stream without its end, which the reader then says.
 *
 * @param wait for a pipe that is full, or empty: returns when that may be over
 * @param taken waits until the other side has read what is announced
 * @param over waits until the other side has done what it does with the image, if it is a matter of moments
 */
export function createStream(
  fd: number,
  info: ImageInfo | undefined,
  { wait = pause, taken = () => {}, over = () => {} }: Partial<Record<'wait' | 'taken' | 'over', () => void>> = {},
): ImageDraft {
  const writeFully = (bytes: Uint8Array): void => {
    for (let done = 0; done < bytes.length; ) done += patiently('write', wait, () => fs.writeSync(fd, bytes, done));
  };
  // Thousands of small files, each a write of its own, would wake the reader as often.
  const gathered = new Uint8Array(GATHERED);
  let filled = 0;
  const flush = (): void => {
    writeFully(gathered.subarray(0, filled));
    filled = 0;
  };
  const put = (bytes: Uint8Array): void => {
    if (bytes.length > GATHERED - filled) flush();
    if (bytes.length > GATHERED) writeFully(bytes);
    else {
      gathered.set(bytes, filled);
      filled += bytes.length;
    }
  };
  let kept = 0;
  let pages: string | undefined;

  const create = (file: string, size: number | undefined): Sink => {
    if (pages !== undefined) throw new Error(`${file} is begun in a stream while ${pages} is being written`);
    if (isRaw(file) && size !== undefined) {
      pages = file;
      return passing(file, size);
    }
    const parts: Uint8Array[] = [];
    return {
      write(bytes) {
        kept += bytes.length;
        if (kept > MAX_KEPT) throw tooLarge(file);
        parts.push(bytes.slice());
      },
      close() {
        if (pages !== undefined) throw new Error(`${file} ends in a stream while ${pages} is being written`);
        const bytes = Buffer.concat(parts);
        put(fileHeader(file, bytes.length));
        put(bytes);
        put(new Uint8Array(paddingOf(bytes.length)));
        kept -= bytes.length;
        // The last one: whether all could be written is known then.
        if (file === SUMS_FILE) flush();
      },
    };
  };

  const passing = (file: string, size: number): Sink => {
    let left = size;
    put(fileHeader(file, size));
    // While pages are still to be read the other side can take the rest apart.
    flush();
    return {
      write(bytes) {
        left -= bytes.length;
        if (left < 0) throw new Error(`${file} has more than the ${size} bytes that it was begun with`);
        put(bytes);
      },
      close() {
        if (left > 0) throw new Error(`${file} lacks ${left} of the ${size} bytes that it was begun with`);
        put(new Uint8Array(paddingOf(size)));
        pages = undefined;
      },
    };
  };

  const commit = () => {
    put(new Uint8Array(2 * BLOCK));
    flush();
    over();
  };
  const keep = () => 'the stream, which lacks its end';
  const announce = () => {
    flush();
    taken();
  };
  return { ...draftOn({ create, announce, commit, abort() {}, keep }, info), commitsToReader: true };
}

/**
 * The image that comes from a file descriptor. Opening a small image reads on until it has come; pages have to be read in the
 * order of the stream, and each byte once.
 *
 * @param name for messages
 * @param wait as in createStream()
 * @param holds how much the other side gets rid of before anything is read, in bytes
 */
export function openStream(
  fd: number,
  name = 'stream',
  { wait = pause, holds = 0 }: { wait?: () => void; holds?: number } = {},
): ImageStore {
  const kept = new Map<string, Uint8Array>();
  let keptBytes = 0;
  let position = 0;
  let ended = false;
  /** The pages that the stream stands in, and how much of them, with the padding, is still to come. */
  let current: { file: string; size: number; read: number } | undefined;

  let gathered = new Uint8Array(GATHERED);
  let [from, to] = [0, 0];
  const readInto = (bytes: Uint8Array): number =>
    patiently('read', wait, () => fs.readSync(fd, bytes, 0, bytes.length, null));
  /** 0 at the end. */
  const readSome = (into: Uint8Array): number => {
    if (into.length === 0) return 0;
    if (from === to) {
      if (into.length >= GATHERED) return readInto(into);
      [from, to] = [0, readInto(gathered)];
    }
    const some = gathered.subarray(from, Math.min(to, from + into.length));
    into.set(some);
    from += some.length;
    return some.length;
  };

  const readExactly = (count: number): Uint8Array => {
    const bytes = new Uint8Array(count);
    let done = 0;
    while (done < count) {
      const got = readSome(bytes.subarray(done));
      if (got === 0) {
        const field = current?.file ?? 'archive';
        throw new FormatError({
          file: name,
          offset: position + done,
          field,
          expected: 'more',
          found: 'the end of the stream',
        });
      }
      done += got;
    }
    position += count;
    return bytes;
  };

  /**
   * Takes pages off the pipe before anybody asks for them, if they are few: what they are of ends when the writer has got rid of
   * all, and can then do so while its restore is being prepared.
   */
  const readAhead = (size: number): void => {
    if (size > AHEAD || size <= to - from || 2 * size <= holds) return;
    const room = new Uint8Array(Math.max(GATHERED, size));
    room.set(gathered.subarray(from, to));
    [gathered, from, to] = [room, 0, to - from];
    for (let got = 1; got > 0 && to < size; to += got) got = readInto(gathered.subarray(to, size));
  };

  /** Keeps the next small image, or goes to the next pages, or to the end. Pages that were begun are passed over. */
  const advance = (): void => {
    while (current !== undefined) {
      const left = current.size - current.read;
      if (left === 0) {
        readExactly(paddingOf(current.size));
        current = undefined;
      } else current.read += readExactly(Math.min(left, PIECE)).length;
    }
    for (;;) {
      const header = readHeader(readExactly, name, () => position);
      if (header === undefined) {
        ended = true;
        return;
      }
      const file = header.name.replace(/^(\.\/)+/, '');
      if (header.type === '5') continue;
      if (header.type !== '0' || !isImageFile(file)) {
        throw new UnsupportedError({
          what: `${name}: ${header.name}`,
          why: `it is in the archive and no file of an image (type ${header.type})`,
          remedy: 'unpack the archive and restore from the directory',
        });
      }
      if (/^pages-/.test(file)) {
        current = { file, size: header.size, read: 0 };
        readAhead(header.size);
        return;
      }
      keptBytes += header.size;
      if (keptBytes > MAX_KEPT) throw tooLarge(file);
      const parts: Uint8Array[] = [];
      for (let left = header.size; left > 0; left -= parts.at(-1)!.length)
        parts.push(readExactly(Math.min(left, PIECE)));
      kept.set(file, Buffer.concat(parts));
      readExactly(paddingOf(header.size));
      return;
    }
  };

  const takePages = (pages: { file: string; size: number; read: number }): void => {
    if (pages.read > 0) throw passedBy(pages.file);
    const bytes = new Uint8Array(pages.size);
    for (let done = 0, got = 1; done < bytes.length; done += got) {
      got = readSome(bytes.subarray(done, done + PIECE));
      if (got === 0) readExactly(1);
      position += got;
    }
    kept.set(pages.file, bytes);
    readExactly(paddingOf(pages.size));
    current = undefined;
  };

  const passedBy = (what: string): UnsupportedError =>
    new UnsupportedError({
      what,
      why: `a stream is read once, and it stands at byte ${current?.read ?? 0} of ${current?.file ?? 'its end'}`,
      remedy: 'unpack the archive and restore from the directory',
    });

  const passing = (of: { file: string; size: number; read: number }): Source => ({
    name: `${name}: ${of.file}`,
    size: of.size,
    read(into, at) {
      if (current !== of || at !== of.read) throw passedBy(`${of.file} at byte ${at}`);
      const got = readSome(into.subarray(0, Math.min(into.length, of.size - of.read)));
      if (got === 0 && of.read < of.size && into.length > 0) readExactly(1);
      position += got;
      of.read += got;
      return got;
    },
    close() {},
  });

  const seek = (file: string): void => {
    // Sums stand at the end, behind all pages.
    while (!ended && !kept.has(file) && current?.file !== file) {
      if (current !== undefined && current.read < current.size && file !== SUMS_FILE) return;
      advance();
    }
  };

  return {
    name,
    forwards: true,
    names() {
      if (!ended && current?.read === current?.size) advance();
      while (!ended && current === undefined) advance();
      return [...kept.keys(), ...(current === undefined ? [] : [current.file])].sort();
    },
    has(file) {
      seek(file);
      return kept.has(file) || current?.file === file;
    },
    open(file) {
      seek(file);
      const bytes = kept.get(file);
      if (bytes !== undefined) return memorySource(`${name}: ${file}`, bytes);
      if (current?.file === file) return passing(current);
      throw ended ? missing(name, file) : passedBy(file);
    },
    takeAll() {
      // Behind the sums there is but the end, and that comes when what the image is of has ended.
      while (!ended && !kept.has(SUMS_FILE)) {
        if (current !== undefined && current.read < current.size) takePages(current);
        else advance();
      }
    },
    close() {},
  };
}

function tooLarge(file: string): UnsupportedError {
  return new UnsupportedError({
    what: file,
    why: `with it a stream's small images take more than ${MAX_KEPT >> 20} MiB, which are kept in memory`,
    remedy: 'use a directory for this image',
  });
}

const never = new Int32Array(new SharedArrayBuffer(4));

function pause(): void {
  Atomics.wait(never, 0, 0, 1);
}

/** Also on a pipe that is not blocking. */
function patiently(syscall: string, wait: () => void, perform: () => number): number {
  for (;;) {
    try {
      return perform();
    } catch (error) {
      const { code, errno } = error as NodeJS.ErrnoException;
      if (code === 'EAGAIN') wait();
      else if (code === 'EOF') return 0;
      else if (errno !== undefined) throw new SyscallError(syscall, `${syscall}(stream)`, -errno);
      else throw error;
    }
  }
}
