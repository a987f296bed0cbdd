/**
 * Files in preserved memory, the tmpfs of the PKRAM series: with names, modes, owners, times, extended attributes, holes,
 * symbolic and hard links, fifos and devices. A node has one object: the byte stream is the catalogue, the page stream the
 * contents of the files one after the other, each part from a page of its own on.
 */
import * as fs from 'node:fs';
import { basename, resolve } from 'node:path';
import { AT_FDCWD, SEEK_DATA, SEEK_HOLE } from '../abi/fcntl.ts';
import { decodeDevice, encodeDevice } from '../abi/kdev_t.ts';
import { S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK } from '../abi/stat.ts';
import { bytesOf, textOf } from '../abi/text.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { alignUp } from '../mem/range.ts';
import { lseek } from '../sys/files.ts';
import { extendedAttributes, lsetxattr, mknodat, setTimes } from '../sys/inode.ts';
import { type FileRecord, type FileType, readRecords, writeRecord } from './catalogue.ts';
import type { LoadedPages, ObjectReader } from './load.ts';
import type { ObjectSave } from './save.ts';

/** What nodes that hold files say of their content. */
export const FILES_CONTENT = 'files';

export interface FilesCount {
  readonly files: number;
  /** Of contents, holes left out. */
  readonly bytes: number;
}

const CHUNK = 1 << 20;

/**
 * Saves a directory with all that is below it, or several files and directories by their names.
 *
 * @param source a directory, or a list of paths
 * @param onBytes is told how many bytes are done
 * @throws UnsupportedError for a mount point below, and for a file that changes meanwhile
 */
export function preserveFiles(
  object: ObjectSave,
  source: string | readonly string[],
  onBytes: (done: number) => void = () => {},
): FilesCount {
  const saver = new Saver(object, onBytes);
  if (typeof source === 'string') saver.add(resolve(source), '.');
  else for (const path of source) saver.add(resolve(path), basename(resolve(path)));
  return saver.count;
}

class Saver {
  readonly #object: ObjectSave;
  readonly #onBytes: (done: number) => void;
  readonly #buffer = new Uint8Array(CHUNK);
  /** Files of more than one name: the first of them, by device and inode. */
  readonly #linked = new Map<string, string>();
  readonly #paths = new Set<string>();
  #device = 0n;
  #pages = 0;
  #files = 0;
  #bytes = 0;

  constructor(object: ObjectSave, onBytes: (done: number) => void) {
    this.#object = object;
    this.#onBytes = onBytes;
  }

  get count(): FilesCount {
    return { files: this.#files, bytes: this.#bytes };
  }

  /** @param path as it is saved */
  add(from: string, path: string): void {
    if (this.#paths.has(path))
      refuse(from, `another file of the name ${path} is saved with it`, 'save them as two nodes');
    this.#paths.add(path);
    this.#device = lstat(from).dev;
    this.#walk(from, path);
  }

  #walk(from: string, path: string): void {
    const stat = lstat(from);
    const type = typeOf(stat);
    const xattrs = [...extendedAttributes(from)].map(([name, value]) => [name, Buffer.from(value).toString('base64')]);
    const record: FileRecord = {
      path,
      type,
      mode: Number(stat.mode & 0o7777n),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      atime: String(stat.atimeNs),
      mtime: String(stat.mtimeNs),
      ...(xattrs.length > 0 && { xattrs: Object.fromEntries(xattrs) }),
    };
    this.#files++;
    const inode = `${stat.dev}:${stat.ino}`;
    const link = this.#linked.get(inode);
    if (type !== 'directory' && stat.nlink > 1n && link === undefined) this.#linked.set(inode, path);
    if (link !== undefined) this.#write({ ...record, link });
    else if (type === 'file') this.#file(from, record, stat);
    else if (type === 'symlink') {
      this.#write({ ...record, target: textOf(fs.readlinkSync(nameOf(from), { encoding: 'buffer' })) });
    } else if (type === 'directory') {
      if (stat.dev !== this.#device)
        refuse(from, 'another file system is mounted there', 'unmount it, or save it as a node of its own');
      this.#write(record);
      const names = fs.readdirSync(nameOf(from), { encoding: 'buffer' }).map(textOf).sort();
      for (const name of names) this.#walk(`${from}/${name}`, path === '.' ? name : `${path}/${name}`);
    } else {
      const { major, minor } = decodeDevice(Number(stat.rdev));
      const rdev = [major, minor] as const;
      this.#write(type === 'character' || type === 'block' ? { ...record, rdev } : record);
    }
  }

  #file(from: string, record: FileRecord, stat: fs.BigIntStats): void {
    const fd = fs.openSync(nameOf(from), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
    try {
      const size = Number(stat.size);
      const data = dataOf(fd, size);
      this.#write({ ...record, size, data });
      for (const [offset, length] of data) {
        for (let done = 0; done < length; ) {
          const want = Math.min(length - done, CHUNK);
          if (readFully(fd, this.#buffer.subarray(0, want), offset + done) < want) changing(from);
          const pages = this.#buffer.subarray(0, alignUp(want, PAGE_SIZE)).fill(0, want);
          this.#object.savePages(pages, this.#pages);
          this.#pages += pages.length / PAGE_SIZE;
          this.#bytes += want;
          done += want;
          this.#onBytes(this.#bytes);
        }
      }
      const now = fs.fstatSync(fd, { bigint: true });
      if (now.mtimeNs !== stat.mtimeNs || now.size !== stat.size || now.ino !== stat.ino) changing(from);
    } finally {
      fs.closeSync(fd);
    }
  }

  #write(record: FileRecord): void {
    this.#object.write(writeRecord(record));
  }
}

/**
 * Writes the files of an object below a directory, which is made where there is none.
 *
 * @param onBytes is told how many bytes are done
 * @throws FormatError where the object does not hold files; EEXIST for a file that is there already; what the kernel answers
 */
export function restoreFiles(
  object: ObjectReader,
  directory: string,
  source: string,
  onBytes: (done: number) => void = () => {},
): FilesCount {
  const pages = new PageTaker(object, source);
  const finished: { path: string; record: FileRecord }[] = [];
  const root = resolve(directory);
  fs.mkdirSync(root, { recursive: true });
  let files = 0;
  for (const record of readRecords(object, source)) {
    const path = record.path === '.' ? root : `${root}/${record.path}`;
    if (record.link === undefined) {
      create(path, record, pages);
      // What is put into a directory changes its times, and may need permission to.
      if (record.type === 'directory') finished.push({ path, record });
      else setAttributes(path, record);
    } else fs.linkSync(nameOf(`${root}/${record.link}`), nameOf(path));
    files++;
    onBytes(pages.bytes);
  }
  for (const { path, record } of finished.reverse()) setAttributes(path, record);
  return { files, bytes: pages.bytes };
}

function create(path: string, record: FileRecord, pages: PageTaker): void {
  const name = nameOf(path);
  const node = (type: number, [high, low]: readonly [number, number] = [0, 0]) =>
    mknodat({ dirfd: AT_FDCWD, pathname: path, mode: type | 0o600, dev: encodeDevice(high, low) });
  switch (record.type) {
    case 'directory':
      if (!fs.lstatSync(name, { throwIfNoEntry: false })?.isDirectory()) fs.mkdirSync(name, 0o700);
      return;
    case 'file': {
      const fd = fs.openSync(name, 'wx', 0o600);
      try {
        fs.ftruncateSync(fd, record.size);
        for (const [offset, length] of record.data!) pages.copy(fd, offset, length);
      } finally {
        fs.closeSync(fd);
      }
      return;
    }
    case 'symlink':
      fs.symlinkSync(Buffer.from(bytesOf(record.target!)), name);
      return;
    case 'fifo':
      node(S_IFIFO);
      return;
    case 'socket':
      node(S_IFSOCK);
      return;
    case 'character':
      node(S_IFCHR, record.rdev);
      return;
    case 'block':
      node(S_IFBLK, record.rdev);
  }
}

function setAttributes(path: string, { type, mode, uid, gid, atime, mtime, xattrs = {} }: FileRecord): void {
  const stat = lstat(path);
  // In this order: a change of owner takes set-user-id and file capabilities away.
  if (Number(stat.uid) !== uid || Number(stat.gid) !== gid) fs.lchownSync(nameOf(path), uid, gid);
  if (type !== 'symlink') fs.chmodSync(nameOf(path), mode);
  for (const [name, text] of Object.entries(xattrs)) {
    const value = Buffer.from(text, 'base64');
    lsetxattr({ pathname: path, name, value, size: value.length, flags: 0 });
  }
  setTimes(path, { atime: BigInt(atime), mtime: BigInt(mtime) });
}

/** Takes the pages of a stream as the files need them. */
class PageTaker {
  readonly #object: ObjectReader;
  readonly #source: string;
  #loaded: LoadedPages | undefined;
  bytes = 0;

  constructor(object: ObjectReader, source: string) {
    this.#object = object;
    this.#source = source;
  }

  /** Writes the next pages of the stream to a file. */
  copy(fd: number, offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const { index, flags, pages } = this.#loaded ?? this.#object.loadPages() ?? this.#missing();
      const part = pages.subarray(0, Math.min(length - done, pages.length));
      for (let written = 0; written < part.length; ) {
        written += fs.writeSync(fd, part, written, part.length - written, offset + done + written);
      }
      const used = alignUp(part.length, PAGE_SIZE);
      const left = pages.subarray(used);
      this.#loaded = left.length === 0 ? undefined : { index: index + BigInt(used / PAGE_SIZE), flags, pages: left };
      done += part.length;
      this.bytes += part.length;
    }
  }

  #missing(): never {
    const found = 'the end of the page stream';
    throw new FormatError({ file: this.#source, field: 'contents', expected: 'pages for all files', found });
  }
}

/** Parts of a file that are no holes; all of it where the file system does not tell. lseek(2). */
function dataOf(fd: number, size: number): [offset: number, length: number][] {
  const parts: [number, number][] = [];
  for (let at = 0; at < size; ) {
    const start = lseek.attempt({ fd, offset: at, whence: SEEK_DATA });
    // ENXIO: only a hole is left.
    if (start < 0 || start >= size) break;
    const end = Math.min(lseek({ fd, offset: start, whence: SEEK_HOLE }), size);
    parts.push([start, end - start]);
    at = end;
  }
  return parts;
}

function readFully(fd: number, into: Uint8Array, position: number): number {
  let done = 0;
  for (let got = -1; got !== 0 && done < into.length; done += got) {
    got = fs.readSync(fd, into, done, into.length - done, position + done);
  }
  return done;
}

function lstat(path: string): fs.BigIntStats {
  return fs.lstatSync(nameOf(path), { bigint: true });
}

/** A path as Node's fs takes it whatever bytes it has. */
function nameOf(path: string): Buffer {
  return Buffer.from(bytesOf(path));
}

function typeOf(stat: fs.BigIntStats): FileType {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isFIFO()) return 'fifo';
  if (stat.isSocket()) return 'socket';
  return stat.isCharacterDevice() ? 'character' : 'block';
}

function changing(path: string): never {
  return refuse(path, 'it changes while it is saved', 'stop what writes to it');
}

function refuse(path: string, why: string, remedy: string): never {
  throw new UnsupportedError({ what: `saving ${path}`, why, remedy });
}
