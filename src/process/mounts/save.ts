/** Saving the mounts of a tree that has a mount namespace: mount_namespaces(7). How they are made again is in make.ts. */
import { readFileSync } from 'node:fs';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../../abi/fcntl.ts';
import * as abi from '../../abi/mount.ts';
import { S_IFDIR, S_IFMT } from '../../abi/stat.ts';
import { UnsupportedError } from '../../errors.ts';
import { attributes, close, openat } from '../../sys/files.ts';
import { type Mount, parseMountinfo, readMountinfo } from '../../sys/mountinfo.ts';
import type { Namespace } from '../namespaces.ts';
import { inMounts, place, Root } from '../root.ts';
import { type Archive, saveContent } from '../tmpfs.ts';
import { AUTO, DELETED, DISK, deviceOf, entryOf, KERNEL, MADE, type MountEntry, OURS, TMPFS } from './entry.ts';
import { below, copy, pathIn, reachable, sameSource } from './shown.ts';

export interface SaveMountOptions {
  /** Keys of mounts that are not part of the image, by where they are mounted. */
  readonly externalMounts?: ReadonlyMap<string, string> | undefined;
  /** Of disks that are not part of the image, by `MAJOR/MINOR`. */
  readonly externalDevices?: ReadonlyMap<string, string> | undefined;
  /** Where mounts are that are left out. */
  readonly skippedMounts?: readonly string[] | undefined;
}

/** Mounts that are there. */
export class SavedMounts {
  readonly root: Root;
  readonly entries: readonly MountEntry[];
  readonly #ns: number;
  /** Devices of file systems that are mounted outside of the tree too. */
  readonly #outside: ReadonlySet<number>;

  /**
   * @param pid of a process in the namespace
   * @param own namespaces that the tree has for itself
   * @throws UnsupportedError for a mount that could not be made again
   */
  constructor(pid: number, own: ReadonlySet<Namespace>, options: SaveMountOptions) {
    const { ns, fd, mounts, covered } = look(pid);
    this.#ns = ns;
    const ours = readMountinfo('self');
    const outside = reachable(ours, Root.ours);
    const skipped = new Set(options.skippedMounts);
    for (const each of covered) {
      const seen = skipped.has(each.mountPoint) || [...ours, ...mounts].some((other) => sameSource(other, each));
      if (MADE.has(each.type) && !seen) throw lost(pid, each);
    }
    const proc = mounts.find(({ mountPoint, type }) => mountPoint === '/proc' && type === 'proc');
    this.root = new Root(fd, own.has('pid') && proc !== undefined && !outside.some((each) => sameSource(each, proc)));
    this.#outside = new Set(outside.map(deviceOf));
    const first = mounts.find(({ mountPoint }) => mountPoint === '/')!;
    this.entries = mounts
      .filter(({ mountPoint }) => !skipped.has(mountPoint))
      .map((each) => {
        const key = options.externalMounts?.get(each.mountPoint);
        if (key === undefined) refuseDeleted(pid, each, this.root);
        if (each === first || (sameSource(each, first) && below(first.root, each.root) !== undefined)) {
          return entryOf(each);
        }
        if (key !== undefined) return { ...entryOf(each), ext_key: key };
        const disk = options.externalDevices?.get(`${each.major}/${each.minor}`);
        if (disk !== undefined) {
          return { ...entryOf(each), fstype: AUTO, fsname: each.type, source: `dev[${disk}]`, ext_key: DISK };
        }
        const there = outside.some((other) => sameSource(other, each));
        const isNew = KERNEL.has(each.type)
          ? !there || !own.has(KERNEL.get(each.type) as Namespace)
          : MADE.has(each.type) && !there;
        if (isNew) return entryOf(each);
        const source = pathIn(outside, each);
        if (source === undefined) throw refused(pid, each);
        return { ...entryOf(each), source, ext_key: OURS };
      });
  }

  /** What is in each tmpfs that is made anew, by its device as entries have it. */
  contents(): ReadonlyMap<number, Archive> {
    const isOwn = (each: MountEntry) => each.ext_key === undefined && !this.#outside.has(each.root_dev);
    const wanted = new Map(
      this.entries.filter((each) => each.fstype === TMPFS && isOwn(each)).map((each) => [each.root_dev, each]),
    );
    for (const each of this.entries)
      if (each.root === '/' && wanted.has(each.root_dev)) wanted.set(each.root_dev, each);
    const archives = new Map<number, Archive>();
    for (const [device, { mountpoint, root, flags }] of wanted) {
      if (root !== '/') throw hidden(mountpoint);
      // One that cannot be bound is read where it is.
      const open = flags & abi.MS_UNBINDABLE ? place : (path: string) => copy(AT_FDCWD, path);
      const fd = inMounts(this.#ns, () => open(mountpoint));
      try {
        archives.set(device, saveContent(fd));
      } finally {
        close({ fd });
      }
    }
    return archives;
  }

  [Symbol.dispose](): void {
    close({ fd: this.#ns });
    this.root[Symbol.dispose]();
  }
}

/**
 * The mount namespace of a process; mounts of it which paths lead to, each with a parent that is among them; and those that others
 * are mounted over.
 */
function look(pid: number): { ns: number; fd: number; mounts: Mount[]; covered: Mount[] } {
  const flags = O_RDONLY | O_CLOEXEC;
  const ns = openat({ dirfd: AT_FDCWD, pathname: `/proc/${pid}/ns/mnt`, flags, mode: 0 });
  const ourselves = place('/proc/thread-self');
  try {
    const { list, fd } = inMounts(ns, () => {
      const list = openat({ dirfd: ourselves, pathname: 'mountinfo', flags, mode: 0 });
      return { list, fd: place('/') };
    });
    try {
      const all = parseMountinfo(readFileSync(list, 'latin1'), `/proc/${pid}/mountinfo`);
      const mounts = reachable(all, new Root(fd));
      const ids = new Set(mounts.map(({ id }) => id));
      return { ns, fd, mounts, covered: all.filter(({ id }) => !ids.has(id)) };
    } finally {
      close({ fd: list });
    }
  } finally {
    close({ fd: ourselves });
  }
}

function hidden(mountPoint: string): UnsupportedError {
  return new UnsupportedError({
    what: `mount ${mountPoint}`,
    why: 'it shows a part of a tmpfs which is mounted whole nowhere in the tree, so that its other files cannot be saved',
    remedy: `say that a restore will bring it: --external 'mnt[${mountPoint}]:KEY'`,
  });
}

function lost(pid: number, { mountPoint, type }: Mount): UnsupportedError {
  return new UnsupportedError({
    what: `mount ${mountPoint}`,
    pid,
    why: `another one lies over it, and what is in it would be lost (${type})`,
    remedy: `unmount it, or leave it out: --skip-mnt ${mountPoint}`,
  });
}

/** What is deleted and still mounted: a directory is empty then. */
function refuseDeleted(pid: number, { root, mountPoint }: Mount, here: Root): void {
  if (!root.endsWith(DELETED)) return;
  const mode = here.within(() => attributes(AT_FDCWD, mountPoint).stx_mode);
  if ((mode & S_IFMT) === S_IFDIR) return;
  throw new UnsupportedError({
    what: `mount ${mountPoint}`,
    pid,
    why: 'it is a file that is deleted',
    remedy: `unmount it, or say that a restore will bring it: --external 'mnt[${mountPoint}]:KEY'`,
  });
}

function refused(pid: number, { mountPoint, type, source }: Mount): UnsupportedError {
  return new UnsupportedError({
    what: `mount ${mountPoint}`,
    pid,
    why: `it is of a file system that is mounted in the tree alone (${type} ${source}), and is not made by mounting it`,
    remedy: `say that a restore will bring it (--external 'mnt[${mountPoint}]:KEY'), or unmount it`,
  });
}
