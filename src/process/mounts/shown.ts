/** What paths lead to among the mounts of a namespace. */
import { join } from 'node:path';
import { AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT } from '../../abi/fcntl.ts';
import * as abi from '../../abi/mount.ts';
import { attributes } from '../../sys/files.ts';
import { open_tree } from '../../sys/mount.ts';
import type { Mount } from '../../sys/mountinfo.ts';
import type { Root } from '../root.ts';

/** Those that their paths lead to: others may be mounted over the rest. Their parents are among them. */
export function reachable(mounts: readonly Mount[], root: Root): Mount[] {
  const found = root.within(() => new Set(mounts.filter(({ id, mountPoint }) => mountAt(mountPoint) === id)));
  const parentOf = (each: Mount): number => {
    const parent = mounts.find(({ id }) => id === each.parent);
    return parent === undefined || found.has(parent) ? each.parent : parentOf(parent);
  };
  return [...found].map((each) => ({ ...each, parent: parentOf(each) }));
}

/** The id of the mount that a path leads to, or -1. */
function mountAt(path: string): number {
  try {
    return Number(attributes(AT_FDCWD, path, AT_NO_AUTOMOUNT).stx_mnt_id);
  } catch {
    return -1;
  }
}

/** Whether two mounts show the same file system. */
export function sameSource(a: Mount, b: Mount): boolean {
  return a.major === b.major && a.minor === b.minor;
}

/** A path that shows what a mount shows. */
export function pathIn(mounts: readonly Mount[], wanted: Mount): string | undefined {
  const found = mounts
    .filter((each) => sameSource(each, wanted) && below(each.root, wanted.root) !== undefined)
    .map((each) => ({ id: each.id, at: each.mountPoint, path: join(each.mountPoint, below(each.root, wanted.root)!) }))
    .filter(({ id, path }) => mountAt(path) === id);
  return (found.find(({ at }) => at === wanted.mountPoint) ?? found[0])?.path;
}

/** A path of a file system as it is seen below one of its directories. */
export function below(directory: string, path: string): string | undefined {
  if (directory === '/') return path;
  return path === directory || path.startsWith(`${directory}/`) ? path.slice(directory.length) || '/' : undefined;
}

/** One more mount of what a path shows, without what is mounted below it. */
export function copy(dfd: number, filename: string): number {
  const flags = abi.OPEN_TREE_CLONE | abi.OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_NO_AUTOMOUNT;
  return open_tree({ dfd, filename, flags });
}
