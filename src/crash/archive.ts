/**
 * A dump with its log on a device that has no file system: a tar archive (POSIX.1-2017, pax, ustar Interchange Format), in 512 bytes
 *
 *     | HOST-DATE/ | header | vmcore-dmesg.txt ... | header | why.txt ... | header | vmcore ... | zeros | zeros |
 *
 * A header is written when what follows it is on the disk, over the zeros that ended the archive until then: power that goes
 * away leaves the files that were whole. How long a file is need not be known before.
 */
import { bytesOf } from '../abi/text.ts';
import { FormatError } from '../errors.ts';
import { BLOCK, block, paddingOf, readHeader, type TarHeader } from '../image/tar.ts';
import type { Output } from './io/output.ts';
import type { Reader } from './io/reader.ts';

const DIRECTORY = '5';
const REGULAR = '0';

/** One block whatever the size, for its place is known before the size is. */
function encode(name: string, type: string, size: number, mtime: number): Uint8Array {
  const mode = type === DIRECTORY ? 0o700 : 0o600;
  const none = { uid: 0, gid: 0, linkname: new Uint8Array(0), major: 0, minor: 0 };
  return block({ ...none, name: bytesOf(name), type, size, mode, mtime });
}

/** Undefined for what is no header, zeros among it, and for one that goes on in further blocks: no archive of this kind has it. */
function decode(head: Uint8Array): TarHeader | undefined {
  let isTaken = head.length < BLOCK;
  const read = () => {
    if (isTaken) throw new FormatError({ file: '', field: 'tar header', expected: 'one block', found: 'more' });
    isTaken = true;
    return head.subarray(0, BLOCK);
  };
  try {
    return readHeader(read, '', () => 0);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** The folder with which an archive begins, `HOST-DATE`. @param head its first 512 bytes @returns undefined for what is none */
export function archivedFolder(head: Uint8Array): string | undefined {
  const entry = decode(head);
  return entry?.type === DIRECTORY ? entry.name.replace(/\/$/, '') : undefined;
}

/** Files of an archive, as they stand in it. Ends where the archive does. */
export function* archivedFiles(reader: Reader): Generator<{ readonly name: string; readonly file: Reader }> {
  const head = new Uint8Array(BLOCK);
  for (let at = 0; ; ) {
    const entry = decode(head.subarray(0, reader.read(at, head)));
    if (entry === undefined) return;
    const start = at + BLOCK;
    if (entry.type !== DIRECTORY)
      yield { name: entry.name.replace(/^.*\//, ''), file: partOf(reader, start, entry.size) };
    at = start + entry.size + paddingOf(entry.size);
  }
}

function partOf(reader: Reader, start: number, size: number): Reader {
  return {
    name: reader.name,
    size,
    read(position, into) {
      const length = Math.max(0, Math.min(into.length, size - position));
      return length === 0 ? 0 : reader.read(start + position, into.subarray(0, length));
    },
    close: () => reader.close(),
  };
}

/** The dump in an archive, or the reader itself where it is none. @throws FormatError for an archive without one */
export function dumpIn(reader: Reader): Reader {
  const head = new Uint8Array(BLOCK);
  if (archivedFolder(head.subarray(0, reader.read(0, head))) === undefined) return reader;
  const names: string[] = [];
  for (const { name, file } of archivedFiles(reader)) {
    if (name === 'vmcore') return file;
    names.push(name);
  }
  const found = `${names.join(', ') || 'nothing'}: tar -xf ${reader.name}`;
  throw new FormatError({ file: reader.name, field: 'files in the archive', expected: 'vmcore', found });
}

/** Where an archive is written to. */
export interface SyncedOutput extends Output {
  /** What was written is on the disk when this returns. */
  sync(): void;
}

export class ArchiveWriter {
  readonly #output: SyncedOutput;
  readonly #folder: string;
  readonly #seconds: number;
  /** Of the next header, where zeros are now. */
  #at = BLOCK;

  /** Begins an archive in place of what was there. @throws the output's errors */
  constructor(output: SyncedOutput, folder: string, date: Date) {
    this.#output = output;
    this.#folder = folder;
    this.#seconds = Math.floor(date.getTime() / 1000);
    output.write(BLOCK, END);
    output.sync();
    output.write(0, encode(`${folder}/`, DIRECTORY, 0, this.#seconds));
    output.sync();
  }

  /** A file, which is in the archive when all of it is on the disk. What fails leaves the files before it. @throws its errors */
  async add(name: string, pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    const start = this.#at + BLOCK;
    let size = 0;
    try {
      for await (const piece of pieces) {
        this.#output.write(start + size, piece);
        size += piece.length;
      }
      this.#output.write(start + size, new Uint8Array(paddingOf(size) + END.length));
      this.#output.sync();
    } catch (error) {
      this.#output.write(this.#at, END);
      throw error;
    }
    this.#output.write(this.#at, encode(`${this.#folder}/${name}`, REGULAR, size, this.#seconds));
    this.#output.sync();
    this.#at = start + size + paddingOf(size);
  }
}

/** Two blocks of zeros. */
const END = new Uint8Array(2 * BLOCK);
