/**
 * What is in a tmpfs that a tree has for itself, as an archive of tar(1) packed with gzip(1): tmpfs-dev-N.tar.gz.img, as CRIU has
 * it made by these programs. Sockets are left out, as by tar: their owners make them again.
 */
import { chmodSync, lchownSync, linkSync, lstatSync, mkdirSync, opendirSync, readlinkSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_RDONLY,
  O_WRONLY,
} from '../abi/fcntl.ts';
import { encodeDevice } from '../abi/kdev_t.ts';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, type Statx } from '../abi/stat.ts';
import { timespec } from '../abi/time.ts';
import { FormatError } from '../errors.ts';
import { type ImageStore, readWhole, withSource } from '../image/store.ts';
import { BLOCK, header, paddingOf, readHeader, type TarEntry, type TarHeader } from '../image/tar.ts';
import { attributes, close, ftruncate, mknodat, openat, pread64, utimensat } from '../sys/files.ts';
import { dataRanges, writeAt } from './files/holes.ts';
import { Root } from './root.ts';

/** Packed pieces, which follow one another: gzip(1) takes them for one. */
export type Archive = readonly Uint8Array[];

const TYPES = new Map([
  [S_IFREG, '0'],
  [S_IFLNK, '2'],
  [S_IFCHR, '3'],
  [S_IFBLK, '4'],
  [S_IFDIR, '5'],
  [S_IFIFO, '6'],
]);

/** Bytes that are packed at a time. */
const PIECE = 4 << 20;

/** @param fd of a mount of it; what is mounted below is left out */
export function saveContent(fd: number): Archive {
  const parts: Uint8Array[] = [];
  const packing = new Packing(parts);
  const mount = attributes(fd, '', AT_EMPTY_PATH).stx_mnt_id;
  const links = new Map<bigint, string>();
  const add = (name: string): void => {
    const at = `/proc/self/fd/${fd}/${name}`;
    const stat = attributes(AT_FDCWD, at, AT_SYMLINK_NOFOLLOW);
    const kind = stat.stx_mode & S_IFMT;
    const type = TYPES.get(kind);
    if (type === undefined) return;
    const known = stat.stx_nlink > 1 && kind !== S_IFDIR ? links.get(stat.stx_ino) : undefined;
    const shown = kind === S_IFDIR ? `${name}/` : name;
    const size = kind === S_IFREG && known === undefined ? stat.stx_size : 0;
    const linkname = known ?? (kind === S_IFLNK ? readlinkSync(at) : '');
    packing.add(header({ ...about(stat), name: shown, type: known === undefined ? type : '1', size, linkname }));
    links.set(stat.stx_ino, name);
    if (size > 0) addFile(packing, at, size);
    if (kind !== S_IFDIR || stat.stx_mnt_id !== mount) return;
    using directory = opendirSync(at);
    for (let each = directory.readSync(); each !== null; each = directory.readSync()) add(join(name, each.name));
  };
  add('.');
  packing.add(new Uint8Array(2 * BLOCK));
  packing.end();
  return parts;
}

function about(stat: Statx): Omit<TarEntry, 'name' | 'type' | 'size' | 'linkname'> {
  return {
    mode: stat.stx_mode & 0o7777,
    uid: stat.stx_uid,
    gid: stat.stx_gid,
    mtime: { tv_sec: stat.stx_mtime.tv_sec, tv_nsec: stat.stx_mtime.tv_nsec },
    major: stat.stx_rdev_major,
    minor: stat.stx_rdev_minor,
  };
}

/** With zeros for its holes. */
function addFile(packing: Packing, pathname: string, size: number): void {
  const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  try {
    let done = 0;
    for (const [start, end] of dataRanges(fd, size)) {
      packing.zeros(start - done);
      for (done = start; done < end; ) {
        const buf = new Uint8Array(Math.min(end - done, 1 << 19));
        const got = pread64({ fd, buf, count: buf.length, offset: done });
        if (got === 0) break;
        packing.add(buf.subarray(0, got));
        done += got;
      }
    }
    packing.zeros(size - done + paddingOf(size));
  } finally {
    close({ fd });
  }
}

/** Takes bytes and packs them when there are enough. */
class Packing {
  readonly #into: Uint8Array[];
  #waiting: Uint8Array[] = [];
  #size = 0;

  constructor(into: Uint8Array[]) {
    this.#into = into;
  }

  add(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    this.#size += bytes.length;
    if (this.#size >= PIECE) this.end();
  }

  zeros(count: number): void {
    for (let left = count; left > 0; left -= PIECE) this.add(new Uint8Array(Math.min(left, PIECE)));
  }

  /** The lowest level: the tree stands still meanwhile. */
  end(): void {
    if (this.#size > 0) this.#into.push(gzipSync(Buffer.concat(this.#waiting), { level: 1 }));
    this.#waiting = [];
    this.#size = 0;
  }
}

/** Puts the content back. @param fd of a mount of an empty one @throws FormatError */
export function restoreContent(store: ImageStore, file: string, fd: number): void {
  const packed = withSource(store, file, (source) => readWhole(source, source.size));
  let bytes: Uint8Array;
  try {
    bytes = gunzipSync(packed);
  } catch (error) {
    throw new FormatError({ file, field: 'gzip', expected: 'an archive', found: (error as Error).message });
  }
  let at = 0;
  const read = (count: number): Uint8Array => {
    at += count;
    if (at <= bytes.length) return bytes.subarray(at - count, at);
    throw new FormatError({ file, offset: at - count, field: 'archive', expected: 'more', found: 'its end' });
  };
  // A name or link in the archive leads nowhere else.
  const root = new Root(fd);
  root.within(() => {
    const directories: TarHeader[] = [];
    for (let each = readHeader(read, file, () => at); each !== undefined; each = readHeader(read, file, () => at)) {
      const content = read(each.size);
      read(paddingOf(each.size));
      const path = join('/', each.name);
      make(each, path, content);
      if (each.type === '5') directories.push(each);
      else if (each.type !== '1') finish(each, path);
    }
    // What is put into them changes their times.
    for (const each of directories.reverse()) finish(each, join('/', each.name));
  });
}

function make(entry: TarHeader, path: string, content: Uint8Array): void {
  const { type, mode, linkname, major, minor } = entry;
  const node = (kind: number) => {
    const dev = type === '6' ? 0 : encodeDevice(major, minor);
    mknodat({ dirfd: AT_FDCWD, pathname: path, mode: kind | (mode & 0o7777), dev });
  };
  if (type === '0') writeFile(entry, path, content);
  else if (type === '1') linkSync(join('/', linkname), path);
  else if (type === '2') symlinkSync(linkname, path);
  else if (type === '3') node(S_IFCHR);
  else if (type === '4') node(S_IFBLK);
  else if (type === '5') {
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) mkdirSync(path);
  } else if (type === '6') node(S_IFIFO);
}

function writeFile({ size, sparse }: TarHeader, pathname: string, content: Uint8Array): void {
  const flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  const fd = openat({ dirfd: AT_FDCWD, pathname, flags, mode: 0o600 });
  try {
    ftruncate({ fd, length: sparse?.size ?? size });
    let at = 0;
    for (const piece of sparse?.pieces ?? [{ offset: 0, size }]) {
      writeData(fd, content.subarray(at, at + piece.size), piece.offset);
      at += piece.size;
    }
  } finally {
    close({ fd });
  }
}

const PAGE = 4096;

/** Pages of zeros become holes. */
function writeData(fd: number, bytes: Uint8Array, offset: number): void {
  const isData = (at: number) =>
    ZEROS.compare(bytes, at, Math.min(at + PAGE, bytes.length), 0, Math.min(PAGE, bytes.length - at)) !== 0;
  for (let at = 0; at < bytes.length; ) {
    let end = at;
    while (end < bytes.length && isData(end)) end += PAGE;
    if (end > at) writeAt(fd, bytes.subarray(at, end), offset + at);
    at = end === at ? at + PAGE : end;
  }
}

const ZEROS = Buffer.alloc(PAGE);

function finish({ type, mode, uid, gid, mtime }: TarHeader, path: string): void {
  lchownSync(path, uid, gid);
  if (type !== '2') chmodSync(path, mode & 0o7777);
  const times = Buffer.concat([timespec.write(mtime), timespec.write(mtime)]);
  utimensat({ dirfd: AT_FDCWD, pathname: path, times, flags: AT_SYMLINK_NOFOLLOW });
}
