/**
 * An image as a directory of files, as CRIU has it.
 *
 *     DIR/inventory.img ...          the image; without the inventory there is none
 *     DIR/parent                     a symbolic link to the image that this one builds on, if it does
 *     DIR/.partial-WRITER-XXXXXX/... one that is being written; WRITER is PID, or PID.STARTTIME
 *
 * A new image is written below the partial directory, synced, and moved up file by file, the inventory last: whoever looks
 * in between finds no image, never half of one. What a killed program left is removed by the next one; where it had written all,
 * it is moved up instead, as the processes may have ended.
 * Files are readable by their owner alone, as they hold the memory of the process with all secrets in it.
 */
import * as fs from 'node:fs';
import { join, resolve } from 'node:path';
import { FormatError, UnsupportedError } from '../errors.ts';
import { syncFolder } from '../fsync.ts';
import { call, INVENTORY, imageFiles, linkParent, PARENT, parentOf, syncFile } from './entries.ts';
import type { ImageInfo } from './info.ts';
import {
  byNumber,
  giveBack,
  move,
  moveUp,
  PartialDirectory,
  removeImage,
  settleAbandoned,
  type Writers,
} from './partial.ts';
import { draftOn, type ImageDraft, type ImageStore, missing, type Sink, type Source } from './store.ts';
import { PAGES_SUMS_FILE } from './sums.ts';
import { isMemory } from './types.ts';

export interface DirectoryOptions {
  /** Replace the image that is there. */
  readonly replace?: boolean;
  /** Makes everything below a directory last, as one syncfs(2); without it each file is synced by itself. */
  readonly syncfs?: (directory: string) => void;
  /** Gives a file its blocks before it is written, as fallocate(2): pages then go to disk more than twice as fast. */
  readonly fallocate?: (fd: number, size: number) => void;
  /** Has what a new file will hold be in memory already, so that writing it is no more than a copy. */
  readonly occupy?: (fd: number, size: number) => void;
  /** The directory of the image that this one builds on, from within its own. */
  readonly parent?: string | undefined;
  readonly writers?: Writers;
}

/**
 * Begins an image in a directory, which is made when there is none.
 *
 * @throws UnsupportedError where there is an image already, SyscallError where the directory cannot be written
 */
export function createDirectory(path: string, info: ImageInfo | undefined, options: DirectoryOptions = {}): ImageDraft {
  const made = call(`mkdir(${path})`, () => fs.mkdirSync(path, { recursive: true, mode: 0o700 })) !== undefined;
  const { writers = byNumber } = options;
  settleAbandoned(path, writers, true);
  const before = imageFiles(path);
  if (before.includes(INVENTORY) && !options.replace) {
    throw new UnsupportedError({
      what: `images directory ${path}`,
      why: 'it holds an image already',
      remedy: 'name an empty directory, or ask for the image to be replaced',
    });
  }
  if (options.parent !== undefined) checkParent(path, options.parent);
  const partial = new PartialDirectory(path, writers);
  const files: string[] = [];

  /** Files that have room and are not begun; those that are occupied have its length as well. */
  const reserved = new Map<string, { fd: number; size: number; occupied: boolean }>();

  const reserve = (file: string, size: number, hurried: boolean): void => {
    const fd = partial.begin(file);
    const occupied = hurried && size > 0 && options.occupy !== undefined;
    reserved.set(file, { fd, size, occupied });
    if (size > 0) options.fallocate?.(fd, size);
    if (occupied) options.occupy!(fd, size);
  };

  const create = (file: string, size: number | undefined): Sink => {
    const target = join(partial.path, file);
    const before = reserved.get(file);
    reserved.delete(file);
    const fd = before?.fd ?? partial.begin(file);
    files.push(file);
    if (size !== undefined && size > (before?.size ?? 0)) options.fallocate?.(fd, size);
    return fileSink(fd, target, (length) => {
      if (before !== undefined && (before.occupied ? before.size > length : before.size > length + LEFT))
        call(`ftruncate(${target})`, () => fs.ftruncateSync(fd, length));
      partial.end(fd);
    });
  };

  if (options.parent !== undefined) fs.symlinkSync(options.parent, join(partial.path, PARENT));

  let moving = false;
  const commit = () => {
    for (const [file, { fd }] of reserved) {
      partial.end(fd);
      fs.closeSync(fd);
      fs.unlinkSync(join(partial.path, file));
    }
    reserved.clear();
    giveBack(partial.path);
    if (options.syncfs !== undefined) options.syncfs(partial.path);
    else for (const file of files) syncFile(join(partial.path, file));
    moving = true;
    moveUp(partial.path, path);
  };

  const clear = () => {
    partial.closeAll();
    reserved.clear();
    for (const file of imageFiles(partial.path)) fs.unlinkSync(join(partial.path, file));
    files.length = 0;
  };

  const abort = () => {
    if (moving) removeImage(path);
    partial.remove();
    if (made) removeIfEmpty(path);
  };

  /** Under a name that no later image in this directory removes. What is moved up in part the next one who opens it goes on with. */
  const keep = () => {
    if (moving) return path;
    const kept = join(path, `unsynced-${process.pid}`);
    try {
      fs.renameSync(partial.path, kept);
      return kept;
    } catch {
      return partial.path;
    }
  };

  try {
    return draftOn({ create, reserve, clear, commit, abort, keep }, info);
  } catch (error) {
    abort();
    throw error;
  }
}

/** Room behind the end of a file that is left to it until the commit, in bytes: taking it away takes longer than writing the file. */
const LEFT = 64 << 10;

/** @param ending is called before the file is closed, with its length */
function fileSink(fd: number, target: string, ending: (length: number) => void): Sink {
  let length = 0;
  return {
    write(bytes) {
      for (let done = 0; done < bytes.length; ) {
        const written = call(`write(${target})`, () => fs.writeSync(fd, bytes, done, bytes.length - done, length));
        done += written;
        length += written;
      }
    },
    close() {
      ending(length);
      call(`close(${target})`, () => fs.closeSync(fd));
    },
  };
}

/**
 * @throws SyscallError where there is no such directory; its parent() FormatError where an image builds on itself
 */
export function openDirectory(path: string, writers = byNumber): ImageStore {
  call(`readdir(${path})`, () => settleAbandoned(path, writers, false));
  return openChained(path, []);
}

/** @param later the real paths of those that build on it */
function openChained(path: string, later: readonly string[]): ImageStore {
  const files = new Set(imageFiles(path));
  let parent: ImageStore | undefined;
  return {
    name: path,
    names: () => [...files].sort(),
    has: (file) => files.has(file),
    open(file) {
      if (!files.has(file)) throw missing(path, file);
      return openFile(join(path, file));
    },
    parent() {
      const link = parentOf(path);
      if (parent !== undefined || link === undefined) return parent;
      const chain = [...later, fs.realpathSync(path)];
      const earlier = resolve(path, link);
      if (chain.includes(call(`realpath(${earlier})`, () => fs.realpathSync(earlier)))) {
        throw new FormatError({ file: path, field: PARENT, expected: 'an earlier image', found: link });
      }
      parent = openChained(earlier, chain);
      return parent;
    },
    close() {},
  };
}

/** A file as a source. */
export function openFile(path: string): Source {
  const fd = call(`open(${path})`, () => fs.openSync(path, 'r'));
  return {
    name: path,
    size: call(`fstat(${path})`, () => fs.fstatSync(fd)).size,
    read: (into, position) => call(`pread(${path})`, () => fs.readSync(fd, into, 0, into.length, position)),
    close: () => fs.closeSync(fd),
  };
}

/**
 * Refuses to write over an image on which the new one would build.
 *
 * @param isEnough whether a file tells that there is an image
 */
function checkParent(path: string, parent: string, isEnough = (file: string) => file === INVENTORY): void {
  const own = fs.realpathSync(path);
  const first = resolve(path, parent);
  for (let at = first, left = MOST_PARENTS; ; left--) {
    const real = call(`realpath(${at})`, () => fs.realpathSync(at));
    if (real === own || left === 0) {
      throw new UnsupportedError({
        what: `images directory ${path}`,
        why: `the image in ${first}, on which the new one is to build, is or needs the one that is there`,
        remedy: 'name another directory for the new image',
      });
    }
    if (!imageFiles(real).some(isEnough)) {
      throw new UnsupportedError({
        what: `images directory ${at}`,
        why: 'there is no image in it to build on',
        remedy: 'name the directory of the last pre-dump, as seen from the images directory',
      });
    }
    const next = parentOf(real);
    if (next === undefined) return;
    at = resolve(real, next);
  }
}

/** More than a chain has. */
const MOST_PARENTS = 10_000;

/**
 * Begins the files of a page server, which come to stand in a directory beside what is there or will be.
 *
 * @param parent the directory of the image on which they build, from within this one
 */
export function createPages(path: string, parent?: string, writers = byNumber): ImageDraft {
  call(`mkdir(${path})`, () => fs.mkdirSync(path, { recursive: true, mode: 0o700 }));
  if (parent !== undefined) checkParent(path, parent, isMemory);
  const partial = new PartialDirectory(path, writers);
  const files: string[] = [];
  const create = (file: string): Sink => {
    const fd = partial.begin(file);
    files.push(file);
    return fileSink(fd, join(partial.path, file), () => partial.end(fd));
  };
  const commit = () => {
    for (const file of files) syncFile(join(partial.path, file));
    // The sums, which are written last, come first: what does not belong to them is told from what does.
    for (const file of files.toReversed()) move(partial.path, path, file);
    for (const file of imageFiles(path)) {
      if (isMemory(file) && !files.includes(file)) fs.rmSync(join(path, file), { force: true });
    }
    linkParent(path, parent);
    fs.rmdirSync(partial.path);
    call(`fsync(${path})`, () => syncFolder(path));
  };
  const backend = { create, commit, abort: () => partial.remove(), keep: () => partial.path };
  return draftOn(backend, undefined, PAGES_SUMS_FILE);
}

function removeIfEmpty(path: string): void {
  try {
    fs.rmdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTEMPTY') throw error;
  }
}
