/**
 * Whether a file is the very one that it was, and nobody has written to it since: by its inode and its time. Other machines, and
 * copies, have others, so it is asked for only where trees go on beside the disk that they had.
 */
import { statfsSync } from 'node:fs';
import type { Statx } from '../../abi/stat.ts';
import {
  BTRFS_SUPER_MAGIC,
  EXFAT_SUPER_MAGIC,
  MSDOS_SUPER_MAGIC,
  NFS_SUPER_MAGIC,
  OVERLAYFS_SUPER_MAGIC,
} from '../../abi/statfs.ts';
import type { file_identity_entry } from '../../image/messages/descriptors.ts';
import type { Value } from '../../image/proto.ts';

export type Identity = Value<typeof file_identity_entry>;

/** Their files are on disks, though their device is none. */
const ON_DISKS: readonly number[] = [BTRFS_SUPER_MAGIC, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC];
/** Inodes may have other numbers when they are mounted again. */
const NUMBERED_ANEW: readonly number[] = [MSDOS_SUPER_MAGIC, EXFAT_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC];

/** What file systems of a machine keep of their files over a start of it: asked once for each. */
export class Disks {
  readonly #types = new Map<string, number>();

  /** @param at a path that leads to the file @returns undefined for a file of a file system in memory */
  identityOf(at: string, stat: Statx): Identity | undefined {
    const { stx_dev_major: major, stx_dev_minor: minor, stx_ino: ino, stx_mtime } = stat;
    const device = `${major}:${minor}`;
    const type = this.#types.get(device) ?? statfsSync(at).type;
    this.#types.set(device, type);
    if (major === 0 && !ON_DISKS.includes(type)) return undefined;
    const identity = { mtime_sec: stx_mtime.tv_sec, mtime_nsec: stx_mtime.tv_nsec };
    return NUMBERED_ANEW.includes(type) ? identity : { ...identity, ino };
  }
}

/** @returns why it is not the same any more */
export function whyOther({ ino, mtime_sec, mtime_nsec }: Identity, { stx_ino, stx_mtime }: Statx): string | undefined {
  if (ino !== undefined && ino !== stx_ino)
    return `it was inode ${ino}, and another file, inode ${stx_ino}, is there now`;
  if (mtime_sec === stx_mtime.tv_sec && mtime_nsec === stx_mtime.tv_nsec) return undefined;
  const [then, now] = [mtime_sec, stx_mtime.tv_sec].map((seconds) => new Date(1000 * seconds).toISOString());
  return `it was written to since: last at ${then}, and at ${now} now`;
}
