/** include/uapi/linux/fs.h: freezing file systems; scanning page tables by ioctl on /proc/PID/pagemap, Linux 6.7. */
import { struct, u64n } from './struct.ts';

/** _IOWR('X', 119, int), _IOWR('X', 120, int): ioctl_fifreeze(2). */
export const FIFREEZE = 0xc0045877;
export const FITHAW = 0xc0045878;
export const FS_IOC_FIEMAP = 0xc020660b;
/** Drops what is cached of a block device. */
export const BLKFLSBUF = 0x1261;

/** _IOWR('f', 16, struct pm_scan_arg) */
export const PAGEMAP_SCAN = 0xc0606610;

/** Categories of pages. */
export const PAGE_IS_WPALLOWED = 0x1;
export const PAGE_IS_WRITTEN = 0x2;
export const PAGE_IS_FILE = 0x4;
export const PAGE_IS_PRESENT = 0x8;
export const PAGE_IS_SWAPPED = 0x10;
export const PAGE_IS_PFNZERO = 0x20;
export const PAGE_IS_HUGE = 0x40;
export const PAGE_IS_SOFT_DIRTY = 0x80;
/** Linux 6.15. */
export const PAGE_IS_GUARD = 0x100;

/** Write-protects what matches, as the asynchronous write protection of userfaultfd does. */
export const PM_SCAN_WP_MATCHING = 0x1;
/** Stops with EPERM at memory without asynchronous write protection. */
export const PM_SCAN_CHECK_WPASYNC = 0x2;

export const page_region = struct('page_region', 24, { start: u64n, end: u64n, categories: u64n });

export const pm_scan_arg = struct('pm_scan_arg', 96, {
  size: u64n,
  flags: u64n,
  start: u64n,
  end: u64n,
  /** Where the walk stopped, if `vec` or `max_pages` ended it. */
  walk_end: u64n,
  vec: u64n,
  vec_len: u64n,
  max_pages: u64n,
  category_inverted: u64n,
  category_mask: u64n,
  category_anyof_mask: u64n,
  return_mask: u64n,
});
