/**
 * The directory in which an image is written until it is whole. That it then becomes the image is one thing that may be interrupted
 * anywhere: whoever comes next goes on with it, or removes what never became whole.
 */
import * as fs from 'node:fs';
import { join } from 'node:path';
import { SyscallError } from '../errors.ts';
import { syncFolder } from '../fsync.ts';
import { call, INVENTORY, imageFiles, linkParent, parentOf, syncFile } from './entries.ts';
import { PAGES_SUMS_FILE, SUMS_FILE, Sums } from './sums.ts';
import { isMemory } from './types.ts';

/** `.partial-WRITER-XXXXXX` */
const PARTIAL = /^\.partial-(\d+(?:\.\d+)?)-/;

/** Who writes images: told by what an image that is being written has in its name. */
export interface Writers {
  /** This process: `PID`, or `PID.STARTTIME`. */
  readonly self: string;
  /** Whether who wrote something is still there. */
  lives(writer: string): boolean;
}

/** By process ids, which is what can be known anywhere: one that is another process's by now is taken for the writer. */
export const byNumber: Writers = {
  self: `${process.pid}`,
  lives(writer) {
    try {
      return process.kill(Number.parseInt(writer, 10), 0);
    } catch (error) {
      return (error as NodeJS.ErrnoException).code !== 'ESRCH';
    }
  },
};

/** One of this process, with the files that are being written in it. */
export class PartialDirectory {
  readonly path: string;
  readonly #open = new Set<number>();

  /** @param path of the directory of the image */
  constructor(path: string, { self }: Writers) {
    this.path = call(`mkdtemp(${path})`, () => fs.mkdtempSync(join(path, `.partial-${self}-`)));
  }

  /** @returns a descriptor */
  begin(file: string): number {
    const target = join(this.path, file);
    const fd = call(`open(${target})`, () => fs.openSync(target, 'wx', 0o600));
    this.#open.add(fd);
    return fd;
  }

  /** A descriptor is about to be closed. */
  end(fd: number): void {
    this.#open.delete(fd);
  }

  closeAll(): void {
    for (const fd of this.#open) fs.closeSync(fd);
    this.#open.clear();
  }

  remove(): void {
    this.closeAll();
    fs.rmSync(this.path, { recursive: true, force: true });
  }
}

/** Takes away the room behind the ends of files. A disk that needs room for that keeps it, and they are as good. */
export function giveBack(partial: string): void {
  for (const [file, { size }] of sumsOf(partial)) {
    try {
      if (isMemory(file)) fs.truncateSync(join(partial, file), size);
    } catch {
      // Some space stays in use, or it was moved up already.
    }
  }
}

/**
 * Makes what is whole in the partial directory the image. All that can be done twice, so that what was interrupted can be gone on with:
 * the sums, which name all files, stay until the end.
 */
export function moveUp(partial: string, path: string): void {
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
    syncFile(to);
  }
}

/** What link(2) says of a file system without second names, or of too many of them. */
const NO_LINKS = ['EPERM', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'];

/** What comes first has to go first: without the inventory there is no image. */
export function removeImage(path: string): void {
  for (const file of [INVENTORY, ...imageFiles(path)]) fs.rmSync(join(path, file), { force: true });
  linkParent(path, undefined);
}

export function move(from: string, to: string, file: string): void {
  call(`rename(${join(to, file)})`, () => fs.renameSync(join(from, file), join(to, file)));
}

/** What those left who do not live any more: images that are whole are made so, all others can be removed. */
export function settleAbandoned(path: string, writers: Writers, remove: boolean): void {
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
