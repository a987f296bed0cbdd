/**
 * Where an image lies: a block device, or a file on one, whose blocks are read and written on the device itself, as no file system
 * of the machine may be mounted by the kernel that saves it or brings it back; or a file of a server. All are seen as one row of bytes.
 */
import { closeSync, fsyncSync, openSync, statSync } from 'node:fs';
import { openFile } from '../crash/io/file.ts';
import { type Output, writeAt } from '../crash/io/output.ts';
import type { Reader } from '../crash/io/reader.ts';
import { UnsupportedError } from '../errors.ts';
import { blockDevice, numberOf } from '../sys/devices.ts';
import { type Extent, extentsOf } from '../sys/extents.ts';
import { type Identity, identityOf } from '../target/identity.ts';
import { type Remote, readRemote, syncRemote, writeRemote } from '../target/sftp.ts';
import { DirectFile } from './direct.ts';

export interface Place {
  /** Of a block device, or of a file that is read and written as such. */
  readonly path: string;
  /** Where on it the pieces of the image are, in their order and without gaps; undefined where it is the whole. */
  readonly extents?: readonly Extent[];
  /** It is on NFS: read and written through the page cache. */
  readonly isCached?: true;
  /** Of a file that another process reads and writes: `path` is only its name. One thread at a time can use it. */
  readonly remote?: Remote;
}

/** The place of an image that a path names: a block device, or a file of a mounted file system on one. @throws UnsupportedError */
export function placeOf(path: string): Place {
  const stat = statSync(path);
  if (stat.isBlockDevice()) return { path };
  if (!stat.isFile()) {
    throw new UnsupportedError({ what: path, why: 'it is neither a disk nor a file', remedy: 'give one of these' });
  }
  const { device, extents } = extentsOf(path);
  return { path: device, extents };
}

/** A place as a later boot knows it again, which may call its disk something else. */
export interface BoundPlace {
  readonly disk: Identity;
  readonly extents?: readonly Extent[];
}

export function boundPlaceOf({ path, extents }: Place): BoundPlace {
  const number = numberOf(path);
  if (number === undefined) {
    throw new UnsupportedError({
      what: path,
      why: 'the kernel does not show it as a disk in /sys/class/block',
      remedy: 'give a disk, a partition, or a file on one',
    });
  }
  const identity = identityOf(blockDevice(number));
  // What a disk for images holds now is overwritten.
  return extents === undefined ? { disk: { ...identity, content: undefined } } : { disk: identity, extents };
}

/** Calls for each part of `length` bytes from `position` that is in one piece. @returns how many bytes there are */
function eachPiece(
  extents: readonly Extent[],
  position: number,
  length: number,
  take: (at: number, done: number, count: number) => number,
): number {
  let low = 0;
  for (let high = extents.length - 1; low < high; ) {
    const middle = (low + high + 1) >>> 1;
    if (extents[middle]!.start <= position) low = middle;
    else high = middle - 1;
  }
  let done = 0;
  for (let i = low; i < extents.length && done < length; i++) {
    const { start, at, length: size } = extents[i]!;
    const within = position + done - start;
    if (within >= size) break;
    const count = Math.min(length - done, size - within);
    const taken = take(at + within, done, count);
    done += taken;
    if (taken < count) break;
  }
  return done;
}

/** @param direct what is read in large pieces goes past the page cache, where that can be */
export function openReader({ path, extents, isCached, remote }: Place, { direct: isDirect = false } = {}): Reader {
  if (remote !== undefined) {
    const read = (position: number, into: Uint8Array) => readRemote(remote, position, into);
    return { name: path, size: Number.POSITIVE_INFINITY, read, close: () => {} };
  }
  const direct = isDirect && !isCached ? DirectFile.open(path, 'read') : undefined;
  const file = openFile(path);
  const read: Reader['read'] = (position, into) => direct?.read(position, into) ?? file.read(position, into);
  const close = () => {
    file.close();
    direct?.close();
  };
  if (extents === undefined) return { ...file, read, close };
  const last = extents.at(-1)!;
  return {
    name: path,
    size: last.start + last.length,
    read: (position, into) =>
      eachPiece(extents, position, into.length, (at, done, count) => read(at, into.subarray(done, done + count))),
    close,
  };
}

export interface OpenOutput extends Output {
  /** What was written is on the disk when this returns. */
  sync(): void;
  close(): void;
}

/**
 * @param direct writes past the page cache what can be
 * @throws the system's error; ENOSPC behind the last piece
 */
export function openOutput({ path, extents, isCached, remote }: Place, { direct: isDirect = false } = {}): OpenOutput {
  if (remote !== undefined) {
    const write = (position: number, bytes: Uint8Array) => writeRemote(remote, position, bytes);
    return { write, sync: () => syncRemote(remote), close: () => {} };
  }
  const fd = openSync(path, 'r+');
  const direct = isDirect && !isCached ? DirectFile.open(path, 'write') : undefined;
  const close = () => {
    direct?.close();
    closeSync(fd);
  };
  return { ...outputTo(fd, extents, direct), sync: () => fsyncSync(fd), close };
}

function outputTo(fd: number, extents: readonly Extent[] | undefined, direct?: DirectFile): Output {
  const write = (position: number, bytes: Uint8Array) => {
    if (direct?.write(position, bytes) !== true) writeAt(fd, position, bytes);
  };
  if (extents === undefined) return { write };
  return {
    write(position, bytes) {
      const written = eachPiece(extents, position, bytes.length, (at, done, count) => {
        write(at, bytes.subarray(done, done + count));
        return count;
      });
      if (written === bytes.length) return;
      throw Object.assign(new Error('ENOSPC: no space left in the file for the image'), {
        code: 'ENOSPC',
        syscall: 'write',
      });
    },
  };
}

/** Writes something small, which is on the disk when this returns. */
export function writeSynced(place: Place, write: (output: Output) => void): void {
  const output = openOutput(place);
  try {
    write(output);
    output.sync();
  } finally {
    output.close();
  }
}
