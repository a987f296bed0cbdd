/**
 * Copies of trees on a disk, for a next kernel that finds no memory: one that died before it could do anything, a firmware that
 * cleared it, a power cut.
 *
 *     FOLDER/NAME                          the copy, made while the tree stands still
 *     FOLDER/NAME/before-N                 what was written before that (precopy.ts), on which it builds
 *     /var/lib/tideover/spill/NAME   ->    it, from when the tree was ended: from then on it may go on from there
 */
import { existsSync, lstatSync, mkdirSync, readdirSync, readlinkSync, rmSync, statfsSync, symlinkSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { RAMFS_MAGIC, TMPFS_MAGIC } from '../abi/statfs.ts';
import { UnsupportedError } from '../errors.ts';
import { syncFolder } from '../fsync.ts';
import { createDirectory } from '../image/directory.ts';
import { INFO_FILE } from '../image/info.ts';
import { copySource, type ImageStore, withSource } from '../image/store.ts';
import { SUMS_FILE } from '../image/sums.ts';
import { readInfo } from '../image/tree.ts';
import { saveToDisk } from '../process/disk.ts';
import { isGone } from '../process/gone.ts';
import { spillOf } from './workload.ts';

/** Where copies go if nothing is said. */
const SPILL_FOLDER = '/var/lib/tideover/spilled';

/** What is in them is gone after a reset. */
const IN_MEMORY: readonly number[] = [TMPFS_MAGIC, RAMFS_MAGIC];

/** What copies lie in, in a folder that somebody names: what else is there may be called as a tree is. */
const OWN = 'tideover-spilled';

/**
 * Where copies are to lie.
 *
 * @param wanted folder; undefined for ours where there is room, `none` for no copies
 * @param bytes that they may take
 * @returns undefined for nowhere
 * @throws UnsupportedError where there is no room in the folder that was asked for, or others may write to what is ours in it
 */
export function spillFolder(wanted: string | undefined, bytes: number): string | undefined {
  if (wanted === 'none') return undefined;
  if (wanted === undefined) return hasRoom(SPILL_FOLDER, bytes) ? SPILL_FOLDER : undefined;
  const folder = resolve(wanted, OWN);
  const refuse = (why: string): never => {
    const remedy = 'name another folder, or --spill none';
    throw new UnsupportedError({ what: `--spill ${wanted}`, why, remedy });
  };
  if (!hasRoom(folder, bytes)) refuse('it is no disk, or there is too little room');
  const there = lstatSync(folder, { throwIfNoEntry: false });
  if (there === undefined) return folder;
  const isOurs = there.isDirectory() && there.uid === process.geteuid!() && (there.mode & 0o022) === 0;
  return isOurs ? folder : refuse(`${folder} is there, and others may write to it`);
}

/** Whether a folder is on a disk with this much room, in bytes. */
function hasRoom(folder: string, bytes: number): boolean {
  let there = folder;
  while (!existsSync(there)) there = dirname(there);
  const { type, bavail, bsize } = statfsSync(there);
  return !IN_MEMORY.includes(type) && bavail * bsize > bytes;
}

/** Copies a round of precopy.ts to the disk. @throws SyscallError ENOSPC */
export function spillRound(
  image: ImageStore,
  { folder, name, round }: { readonly folder: string; readonly name: string; readonly round: number },
): void {
  if (round === 1) dropSpilled(name, folder);
  copyInto(image, join(folder, name, roundFolder(round)), round === 1 ? undefined : `../${roundFolder(round - 1)}`);
}

/** Copies an image to the disk. @param round on which it builds @throws SyscallError ENOSPC */
export function spill(image: ImageStore, folder: string, name: string, round?: number): void {
  copyInto(image, join(folder, name), round === undefined ? undefined : roundFolder(round));
}

const roundFolder = (round: number) => `before-${round}`;

function copyInto(image: ImageStore, path: string, parent: string | undefined): void {
  const draft = createDirectory(path, readInfo(image), { replace: true, parent, ...saveToDisk });
  try {
    for (const file of image.names().filter((each) => each !== INFO_FILE && each !== SUMS_FILE)) {
      withSource(image, file, (source) => copySource(source, draft.create(file, source.size)));
    }
    draft.commit();
  } catch (error) {
    draft.abort();
    throw error;
  }
}

/** From now on the next boot may find a copy. */
export function revealSpilled(folder: string, name: string): void {
  const link = spillOf(name);
  mkdirSync(dirname(link), { recursive: true, mode: 0o700 });
  rmSync(link, { recursive: true, force: true });
  symlinkSync(resolve(folder, name), link);
}

/** Where the copy lies that the next boot would find; undefined where there is none. */
export function copyOf(name: string): string | undefined {
  try {
    return readlinkSync(spillOf(name));
  } catch (error) {
    // EINVAL: it lies there itself.
    if (isGone(error) || (error as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw error;
  }
}

/** Removes a copy, found or not. No boot finds it any more, also where the kernel dies the next moment. */
export function dropSpilled(name: string, folder = SPILL_FOLDER): void {
  const [link, found] = [spillOf(name), copyOf(name)];
  if (lstatSync(link, { throwIfNoEntry: false }) !== undefined) {
    rmSync(link, { recursive: true });
    syncFolder(dirname(link));
  }
  if (found !== undefined) rmSync(found, { recursive: true, force: true });
  rmSync(join(folder, name), { recursive: true, force: true });
}

/** Names of trees that the next boot finds on the disk. */
export function spilledTrees(): string[] {
  try {
    return readdirSync(dirname(spillOf('x'))).sort();
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}
