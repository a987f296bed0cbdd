/**
 * Files that kept trees have open or mapped in a tmpfs of the machine, as POSIX shared memory is (shm_overview(7)): nothing of them
 * would be there under the next kernel. They are written while the trees stand still, and made again before these are restored.
 *
 *     volatile/NODE               in preserved memory: their paths, then an object with each
 *     FOLDER/NAME/volatile        the same in a file, where there is a copy on the disk
 */
import { existsSync, lstatSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_PATH, open_how, RESOLVE_NO_SYMLINKS } from '../abi/fcntl.ts';
import { decodeDevice } from '../abi/kdev_t.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { alignUp } from '../mem/range.ts';
import { type Pkram, preserveFiles, restoreFiles } from '../pkram/index.ts';
import { treeOf } from '../process/freeze.ts';
import { isGone } from '../process/gone.ts';
import { descriptorLink, listDescriptors } from '../sys/fdinfo.ts';
import { close, openat2 } from '../sys/files.ts';
import { readMaps } from '../sys/maps.ts';
import { type Mount, readMountinfo } from '../sys/mountinfo.ts';
import { findMemory, openMedium, type Place } from './medium.ts';
import { VOLATILE_CONTENT, volatileNode } from './rounds.ts';
import type { Checkpoint } from './workload.ts';

/** In the folder of a copy on the disk. */
const FILE = 'volatile';

/** File systems that are empty when the next kernel mounts them. */
const IN_MEMORY = ['tmpfs', 'ramfs', 'devtmpfs'];

/** Files of a tree, by their paths. @param pid of its root */
export function volatileFiles(pid: number): string[] {
  const devices = devicesInMemory(readMountinfo('self'));
  const found = treeOf(pid).flatMap((each) => {
    try {
      return [...openFiles(each), ...mappedFiles(each)].filter((file) => isOn(devices, file)).map(({ path }) => path);
    } catch (error) {
      if (isGone(error)) return [];
      throw error;
    }
  });
  return [...new Set(found)].sort();
}

/** Bytes that they take in preserved memory, more or less. */
export function sizeOfFiles(paths: readonly string[]): number {
  return paths.reduce((sum, path) => {
    return sum + alignUp(lstatSync(path, { throwIfNoEntry: false })?.size ?? 0, PAGE_SIZE) + PAGE_SIZE;
  }, 0);
}

/** By their numbers; what the next system unpacks as its root is there again. */
function devicesInMemory(mounts: readonly Mount[]): Set<string> {
  const nameOf = ({ major, minor }: Mount) => `${major}:${minor}`;
  const devices = new Set(mounts.filter(({ type }) => IN_MEMORY.includes(type)).map(nameOf));
  for (const mount of mounts) if (mount.mountPoint === '/') devices.delete(nameOf(mount));
  return devices;
}

interface File {
  readonly path: string;
  readonly inode: bigint;
}

function openFiles(pid: number): File[] {
  return listDescriptors(pid).flatMap((fd) => {
    const path = descriptorLink(pid, fd);
    if (!path.startsWith('/')) return [];
    return [{ path, inode: statSync(`/proc/${pid}/fd/${fd}`, { bigint: true }).ino }];
  });
}

function mappedFiles(pid: number): File[] {
  return readMaps(pid).filter(({ path, deleted }) => path.startsWith('/') && !deleted);
}

/** Whether it is there under its name, so that it is not in the image, and is one that has content or a name alone. */
function isOn(devices: ReadonlySet<string>, { path, inode }: File): boolean {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined || stat.ino !== inode || !(stat.isFile() || stat.isFIFO())) return false;
  const { major, minor } = decodeDevice(Number(stat.dev));
  return devices.has(`${major}:${minor}`);
}

/** Writes the files of a tree that stands still. @param folder of its copy on the disk, that gets them too; undefined for none */
export function saveVolatile(pid: number, node: string, folder: string | undefined): void {
  const paths = volatileFiles(pid);
  const file = folder && join(folder, FILE);
  if (file !== undefined) rmSync(file, { force: true });
  if (paths.length === 0) return;
  save(findMemory(), volatileNode(node), paths);
  if (file !== undefined) save({ kind: 'file', path: file }, FILE, paths);
}

function save(place: Place | undefined, name: string, paths: readonly string[]): void {
  using pkram = openMedium(place, { create: true });
  using node = pkram.prepareSave(name, { content: VOLATILE_CONTENT, checksums: true });
  const list = node.prepareSaveObject();
  list.write(Buffer.from(JSON.stringify(paths)));
  list.finishSaveObject();
  for (const path of paths) {
    const object = node.prepareSaveObject();
    preserveFiles(object, [path]);
    object.finishSaveObject();
  }
  node.finishSave();
}

/** Makes the files of a tree again, before it is restored. Those that are there stay as they are. @param place of preserved memory */
export function restoreVolatile(place: Place | undefined, where: Checkpoint): void {
  if (where.kind === 'node') {
    using pkram = openMedium(place, { readOnly: true });
    restoreFrom(pkram, volatileNode(where.node));
    return;
  }
  const path = join(where.path, FILE);
  if (!existsSync(path)) return;
  using pkram = openMedium({ kind: 'file', path }, { readOnly: true });
  restoreFrom(pkram, FILE);
}

function restoreFrom(pkram: Pkram, name: string): void {
  if (!pkram.nodes().some((node) => node.name === name)) return;
  using peek = pkram.peek(name, { verify: true });
  const [list, ...objects] = peek.objects();
  const paths: string[] = JSON.parse(Buffer.from(list!.readAll()).toString('utf8'));
  for (const [i, path] of paths.entries()) {
    if (existsSync(path)) continue;
    const folder = openFolder(dirname(path));
    try {
      restoreFiles(objects[i]!, `/proc/self/fd/${folder}`, `node ${name}`);
    } finally {
      close({ fd: folder });
    }
  }
}

/**
 * Everybody may write to folders as /dev/shm: none on the way may be a link by now, or what is of the tree would be written anywhere, by
 * root.
 *
 * @throws SyscallError ELOOP
 */
function openFolder(path: string): number {
  const how = open_how.write({ flags: O_PATH | O_DIRECTORY | O_CLOEXEC, resolve: RESOLVE_NO_SYMLINKS });
  const args = { dirfd: AT_FDCWD, pathname: path, how, size: how.length };
  const fd = openat2.attempt(args);
  if (fd >= 0) return fd;
  if (fd !== -Errno.ENOENT) throw openat2.error(args, fd);
  mkdirSync(path, { recursive: true });
  return openat2(args);
}
