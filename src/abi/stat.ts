/** Files' attributes: include/uapi/linux/stat.h */
import { array, i32, i64n, struct, u16, u32, u64, u64n } from './struct.ts';

/** Kinds of files: `stx_mode & S_IFMT`. */
export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o60000;
export const S_IFDIR = 0o40000;
export const S_IFCHR = 0o20000;
export const S_IFIFO = 0o10000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_ISVTX = 0o1000;

export const STATX_TYPE = 0x1;
export const STATX_MODE = 0x2;
export const STATX_NLINK = 0x4;
export const STATX_UID = 0x8;
export const STATX_GID = 0x10;
export const STATX_ATIME = 0x20;
export const STATX_MTIME = 0x40;
export const STATX_CTIME = 0x80;
export const STATX_INO = 0x100;
export const STATX_SIZE = 0x200;
export const STATX_BLOCKS = 0x400;
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_BTIME = 0x800;
export const STATX_MNT_ID = 0x1000;
/** Linux 6.8: an id that is never used again, as statmount(2) takes it. */
export const STATX_MNT_ID_UNIQUE = 0x4000;

export const statx_timestamp = struct('statx_timestamp', 16, { tv_sec: i64n, tv_nsec: u32, __reserved: i32 });

export const statx = struct('statx', 256, {
  /** STATX_* of what is filled in. */
  stx_mask: u32,
  stx_blksize: u32,
  stx_attributes: u64n,
  stx_nlink: u32,
  stx_uid: u32,
  stx_gid: u32,
  stx_mode: u16,
  __spare0: u16,
  stx_ino: u64,
  stx_size: u64n,
  /** Of 512 bytes. */
  stx_blocks: u64n,
  stx_attributes_mask: u64n,
  stx_atime: statx_timestamp,
  stx_btime: statx_timestamp,
  stx_ctime: statx_timestamp,
  stx_mtime: statx_timestamp,
  stx_rdev_major: u32,
  stx_rdev_minor: u32,
  stx_dev_major: u32,
  stx_dev_minor: u32,
  stx_mnt_id: u64,
  stx_dio_mem_align: u32,
  stx_dio_offset_align: u32,
  __spare3: array(u64, 12),
});

export type Statx = ReturnType<typeof statx.read>;
