/** Where the blocks of a file lie: linux/fiemap.h. */
import { array, struct, u32, u64n } from './struct.ts';

/** Sync the file first. */
export const FIEMAP_FLAG_SYNC = 0x1;

export const FIEMAP_EXTENT_LAST = 0x1;
export const FIEMAP_EXTENT_UNKNOWN = 0x2;
export const FIEMAP_EXTENT_DELALLOC = 0x4;
export const FIEMAP_EXTENT_ENCODED = 0x8;
export const FIEMAP_EXTENT_NOT_ALIGNED = 0x100;
export const FIEMAP_EXTENT_UNWRITTEN = 0x800;
export const FIEMAP_EXTENT_SHARED = 0x2000;

/** In bytes. */
export const fiemap_extent = struct('fiemap_extent', 56, {
  fe_logical: u64n,
  fe_physical: u64n,
  fe_length: u64n,
  fe_reserved64: array(u64n, 2),
  fe_flags: u32,
  fe_reserved: array(u32, 3),
});

/** Followed by extents. */
export const fiemap = struct('fiemap', 32, {
  fm_start: u64n,
  fm_length: u64n,
  fm_flags: u32,
  fm_mapped_extents: u32,
  fm_extent_count: u32,
  fm_reserved: u32,
});
