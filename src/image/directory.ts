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
import { FormatError, SyscallError, UnsupportedError } from '../errors.ts';
import { syncFolder } from '../fsync.ts';
import type { ImageInfo } from './info.ts';
import { draftOn, type ImageDraft, type ImageStore, isImageFile, missing, type Sink, type Source } from './store.ts';
import { PAGES_SUMS_FILE, SUMS_FILE, Sums } from './sums.ts';
import { fileName, images, isMemory } from './types.ts';

const INVENTORY = fileName(images.INVENTORY);
/** CR_PARENT_LINK of CRIU's criu/include/image.h. */
const PARENT = 'parent';
const PARTIAL = /^\.partial-(\d+(?:\.\d+)?)-/;

/** Who writes images: told by what an image that is being written has in its name. */
export interface Writers {
  /** This process: `PID`, or `PID.STARTTIME`. */
  readonly self: string;
  /** Whether who wrote something is still there. */
  lives(writer: string): boolean;
}

/** By process ids, which is what can be known anywhere: one that is another process's by now is taken for the writer. */
const byNumber: Writers = {
  self: `${process.pid}`,
  lives(writer) {
    try {
      return process.kill(Number.parseInt(writer, 10), 0);
    } catch (error) {
      return (error as NodeJS.ErrnoException).code !== 'ESRCH';
    }
  },
};

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
  const partial = call(`mkdtemp(${path})`, () => fs.mkdtempSync(join(path, `.partial-${writers.self}-`)));
  const files: string[] = [];
  const open = new Set<number>();

  /** Files that have room and are not begun; those that are occupied have its length as well. */
  const reserved = new Map<string, { fd: number; size: number; occupied: boolean }>();

  const begin = (file: string): number => {
    const target = join(partial, file);
    const fd = call(`open(${target})`, () => fs.openSync(target, 'wx', 0o600));
    open.add(fd);
    return fd;
  };

  const reserve = (file: string, size: number, hurried: boolean): void => {
    const fd = begin(file);
    const occupied = hurried && size > 0 && options.occupy !== undefined;
    reserved.set(file, { fd, size, occupied });
    if (size > 0) options.fallocate?.(fd, size);
    if (occupied) options.occupy!(fd, size);
  };

  const create = (file: string, size: number | undefined): Sink => {
    const target = join(partial, file);
    const before = reserved.get(file);
    reserved.delete(file);
    const fd = before?.fd ?? begin(file);
    files.push(file);
    if (size !== undefined && size > (before?.size ?? 0)) options.fallocate?.(fd, size);
    return fileSink(fd, target, (length) => {
      if (before !== undefined && (before.occupied ? before.size > length : before.size > length + LEFT))
        call(`ftruncate(${target})`, () => fs.ftruncateSync(fd, length));
      open.delete(fd);
    });
  };

  if (options.parent !== undefined) fs.symlinkSync(options.parent, join(partial, PARENT));

  let moving = false;
  const commit = () => {
    for (const [file, { fd }] of reserved) {
      open.delete(fd);
      fs.closeSync(fd);
      fs.unlinkSync(join(partial, file));
    }
    reserved.clear();
    giveBack(partial);
    if (options.syncfs !== undefined) options.syncfs(partial);
    else for (const file of files) sync(join(partial, file));
    moving = true;
    moveUp(partial, path);
  };

  const clear = () => {
    for (const fd of open) fs.closeSync(fd);
    open.clear();
    reserved.clear();
    for (const file of imageFiles(partial)) fs.unlinkSync(join(partial, file));
    files.length = 0;
  };

  const abort = () => {
    for (const fd of open) fs.closeSync(fd);
    open.clear();
    if (moving) removeImage(path);
    fs.rmSync(partial, { recursive: true, force: true });
    if (made) removeIfEmpty(path);
  };

  /** Under a name that no later image in this directory removes. What is moved up in part the next one who opens it goes on with. */
  const keep = () => {
    if (moving) return path;
    const kept = join(path, `unsynced-${process.pid}`);
    try {
      fs.renameSync(partial, kept);
      return kept;
    } catch {
      return partial;
    }
  };

  try {
    return draftOn({ create, reserve, clear, commit, abort, keep }, info);
  } catch (error) {
    abort();
    throw error;
  }
}

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

function imageFiles(path: string): string[] {
  const entries = call(`readdir(${path})`, () => fs.readdirSync(path, { withFileTypes: true }));
  return entries.filter((entry) => entry.isFile() && isImageFile(entry.name)).map((entry) => entry.name);
}

/** Where the link to the parent leads, from within the directory; undefined where there is none. */
function parentOf(path: string): string | undefined {
  try {
    return fs.readlinkSync(join(path, PARENT));
  } catch {
    return undefined;
  }
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

function move(from: string, to: string, file: string): void {
  call(`rename(${join(to, file)})`, () => fs.renameSync(join(from, file), join(to, file)));
}

/** Room behind the end of a file that is left to it until the commit, in bytes: taking it away takes longer than writing the file. */
const LEFT = 64 << 10;

/** Takes away the room behind the ends of files. A disk that needs room for that keeps it, and they are as good. */
function giveBack(partial: string): void {
  for (const [file, { size }] of sumsOf(partial)) {
    try {
      if (isMemory(file)) fs.truncateSync(join(partial, file), size);
    } catch {
      // Some space stays in use, or it was moved up already.
    }
  }
}

/** fsync(2) of a file. */
function sync(path: string): void {
  const fd = call(`open(${path})`, () => fs.openSync(path, 'r'));
  try {
    call(`fsync(${path})`, () => fs.fsyncSync(fd));
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Makes what is whole in the partial directory the image. All that can be done twice, so that what was interrupted can be gone on with:
 * the sums, which name all files, stay until the end.
 */
function moveUp(partial: string, path: string): void {
  const sums = sumsOf(partial);
  const waiting = imageFiles(partial);
  const begins = waiting.includes(INVENTORY);
  if (begins) fs.rmSync(join(path, INVENTORY), { force: true });
  // A page server may have put memory here already.
  const elsewhere = !sums.hasMemory;
  for (const file of imageFiles(path)) {
    if (sums.has(file) || (elsewhere && (isMemory(file) || file === PAGES_SUMS_FILE))) continue;
    fs.rmSync(join(path, file), { force: true });
  }
  // What was given room and never written is none of it.
  for (const file of waiting) if (sums.has(file) && file !== INVENTORY) move(partial, path, file);
  putSums(partial, path);
  linkParent(path, parentOf(partial));
  // What comes first has to be on the disk first.
  call(`fsync(${path})`, () => syncFolder(path));
  if (begins) move(partial, path, INVENTORY);
  fs.rmSync(partial, { recursive: true, force: true });
  call(`fsync(${path})`, () => syncFolder(path));
}

/**
 * Gives the sums a second name, which needs no room: the processes may have ended. Where there are no second names, a copy. Neither
 * goes through a symbolic link that somebody has put there.
 */
function putSums(partial: string, path: string): void {
  const [from, to] = [join(partial, SUMS_FILE), join(path, SUMS_FILE)];
  fs.rmSync(to, { force: true });
  try {
    call(`link(${to})`, () => fs.linkSync(from, to));
  } catch (error) {
    if (!(error instanceof SyscallError && NO_LINKS.includes(error.errnoName))) throw error;
    call(`copyfile(${to})`, () => fs.copyFileSync(from, to, fs.constants.COPYFILE_EXCL));
    sync(to);
  }
}

/** What link(2) says of a file system without second names, or of too many of them. */
const NO_LINKS = ['EPERM', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'];

/** What comes first has to go first: without the inventory there is no image. */
function removeImage(path: string): void {
  for (const file of [INVENTORY, ...imageFiles(path)]) fs.rmSync(join(path, file), { force: true });
  linkParent(path, undefined);
}

/** Has an image build on another one, or on none. */
function linkParent(path: string, parent: string | undefined): void {
  const old = parentOf(path);
  if (old === parent) return;
  if (old !== undefined) fs.unlinkSync(join(path, PARENT));
  if (parent !== undefined) fs.symlinkSync(parent, join(path, PARENT));
}

/**
 * Begins the files of a page server, which come to stand in a directory beside what is there or will be.
 *
 * @param parent the directory of the image on which they build, from within this one
 */
export function createPages(path: string, parent?: string, writers = byNumber): ImageDraft {
  call(`mkdir(${path})`, () => fs.mkdirSync(path, { recursive: true, mode: 0o700 }));
  if (parent !== undefined) checkParent(path, parent, isMemory);
  const partial = call(`mkdtemp(${path})`, () => fs.mkdtempSync(join(path, `.partial-${writers.self}-`)));
  const files: string[] = [];
  const open = new Set<number>();
  const create = (file: string): Sink => {
    const target = join(partial, file);
    const fd = call(`open(${target})`, () => fs.openSync(target, 'wx', 0o600));
    open.add(fd);
    files.push(file);
    return fileSink(fd, target, () => open.delete(fd));
  };
  const commit = () => {
    for (const file of files) sync(join(partial, file));
    // The sums, which are written last, come first: what does not belong to them is told from what does.
    for (const file of files.toReversed()) move(partial, path, file);
    for (const file of imageFiles(path)) {
      if (isMemory(file) && !files.includes(file)) fs.rmSync(join(path, file), { force: true });
    }
    linkParent(path, parent);
    fs.rmdirSync(partial);
    call(`fsync(${path})`, () => syncFolder(path));
  };
  const abort = () => {
    for (const fd of open) fs.closeSync(fd);
    open.clear();
    fs.rmSync(partial, { recursive: true, force: true });
  };
  return draftOn({ create, commit, abort, keep: () => partial }, undefined, PAGES_SUMS_FILE);
}

/** What those left who do not live any more: images that are whole are made so, all others can be removed. */
function settleAbandoned(path: string, writers: Writers, remove: boolean): void {
  for (const entry of fs.readdirSync(path)) {
    const writer = PARTIAL.exec(entry)?.[1];
    if (writer === undefined || writers.lives(writer)) continue;
    const partial = join(path, entry);
    if (!isOurs(partial)) continue;
    if (isWhole(partial, path)) {
      giveBack(partial);
      moveUp(partial, path);
    } else if (remove) fs.rmSync(partial, { recursive: true, force: true });
  }
}

/** Whether a directory is one that we have made, and not what another user would have us take for it. */
function isOurs(partial: string): boolean {
  const stat = fs.lstatSync(partial, { throwIfNoEntry: false });
  return stat?.isDirectory() === true && stat.uid === (process.geteuid?.() ?? stat.uid);
}

/** Whether all files are there with their sizes, also those that were moved up already. */
function isWhole(partial: string, path: string): boolean {
  const sizeOf = (file: string) =>
    (fs.statSync(join(partial, file), { throwIfNoEntry: false }) ?? fs.statSync(join(path, file))).size;
  try {
    return [...sumsOf(partial)].every(([file, { size }]) => sizeOf(file) === size);
  } catch {
    return false;
  }
}

function sumsOf(partial: string): Sums {
  return Sums.parse(fs.readFileSync(join(partial, SUMS_FILE), 'latin1'), SUMS_FILE);
}

function removeIfEmpty(path: string): void {
  try {
    fs.rmdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTEMPTY') throw error;
  }
}

/** Node's error of a system call becomes ours. */
function call<T>(text: string, perform: () => T): T {
  try {
    return perform();
  } catch (error) {
    const { errno, syscall } = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    throw new SyscallError(syscall ?? text, text, -errno);
  }
}
