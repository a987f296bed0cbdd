/** What file system a file lies in: struct statfs of include/uapi/asm-generic/statfs.h, and its kinds of include/uapi/linux/magic.h */
import { array, i64n, struct, u64 } from './struct.ts';

export const TMPFS_MAGIC = 0x01021994;
export const RAMFS_MAGIC = 0x858458f6;
export const HUGETLBFS_MAGIC = 0x958458f6;
export const BTRFS_SUPER_MAGIC = 0x9123683e;
export const OVERLAYFS_SUPER_MAGIC = 0x794c7630;
export const MSDOS_SUPER_MAGIC = 0x4d44;
export const EXFAT_SUPER_MAGIC = 0x2011bab0;
export const NFS_SUPER_MAGIC = 0x6969;

/** A file system without limits says -1 of what it counts. */
export const statfs = struct('statfs', 120, {
  f_type: i64n,
  f_bsize: i64n,
  f_blocks: u64,
  f_bfree: u64,
  f_bavail: u64,
  f_files: u64,
  f_ffree: u64,
  f_fsid: u64,
  f_namelen: i64n,
  f_frsize: i64n,
  f_flags: i64n,
  f_spare: array(u64, 4),
});
