/**
 * Making the mounts of an image. Where the content of a mount comes from:
 *
 *     root        --root, or what of our file systems it was
 *     named       --external mnt[KEY]:PATH, which the checkpoint gave a key
 *     of ours     the file system is mounted outside of the tree too: the same place there
 *     bound       the file system is mounted in the tree already
 *     new         a file system that is made by mounting it; a tmpfs gets its files back
 */
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AT_EMPTY_PATH, AT_FDCWD, O_CLOEXEC, O_PATH, open_how, RESOLVE_IN_ROOT } from '../../abi/fcntl.ts';
import * as abi from '../../abi/mount.ts';
import { CLONE_NEWNS } from '../../abi/sched.ts';
import { S_IFDIR, S_IFMT } from '../../abi/stat.ts';
import { NR } from '../../abi/unistd.ts';
import { SyscallError, UnsupportedError } from '../../errors.ts';
import type { ImageStore } from '../../image/store.ts';
import { entriesOf } from '../../image/tree.ts';
import { images } from '../../image/types.ts';
import { attributes, close, openat, openat2 } from '../../sys/files.ts';
import { mount, mountNew, move_mount, pivot_root, setAttributes, umount2 } from '../../sys/mount.ts';
import { type Mount, readMountinfo } from '../../sys/mountinfo.ts';
import { fchdir, pidfd_getfd, pidfd_open } from '../../sys/process.ts';
import type { Made } from '../made.ts';
import { enterLent } from '../remote.ts';
import { inNewMounts, place, Root } from '../root.ts';
import { restoreContent } from '../tmpfs.ts';
import { attributesOf, CGROUPS, contentFile, DISK, deviceOf, isMade, type MountEntry, OURS, typeOf } from './entry.ts';
import { below, copy, pathIn } from './shown.ts';

export interface RestoreMountOptions {
  /** What becomes the root directory. */
  readonly root?: string | undefined;
  /** Paths by the keys that the checkpoint gave. */
  readonly externalMounts?: ReadonlyMap<string, string> | undefined;
  /** Devices by the keys that the checkpoint gave. */
  readonly externalDevices?: ReadonlyMap<string, string> | undefined;
  readonly skippedMounts?: readonly string[] | undefined;
}

/**
 * Makes the mount namespace of an image, and puts a process into it that is still alone.
 *
 * @param id of the namespace in the image
 * @param keep see lend()
 * @throws UnsupportedError where something is missing that it is made from
 */
export function makeMounts(store: ImageStore, id: number, init: Made, keep: number, how: RestoreMountOptions): Root {
  const skipped = new Set(how.skippedMounts);
  const entries = entriesOf(store, images.MNTS, id).filter(({ mountpoint }) => !skipped.has(mountpoint));
  const { root, ns } = inNewMounts(() => {
    const ns = openat({ dirfd: AT_FDCWD, pathname: '/proc/thread-self/ns/mnt', flags: O_CLOEXEC, mode: 0 });
    using making = new Making(store, entries, init, how);
    const first = entries.find(({ mountpoint }) => mountpoint === '/');
    if (first === undefined) throw missing('the root directory', 'the image has no mount of it');
    making.mountAll(first);
    const ownProc = entries.some(({ mountpoint, ext_key }) => mountpoint === '/proc' && ext_key === undefined);
    return { ns, root: new Root(place('/'), ownProc) };
  });
  enterLent(init.leader, keep, ns, CLONE_NEWNS);
  close({ fd: ns });
  return root;
}

/** The new mounts, while this thread is in their namespace: ours are there as well until the root is another one. */
class Making {
  readonly #store: ImageStore;
  readonly #init: Made;
  readonly #how: RestoreMountOptions;
  readonly #outside: readonly Mount[];
  /** A tmpfs with a directory for each file system, which nobody sees. */
  readonly #yard: number;
  readonly #fds: number[] = [];
  /** By device: a mount of it, and what directory of it that shows. */
  readonly #sources = new Map<number, { readonly fd: number; readonly root: string }>();
  readonly #made = new Map<MountEntry, number>();
  readonly #deleted: (() => void)[] = [];
  readonly #all: readonly MountEntry[];
  #root = -1;

  constructor(store: ImageStore, all: readonly MountEntry[], init: Made, how: RestoreMountOptions) {
    this.#store = store;
    this.#all = all;
    this.#init = init;
    this.#how = how;
    this.#outside = readMountinfo('thread-self');
    // What is mounted outside from now on may come here, and nothing goes there.
    mount({ source: 'none', target: '/', filesystemtype: '', mountflags: abi.MS_REC | abi.MS_SLAVE, data: 0 });
    this.#yard = this.#own(mountNew('tmpfs'));
    attach(this.#yard, place('/'));
  }

  mountAll(first: MountEntry): void {
    this.#root = this.#mount(first);
    const add = (parent: MountEntry): void => {
      const children = this.#all.filter((each) => each !== first && each.parent_mnt_id === parent.mnt_id);
      for (const each of children) this.#mount(each);
      for (const each of children) add(each);
    };
    add(first);
    for (const remove of this.#deleted) remove();
    this.#propagate();
    this.#enter();
  }

  /** @returns a descriptor of it, where it is mounted */
  #mount(entry: MountEntry): number {
    const fd = this.#own(this.#detached(entry));
    const target = this.#own(this.#target(entry.mountpoint));
    // What comes from outside goes on to come; it is shared with others of the tree later.
    const propagation = this.#isSlaveOfOurs(entry) ? abi.MS_SLAVE : abi.MS_PRIVATE;
    setAttributes(fd, { ...attributesOf(entry), propagation });
    attach(fd, target);
    this.#made.set(entry, fd);
    return fd;
  }

  #target(mountpoint: string): number {
    if (this.#root < 0) return place('/');
    try {
      return inside(this.#root, mountpoint);
    } catch (error) {
      throw missing(`mount ${mountpoint}`, `there is nothing to mount it on (${(error as Error).message})`);
    }
  }

  /** A mount of what an entry shows that is nowhere yet. */
  #detached(entry: MountEntry): number {
    const path = this.#outsidePath(entry);
    if (path !== undefined) {
      const fd = copyOf(entry, path);
      if (!this.#sources.has(entry.root_dev)) {
        const source = this.#keep(copy(AT_FDCWD, path));
        this.#sources.set(entry.root_dev, { fd: source, root: entry.root });
      }
      return fd;
    }
    const source = this.#sources.get(entry.root_dev) ?? this.#make(entry);
    if (source.root === entry.root) return copy(source.fd, '');
    const rest = below(source.root, entry.root);
    if (rest === undefined)
      throw missing(`mount ${entry.mountpoint}`, `nothing shows ${entry.root} of its file system`);
    const here = new Root(source.fd);
    // A control group goes with its processes, and is made for them again.
    if (CGROUPS.has(entry.fstype)) here.within(() => mkdirSync(rest, { recursive: true }));
    if (entry.deleted === true) here.within(() => mkdirSync(rest));
    const at = inside(source.fd, rest);
    try {
      return copy(at, '');
    } finally {
      close({ fd: at });
      // What is deleted cannot be mounted any more.
      if (entry.deleted === true) this.#deleted.push(() => here.within(() => rmdirSync(rest)));
    }
  }

  /** Where among our files it is found. */
  #outsidePath(entry: MountEntry): string | undefined {
    const { ext_key, mountpoint, source } = entry;
    if (mountpoint === '/') {
      const isSaved = this.#store.has(contentFile(entry.root_dev));
      const path = this.#how.root ?? (isSaved ? undefined : this.#rootOutside(entry));
      if (path !== undefined || isMade(entry)) return path;
      throw missing('the root directory', `${entry.root} of its file system (${source}) is not mounted here`, '--root');
    }
    if (ext_key === undefined || ext_key === DISK) return undefined;
    if (ext_key === OURS) return join('/', source);
    const path = this.#how.externalMounts?.get(ext_key);
    if (path !== undefined) return path;
    const why = 'it is not part of the image, as the checkpoint was told';
    throw missing(`mount ${mountpoint}`, why, `--external 'mnt[${ext_key}]:PATH'`);
  }

  #rootOutside(entry: MountEntry): string | undefined {
    const { root_dev, source, root } = entry;
    // Devices that are no disks are numbered as they come.
    const same =
      this.#outside.find((each) => each.source === source && source.startsWith('/')) ??
      this.#outside.find((each) => deviceOf(each) === root_dev && each.source === source);
    return same === undefined ? undefined : pathIn(this.#outside, { ...same, root, mountPoint: '/' });
  }

  /** Makes the file system of an entry. */
  #make(entry: MountEntry): { fd: number; root: string } {
    const type = entry.fsname ?? typeOf.get(entry.fstype) ?? '';
    const source = { fd: type === 'proc' ? this.#keep(this.#proc(entry)) : this.#inYard(type, entry), root: '/' };
    const content = contentFile(entry.root_dev);
    if (type === 'tmpfs' && this.#store.has(content)) restoreContent(this.#store, content, source.fd);
    if ((entry.sb_flags ?? 0) !== 0) remount(source.fd, entry.sb_flags!);
    this.#sources.set(entry.root_dev, source);
    return source;
  }

  #inYard(type: string, entry: MountEntry): number {
    const path = this.#corner();
    const data = Buffer.from(`${entry.options}\0`, 'latin1');
    try {
      mount({ source: this.#deviceFor(entry), target: path, filesystemtype: type, mountflags: 0, data });
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw missing(`mount ${entry.mountpoint}`, `a new ${type} is refused: ${error.message}`);
    }
    return this.#own(place(path));
  }

  #deviceFor({ ext_key, source, mountpoint }: MountEntry): string {
    if (ext_key !== DISK) return source;
    const name = source.slice('dev['.length, -1);
    const device = this.#how.externalDevices?.get(name);
    if (device !== undefined) return device;
    const why = 'its disk is not part of the image, as the checkpoint was told';
    throw missing(`mount ${mountpoint}`, why, `--external 'dev[${name}]:DEVICE'`);
  }

  /** Of the PID namespace of whoever makes it. */
  #proc({ options, source }: MountEntry): number {
    const { leader, pid } = this.#init;
    const opened = leader.call(NR.fsopen, leader.text(Buffer.from('proc')), 0);
    leader.run();
    const fs = leader.result(opened);
    for (const option of [`source=${source}`, ...options.split(',')].filter((each) => each !== '')) {
      const [key, value] = option.split('=') as [string, string | undefined];
      const cmd = value === undefined ? abi.FSCONFIG_SET_FLAG : abi.FSCONFIG_SET_STRING;
      const text = value === undefined ? 0 : leader.text(Buffer.from(value));
      leader.call(NR.fsconfig, fs, cmd, leader.text(Buffer.from(key)), text, 0);
    }
    leader.call(NR.fsconfig, fs, abi.FSCONFIG_CMD_CREATE, 0, 0, 0);
    const mounted = leader.call(NR.fsmount, fs, 0, 0);
    leader.run();
    const theirs = leader.result(mounted);
    const pidfd = pidfd_open({ pid, flags: 0 });
    const fd = pidfd_getfd({ pidfd, targetfd: theirs, flags: 0 });
    close({ fd: pidfd });
    leader.call(NR.close, theirs);
    leader.call(NR.close, fs);
    leader.run();
    return fd;
  }

  /** Has a mount in the yard, with nothing mounted below it: further ones can be made of it there. */
  #keep(fd: number): number {
    const isDirectory = (attributes(fd, '', AT_EMPTY_PATH).stx_mode & S_IFMT) === S_IFDIR;
    const path = this.#corner(isDirectory);
    const target = openat({ dirfd: AT_FDCWD, pathname: path, flags: O_PATH | O_CLOEXEC, mode: 0 });
    setAttributes(fd, { propagation: abi.MS_PRIVATE });
    attach(fd, target);
    close({ fd: target });
    return this.#own(fd);
  }

  /** A new directory or file of the yard. */
  #corner(isDirectory = true): string {
    const path = `/proc/self/fd/${this.#yard}/${this.#sources.size}`;
    if (isDirectory) mkdirSync(path);
    else writeFileSync(path, '');
    return path;
  }

  #isSlaveOfOurs({ master_id }: MountEntry): boolean {
    return (master_id ?? 0) !== 0 && this.#groupOf(master_id!).length === 0;
  }

  /** Mounts that share what is mounted in them, the one that shows most of their file system first. */
  #groupOf(id: number): MountEntry[] {
    const members = this.#all.filter(({ shared_id }) => shared_id === id);
    return members.sort((a, b) => a.root.length - b.root.length);
  }

  /** When nothing is to be mounted any more, which would come to others too. */
  #propagate(): void {
    const shared = new Set<number>();
    const share = (id: number): MountEntry => {
      const [first, ...others] = this.#groupOf(id);
      if (shared.has(id)) return first!;
      shared.add(id);
      this.#enslave(first!, share);
      setAttributes(this.#made.get(first!)!, { propagation: abi.MS_SHARED });
      for (const each of others) this.#join(first!, each);
      return first!;
    };
    for (const each of this.#made.keys()) {
      if ((each.shared_id ?? 0) !== 0) share(each.shared_id!);
      else this.#enslave(each, share);
    }
    for (const [{ flags }, fd] of this.#made) {
      if ((flags & abi.MS_UNBINDABLE) !== 0) setAttributes(fd, { propagation: abi.MS_UNBINDABLE });
    }
  }

  /** Makes a mount a slave of a group of the tree, if it was one. */
  #enslave(entry: MountEntry, share: (id: number) => MountEntry): void {
    const { master_id } = entry;
    if ((master_id ?? 0) === 0 || this.#isSlaveOfOurs(entry)) return;
    this.#join(share(master_id!), entry);
    setAttributes(this.#made.get(entry)!, { propagation: abi.MS_SLAVE });
  }

  #join(from: MountEntry, to: MountEntry): void {
    const [from_dfd, to_dfd] = [this.#made.get(from)!, this.#made.get(to)!];
    const flags = abi.MOVE_MOUNT_SET_GROUP | abi.MOVE_MOUNT_F_EMPTY_PATH | abi.MOVE_MOUNT_T_EMPTY_PATH;
    setAttributes(to_dfd, { propagation: abi.MS_PRIVATE });
    move_mount({ from_dfd, from_pathname: '', to_dfd, to_pathname: '', flags });
  }

  /** Makes the new root that of the namespace; what was ours goes. */
  #enter(): void {
    const before = this.#own(place('/'));
    fchdir({ fd: this.#root });
    pivot_root({ new_root: '.', put_old: '.' });
    fchdir({ fd: before });
    // The yard lies over it.
    for (let i = 0; i < 2; i++) umount2({ target: '.', flags: abi.MNT_DETACH });
    fchdir({ fd: this.#root });
  }

  #own(fd: number): number {
    this.#fds.push(fd);
    return fd;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.splice(0)) close({ fd });
  }
}

function copyOf({ mountpoint }: MountEntry, path: string): number {
  try {
    return copy(AT_FDCWD, path);
  } catch (error) {
    throw missing(`mount ${mountpoint}`, `${path} is what it shows (${(error as Error).message})`);
  }
}

/** Gives a file system its flags, read-only above all. */
function remount(fd: number, flags: number): void {
  const target = `/proc/self/fd/${fd}`;
  mount({ source: 'none', target, filesystemtype: '', mountflags: abi.MS_REMOUNT | flags, data: 0 });
}

function attach(from_dfd: number, to_dfd: number): void {
  const flags = abi.MOVE_MOUNT_F_EMPTY_PATH | abi.MOVE_MOUNT_T_EMPTY_PATH;
  move_mount({ from_dfd, from_pathname: '', to_dfd, to_pathname: '', flags });
}

/** A place below a directory, which no symbolic link leads out of. */
function inside(dirfd: number, path: string): number {
  const how = open_how.write({ flags: O_PATH | O_CLOEXEC, mode: 0, resolve: RESOLVE_IN_ROOT });
  return openat2({ dirfd, pathname: path, how, size: how.length });
}

function missing(what: string, why: string, option?: string): UnsupportedError {
  const remedy = option === undefined ? 'mount it, and restore again' : `say where it is: ${option}`;
  return new UnsupportedError({ what, why, remedy });
}
