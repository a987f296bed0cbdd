/** What the image is, and the figures of making and restoring it. */
import { bool, enumeration, message, repeated, required, string, u32, u64n } from '../proto.ts';
import { task_kobj_ids_entry } from './task.ts';

export const lsmtype = enumeration('lsmtype', {
  NO_LSM: 0,
  SELINUX: 1,
  APPARMOR: 2,
});

/** A message of its own, as an empty list cannot be told from none. */
export const plugins_entry = message('plugins_entry', {
  plugins: [12, string, repeated],
});

/** First image to read. img_version 2 is CRIU's v1.1, with a common magic in each image. */
export const inventory_entry = message('inventory_entry', {
  img_version: [1, u32, required],
  fdinfo_per_id: [2, bool],
  root_ids: [3, task_kobj_ids_entry],
  ns_per_id: [4, bool],
  root_cg_set: [5, u32],
  lsmtype: [6, lsmtype],
  dump_uptime: [8, u64n],
  pre_dump_mode: [9, u32],
  tcp_close: [10, bool],
  network_lock_method: [11, u32],
  plugins_entry: [12, plugins_entry],
  dump_criu_run_id: [13, string],
  allow_uprobes: [14, bool],
});

/** Times in microseconds, pages by count. */
export const dump_stats_entry = message('dump_stats_entry', {
  freezing_time: [1, u32, required],
  frozen_time: [2, u32, required],
  memdump_time: [3, u32, required],
  memwrite_time: [4, u32, required],
  pages_scanned: [5, u64n, required],
  pages_skipped_parent: [6, u64n, required],
  pages_written: [7, u64n, required],
  irmap_resolve: [8, u32],
  pages_lazy: [9, u64n, required],
  page_pipes: [10, u64n],
  page_pipe_bufs: [11, u64n],
  shpages_scanned: [12, u64n],
  shpages_skipped_parent: [13, u64n],
  shpages_written: [14, u64n],
});

/** Times in microseconds, pages by count. */
export const restore_stats_entry = message('restore_stats_entry', {
  pages_compared: [1, u64n, required],
  pages_skipped_cow: [2, u64n, required],
  forking_time: [3, u32, required],
  restore_time: [4, u32, required],
  pages_restored: [5, u64n],
});

export const stats_entry = message('stats_entry', {
  dump: [1, dump_stats_entry],
  restore: [2, restore_stats_entry],
});
