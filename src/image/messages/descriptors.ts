/** Open files that are neither sockets nor devices of the network: paths, pipes, events, watches. */
import { bool, enumeration, i32, i64n, message, repeated, required, s32, string, u32, u64, u64n } from '../proto.ts';

/** fcntl(2) F_SETOWN and F_SETSIG. */
export const fown_entry = message('fown_entry', {
  uid: [1, u32, required],
  euid: [2, u32, required],
  signum: [3, u32, required],
  pid_type: [4, u32, required],
  pid: [5, u32, required],
});

/** Of a file on a disk: by what it is known to be the very same one, as it was left. */
export const file_identity_entry = message('file_identity_entry', {
  mtime_sec: [1, i64n, required],
  mtime_nsec: [2, u32, required],
  /** Where it outlives a mount. */
  ino: [3, u64],
});

/** A regular file, directory or device by path. mnt_id -1: the one mount namespace of the image. */
export const reg_file_entry = message('reg_file_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  pos: [3, u64n, required],
  fown: [5, fown_entry, required],
  name: [6, string, required],
  mnt_id: [7, s32, { default: -1 }],
  size: [8, u64n],
  ext: [9, bool],
  mode: [10, u32],
  build_id: [11, u32, repeated],
  checksum: [12, u32],
  checksum_config: [13, u32],
  checksum_parameter: [14, u32],
  /** Our own field. */
  identity: [1000, file_identity_entry],
});

/** A file that a plugin takes care of. */
export const ext_file_entry = message('ext_file_entry', {
  id: [1, u32, required],
  fown: [5, fown_entry, required],
});

/** One end of a pipe. Ends with one pipe_id are one pipe; O_WRONLY in flags tells which end. */
export const pipe_entry = message('pipe_entry', {
  id: [1, u32, required],
  pipe_id: [2, u32, required],
  flags: [3, u32, required],
  fown: [4, fown_entry, required],
  /** Our own field: it is not part of the image. */
  external: [1000, bool],
});

/** A named pipe; regf_id is the reg_file_entry of its path. */
export const fifo_entry = message('fifo_entry', {
  id: [1, u32, required],
  pipe_id: [2, u32, required],
  regf_id: [3, u32],
});

/** Bytes in flight, which follow the entry; `size` is F_GETPIPE_SZ. */
export const pipe_data_entry = message('pipe_data_entry', {
  pipe_id: [1, u32, required],
  bytes: [2, u32, required],
  size: [3, u32],
});

export const eventfd_file_entry = message('eventfd_file_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  fown: [3, fown_entry, required],
  counter: [4, u64, required],
});

/** A watched descriptor; dev, inode and pos tell a file that was duplicated from one that was replaced. */
export const eventpoll_tfd_entry = message('eventpoll_tfd_entry', {
  id: [1, u32, required],
  tfd: [2, u32, required],
  events: [3, u32, required],
  data: [4, u64, required],
  dev: [5, u32],
  inode: [6, u64],
  pos: [7, u64n],
});

export const eventpoll_file_entry = message('eventpoll_file_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  fown: [3, fown_entry, required],
  tfd: [4, eventpoll_tfd_entry, repeated],
});

export const signalfd_entry = message('signalfd_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  fown: [3, fown_entry, required],
  sigmask: [4, u64, required],
});

export const timerfd_entry = message('timerfd_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  fown: [3, fown_entry, required],
  clockid: [4, u32, required],
  ticks: [5, u64, required],
  settime_flags: [6, u32, required],
  vsec: [7, u64n, required],
  vnsec: [8, u64n, required],
  isec: [9, u64n, required],
  insec: [10, u64n, required],
});

export const ns_file_entry = message('ns_file_entry', {
  id: [1, u32, required],
  ns_id: [2, u32, required],
  ns_cflag: [3, u32, required],
  flags: [4, u32, required],
});

/** A file handle (name_to_handle_at(2)) with its path when known. */
export const fh_entry = message('fh_entry', {
  bytes: [1, u32, required],
  type: [2, u32, required],
  handle: [3, u64, repeated],
  path: [4, string],
  mnt_id: [5, u32],
});

export const irmap_cache_entry = message('irmap_cache_entry', {
  dev: [1, u32, required],
  inode: [2, u64, required],
  path: [3, string, required],
});

export const mark_type = enumeration('mark_type', {
  INODE: 1,
  MOUNT: 2,
});

export const inotify_wd_entry = message('inotify_wd_entry', {
  id: [1, u32, required],
  i_ino: [2, u64, required],
  mask: [3, u32, required],
  ignored_mask: [4, u32, required],
  s_dev: [5, u32, required],
  wd: [6, u32, required],
  f_handle: [7, fh_entry, required],
});

export const inotify_file_entry = message('inotify_file_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  fown: [4, fown_entry, required],
  wd: [5, inotify_wd_entry, repeated],
});

export const fanotify_inode_mark_entry = message('fanotify_inode_mark_entry', {
  i_ino: [1, u64, required],
  f_handle: [2, fh_entry, required],
});

export const fanotify_mount_mark_entry = message('fanotify_mount_mark_entry', {
  mnt_id: [1, u32, required],
  path: [2, string],
});

export const fanotify_mark_entry = message('fanotify_mark_entry', {
  id: [1, u32, required],
  type: [2, mark_type, required],
  mflags: [3, u32, required],
  mask: [4, u32, required],
  ignored_mask: [5, u32, required],
  s_dev: [6, u32, required],
  ie: [7, fanotify_inode_mark_entry],
  me: [8, fanotify_mount_mark_entry],
});

export const fanotify_file_entry = message('fanotify_file_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  fown: [3, fown_entry, required],
  faflags: [4, u32, required],
  evflags: [5, u32, required],
  mark: [6, fanotify_mark_entry, repeated],
});

export const pidfd_entry = message('pidfd_entry', {
  id: [1, u32, required],
  ino: [2, u32, required],
  flags: [3, u32, required],
  nspid: [4, i32, required],
  fown: [5, fown_entry, required],
});

export const memfd_file_entry = message('memfd_file_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  pos: [3, u64n, required],
  fown: [4, fown_entry, required],
  inode_id: [5, u32, required],
});

/** A memfd: its content is the shared memory `shmid`. */
export const memfd_inode_entry = message('memfd_inode_entry', {
  name: [1, string, required],
  uid: [2, u32, required],
  gid: [3, u32, required],
  size: [4, u64n, required],
  shmid: [5, u32, required],
  seals: [6, u32, required],
  inode_id: [7, u64n, required],
  hugetlb_flag: [8, u32],
  mode: [9, u32],
});

export const bpfmap_file_entry = message('bpfmap_file_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  pos: [3, u64n, required],
  fown: [4, fown_entry, required],
  map_type: [5, u32, required],
  key_size: [6, u32, required],
  value_size: [7, u32, required],
  map_id: [8, u32, required],
  max_entries: [9, u32, required],
  map_flags: [10, u32, required],
  memlock: [11, u64n, required],
  frozen: [12, bool, required],
  map_name: [13, string, required],
  ifindex: [14, u32, required],
  mnt_id: [15, s32, { default: -1 }],
  map_extra: [16, u64],
});

/** Keys, then values of a BPF map, which follow the entry. */
export const bpfmap_data_entry = message('bpfmap_data_entry', {
  map_id: [1, u32, required],
  keys_bytes: [2, u32, required],
  values_bytes: [3, u32, required],
  count: [4, u32, required],
});
