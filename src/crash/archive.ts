/**
 * A dump with its log on a device that has no file system: a tar archive (POSIX.1-2017, pax, ustar Interchange Format), in 512 bytes
 *
 *     | HOST-DATE/ | header | vmcore-dmesg.txt ... | header | why.txt ... | header | vmcore ... | zeros | zeros |
 *
 * A header is written when what follows it is on the disk, over the zeros that ended the archive until then: power that goes
 * away leaves the files that were whole. How long a file is need not be known before.
 */
import { bytes, chars, struct } from '../abi/struct.ts';
import { FormatError } from '../errors.ts';
import type { Output } from './io/output.ts';
import type { Reader } from './io/reader.ts';

const BLOCK = 512;
const MAGIC = 'ustar';
const DIRECTORY = '5';
const REGULAR = '0';

/** Numbers are octal digits. A size beyond 8 GiB is binary, as tar of GNU and of BSD have it: 0x80 first, then big-endian. */
const ustar = struct('ustar', BLOCK, {
  name: chars(100),
  mode: chars(8),
  uid: chars(8),
  gid: chars(8),
  size: bytes(12),
  mtime: chars(12),
  chksum: chars(8),
  typeflag: chars(1),
  linkname: chars(100),
  magic: chars(6),
  version: chars(2),
  uname: chars(32),
  gname: chars(32),
  devmajor: chars(8),
  devminor: chars(8),
  prefix: chars(155),
  padding: bytes(12),
});

const MAX_OCTAL = 8 ** 11 - 1;

interface Entry {
  readonly name: string;
  readonly isFolder: boolean;
  /** Of what follows the header, in bytes. */
  readonly size: number;
}

function encode({ name, isFolder, size }: Entry, seconds: number): Uint8Array {
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0');
  const length = Buffer.alloc(12);
  if (size <= MAX_OCTAL) length.write(octal(size, 11), 'latin1');
  else {
    length[0] = 0x80;
    length.writeBigUInt64BE(BigInt(size), 4);
  }
  const header = ustar.write({
    name,
    mode: octal(isFolder ? 0o700 : 0o600, 7),
    uid: octal(0, 7),
    gid: octal(0, 7),
    size: length,
    mtime: octal(seconds, 11),
    chksum: ' '.repeat(8),
    typeflag: isFolder ? DIRECTORY : REGULAR,
    magic: MAGIC,
    version: '00',
    devmajor: octal(0, 7),
    devminor: octal(0, 7),
  });
  header.set(Buffer.from(`${octal(sum(header), 6)}\0 `, 'latin1'), ustar.offsets.chksum);
  return header;
}

/** Undefined for what is no header, zeros among it. */
function decode(block: Uint8Array): Entry | undefined {
  if (block.length < BLOCK) return undefined;
  const { name, size, magic, chksum, typeflag } = ustar.read(block);
  const blank = Buffer.from(block).fill(' ', ustar.offsets.chksum, ustar.offsets.chksum + 8);
  if (!magic.startsWith(MAGIC) || Number.parseInt(chksum, 8) !== sum(blank)) return undefined;
  const binary = Buffer.from(size);
  const length = size[0] === 0x80 ? Number(binary.readBigUInt64BE(4)) : Number.parseInt(binary.toString('latin1'), 8);
  return Number.isSafeInteger(length) ? { name, isFolder: typeflag === DIRECTORY, size: length } : undefined;
}

/** Of all bytes, those of chksum taken as blanks. */
function sum(header: Uint8Array): number {
  return header.reduce((total, byte) => total + byte, 0);
}

/** The folder with which an archive begins, `HOST-DATE`. @param head its first 512 bytes @returns undefined for what is none */
export function archivedFolder(head: Uint8Array): string | undefined {
  const entry = decode(head.subarray(0, BLOCK));
  return entry?.isFolder === true ? entry.name.replace(/\/$/, '') : undefined;
}

/** Files of an archive, as they stand in it. Ends where the archive does. */
export function* archivedFiles(reader: Reader): Generator<{ readonly name: string; readonly file: Reader }> {
  const block = new Uint8Array(BLOCK);
  for (let at = 0; ; ) {
    const entry = decode(block.subarray(0, reader.read(at, block)));
    if (entry === undefined) return;
    const start = at + BLOCK;
    if (!entry.isFolder) yield { name: entry.name.replace(/^.*\//, ''), file: partOf(reader, start, entry.size) };
    at = start + padded(entry.size);
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

function padded(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK;
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
    output.write(0, encode({ name: `${folder}/`, isFolder: true, size: 0 }, this.#seconds));
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
      this.#output.write(start + size, new Uint8Array(padded(size) - size + END.length));
      this.#output.sync();
    } catch (error) {
      this.#output.write(this.#at, END);
      throw error;
    }
    this.#output.write(this.#at, encode({ name: `${this.#folder}/${name}`, isFolder: false, size }, this.#seconds));
    this.#output.sync();
    this.#at = start + padded(size);
  }
}

/** Two blocks of zeros. */
const END = new Uint8Array(2 * BLOCK);
