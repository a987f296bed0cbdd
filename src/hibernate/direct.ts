/**
 * Reading and writing a disk past the page cache: O_DIRECT of open(2). The kernels that save and restore have little memory, and what
 * goes through the cache is copied once more, by the page, and waits there for its turn.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { writeAt } from '../crash/io/output.ts';
import { Region } from '../sys/region.ts';

/** What places, lengths and memory are a multiple of: at least a disk's sector, whichever that is. */
const UNIT = 4096;
/** Less is not worth a transfer of its own. */
const LARGE = 1 << 16;
const BUFFER = 4 << 20;

const aligned = new WeakSet<ArrayBufferLike>();

/** Memory that can be written from directly. It is never given back. */
export function pageAligned(size: number): Uint8Array {
  const { bytes } = new Region(size);
  aligned.add(bytes.buffer);
  return bytes;
}

export class DirectFile {
  readonly #fd: number;
  #buffer: Uint8Array | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @returns undefined where there is no such way: a file system in memory */
  static open(path: string, access: 'read' | 'write'): DirectFile | undefined {
    try {
      return new DirectFile(openSync(path, (access === 'write' ? constants.O_RDWR : 0) | constants.O_DIRECT));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
      throw error;
    }
  }

  /** @returns false where it is not to be written so, and was not */
  write(position: number, bytes: Uint8Array): boolean {
    if (!isAligned(position, bytes)) return false;
    writeAt(this.#fd, position, bytes);
    return true;
  }

  /** @returns how many bytes there were before the end; undefined where it is not to be read so, and was not */
  read(position: number, into: Uint8Array): number | undefined {
    if (into.length < LARGE) return undefined;
    if (isAligned(position, into)) return this.#readAligned(position, into);
    this.#buffer ??= pageAligned(BUFFER);
    for (let done = 0; done < into.length; ) {
      const skip = (position + done) % UNIT;
      const wanted = Math.min(BUFFER, Math.ceil((skip + into.length - done) / UNIT) * UNIT);
      const count = readSync(this.#fd, this.#buffer, 0, wanted, position + done - skip);
      const part = this.#buffer.subarray(skip, Math.min(Math.max(count, skip), skip + into.length - done));
      if (part.length === 0) return done;
      into.set(part, done);
      done += part.length;
    }
    return into.length;
  }

  #readAligned(position: number, into: Uint8Array): number {
    let done = 0;
    // Where the file ends within a block, what comes next is not aligned, and nothing.
    while (done < into.length && done % UNIT === 0) {
      const count = readSync(this.#fd, into, done, into.length - done, position + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function isAligned(position: number, bytes: Uint8Array): boolean {
  const isWhole = position % UNIT === 0 && bytes.length % UNIT === 0 && bytes.byteOffset % UNIT === 0;
  return isWhole && aligned.has(bytes.buffer);
}
