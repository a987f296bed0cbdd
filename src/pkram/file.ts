/**
 * A medium in a file: anywhere, without privilege, and over a power-off where the file system keeps it. On tmpfs it is memory
 * that a process may leave to the next one. Addresses on the medium are positions in the file. Free parts have no blocks.
 *
 * One opens it at a time, by flock(2): the lock goes with the one who holds it, however he ends.
 */
import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../abi/fcntl.ts';
import { MAP_SHARED, PROT_READ } from '../abi/mman.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { alignUp } from '../mem/range.ts';
import { fallocate } from '../sys/files.ts';
import { mmap, munmap } from '../sys/memory.ts';
import { viewMemory } from '../sys/syscall.ts';
import { NoRoomError } from './errors.ts';
import { DATA_START } from './format.ts';
import { openLocked, unlock } from './lock.ts';
import type { Medium, MediumRange } from './medium.ts';
import { Volume } from './volume.ts';

export interface FileOptions {
  /** Make the file where there is none. */
  readonly create?: boolean;
  /** Several can open it so at once. */
  readonly readOnly?: boolean;
  /** Name and version of the program, for a file that is made. */
  readonly writer?: string;
}

const GROWTH = 2 << 20;
/** The file of a directory that is given in place of a file. */
const IN_DIRECTORY = 'pkram';

export class FileMedium implements Medium {
  readonly name: string;
  readonly writable: boolean;
  #size: number;
  readonly #fd: number;
  #map: { address: number; bytes: Uint8Array }[] = [];
  #isOpen = true;

  private constructor(name: string, fd: number, writable: boolean) {
    this.name = name;
    this.#fd = fd;
    this.writable = writable;
    this.#size = fs.fstatSync(fd).size;
  }

  /**
   * Opens the file, or the file in the directory of that path.
   *
   * @throws UnsupportedError where it is in use or is none to be opened; FormatError where it is too short; ENOENT, EACCES of open(2)
   */
  static open(path: string, { create = false, readOnly = false, writer }: FileOptions = {}): FileMedium {
    const isDirectory = fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? path.endsWith('/');
    const file = isDirectory ? join(path, IN_DIRECTORY) : path;
    if (create && !fs.existsSync(file)) FileMedium.#make(file, writer);
    const medium = FileMedium.#lock(file, readOnly ? 'r' : 'r+', !readOnly);
    if (medium.size >= DATA_START) return medium;
    medium.close();
    const [expected, found] = [`at least ${DATA_START} bytes`, `${medium.size}`];
    throw new FormatError({ file, field: 'size', expected, found });
  }

  /** Makes the file under another name first, so that no part of one is ever found. */
  static #make(file: string, writer: string | undefined): void {
    const unfinished = `${file}.new`;
    fs.mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const medium = FileMedium.#lock(unfinished, fs.constants.O_RDWR | fs.constants.O_CREAT, true);
    try {
      if (fs.existsSync(file)) {
        // Somebody else has just made it.
        fs.rmSync(unfinished, { force: true });
        return;
      }
      fs.ftruncateSync(medium.#fd, 0);
      medium.grow(GROWTH);
      Volume.format(medium, writer);
      fs.renameSync(unfinished, file);
    } finally {
      medium.close();
    }
    const directory = fs.openSync(dirname(file), 'r');
    fs.fsyncSync(directory);
    fs.closeSync(directory);
  }

  static #lock(file: string, how: string | number, writable: boolean): FileMedium {
    const fd = openLocked(file, how, writable);
    if (fs.fstatSync(fd).isFile()) return new FileMedium(file, fd, writable);
    fs.closeSync(fd);
    const remedy = 'name a file or a directory';
    throw new UnsupportedError({ what: `preserved memory in ${file}`, why: 'it is no regular file', remedy });
  }

  get size(): number {
    return this.#size;
  }

  get ranges(): readonly MediumRange[] {
    return [{ start: 0, size: this.#size }];
  }

  attach(ranges: readonly MediumRange[]): void {
    const [range] = ranges;
    const wrong = ranges.length !== 1 || range!.start !== 0 || range!.size < DATA_START || range!.size > this.#size;
    if (wrong) {
      const found = ranges.map(({ start, size }) => `${size} from ${start}`).join(', ');
      const expected = `one of at most ${this.#size} bytes from 0, the size of the file`;
      throw new FormatError({ file: this.name, field: 'ranges', expected, found });
    }
    this.#size = range!.size;
  }

  read(address: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const got = fs.readSync(this.#fd, into, done, into.length - done, address + done);
      if (got === 0) {
        const [expected, found] = [`${into.length} bytes`, `${done}`];
        throw new FormatError({ file: this.name, offset: address, field: 'size', expected, found });
      }
      done += got;
    }
  }

  write(address: number, bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += fs.writeSync(this.#fd, bytes, done, bytes.length - done, address + done);
      }
    } catch (error) {
      if (!['ENOSPC', 'EDQUOT', 'EFBIG'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      throw new NoRoomError(`${this.name}: there is no room: ${(error as Error).message}`, { cause: error });
    }
  }

  view(address: number, length: number): Uint8Array | undefined {
    let map = this.#map.at(-1);
    if (map === undefined || map.bytes.length < address + length) {
      const at = mmap({ addr: 0, length: this.#size, prot: PROT_READ, flags: MAP_SHARED, fd: this.#fd, offset: 0 });
      map = { address: at, bytes: viewMemory(at, this.#size) };
      // The one before stays: parts of it are in use.
      this.#map.push(map);
    }
    return map.bytes.subarray(address, address + length);
  }

  sync(): void {
    fs.fdatasyncSync(this.#fd);
  }

  grow(bytes: number): boolean {
    const size = alignUp(this.#size + Math.max(bytes, this.#size / 8), GROWTH);
    try {
      fs.ftruncateSync(this.#fd, size);
    } catch (error) {
      if (['EFBIG', 'ENOSPC', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
      throw error;
    }
    this.#size = size;
    return true;
  }

  release(address: number, length: number): void {
    // A file system without holes keeps the blocks.
    fallocate.attempt({
      fd: this.#fd,
      mode: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
      offset: address,
      len: length,
    });
  }

  unlock(): void {
    unlock(this.#fd);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const { address, bytes } of this.#map) {
      const { length } = bytes;
      // Detaches it, so that whoever still has a part of it finds it empty, and not memory that is not there.
      (bytes.buffer as ArrayBuffer).transfer();
      munmap({ addr: address, length });
    }
    this.#map = [];
    fs.closeSync(this.#fd);
  }
}
