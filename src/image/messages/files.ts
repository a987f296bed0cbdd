/** Descriptor tables, the union of all kinds of open files, and what belongs to files. */
import { bool, enumeration, i32, i64n, message, required, string, u32, u64, u64n } from '../proto.ts';
import {
  bpfmap_file_entry,
  eventfd_file_entry,
  eventpoll_file_entry,
  ext_file_entry,
  fanotify_file_entry,
  fifo_entry,
  inotify_file_entry,
  memfd_file_entry,
  ns_file_entry,
  pidfd_entry,
  pipe_entry,
  reg_file_entry,
  signalfd_entry,
  timerfd_entry,
} from './descriptors.ts';
import { tunfile_entry } from './network.ts';
import { inet_sk_entry, netlink_sk_entry, packet_sock_entry, unix_sk_entry } from './sockets.ts';
import { tty_file_entry } from './tty.ts';

export const fd_types = enumeration('fd_types', {
  UND: 0,
  REG: 1,
  PIPE: 2,
  FIFO: 3,
  INETSK: 4,
  UNIXSK: 5,
  EVENTFD: 6,
  EVENTPOLL: 7,
  INOTIFY: 8,
  SIGNALFD: 9,
  PACKETSK: 10,
  TTY: 11,
  FANOTIFY: 12,
  NETLINKSK: 13,
  NS: 14,
  TUNF: 15,
  EXT: 16,
  TIMERFD: 17,
  MEMFD: 18,
  BPFMAP: 19,
  PIDFD: 20,
  CTL_TTY: 65534,
  AUTOFS_PIPE: 65535,
});

/** One descriptor of a table: number, close-on-exec in flags, and the open file it refers to. */
export const fdinfo_entry = message('fdinfo_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  type: [3, fd_types, required],
  fd: [4, u32, required],
  xattr_security_selinux: [5, string],
});

/** One open file description. `type` tells which of the other fields is there. */
export const file_entry = message('file_entry', {
  type: [1, fd_types, required],
  id: [2, u32, required],
  reg: [3, reg_file_entry],
  isk: [4, inet_sk_entry],
  nsf: [5, ns_file_entry],
  psk: [6, packet_sock_entry],
  nlsk: [7, netlink_sk_entry],
  efd: [8, eventfd_file_entry],
  epfd: [9, eventpoll_file_entry],
  sgfd: [10, signalfd_entry],
  tunf: [11, tunfile_entry],
  tfd: [12, timerfd_entry],
  ify: [13, inotify_file_entry],
  ffy: [14, fanotify_file_entry],
  ext: [15, ext_file_entry],
  usk: [16, unix_sk_entry],
  fifo: [17, fifo_entry],
  pipe: [18, pipe_entry],
  tty: [19, tty_file_entry],
  memfd: [20, memfd_file_entry],
  bpf: [21, bpfmap_file_entry],
  pidfd: [22, pidfd_entry],
});

/** Working directory, root and umask of a process. */
export const fs_entry = message('fs_entry', {
  cwd_id: [1, u32, required],
  root_id: [2, u32, required],
  umask: [3, u32],
});

export const remap_type = enumeration('remap_type', {
  LINKED: 0,
  GHOST: 1,
  PROCFS: 2,
});

/** A file whose path does not lead to it any more, and what stands in for it. */
export const remap_file_path_entry = message('remap_file_path_entry', {
  orig_id: [1, u32, required],
  remap_id: [2, u32, required],
  remap_type: [3, remap_type],
});

export const timeval = message('timeval', {
  tv_sec: [1, u64, required],
  tv_usec: [2, u64n, required],
});

/** A deleted file. The content follows the entry, or with `chunks` follows in pieces. */
export const ghost_file_entry = message('ghost_file_entry', {
  uid: [1, u32, required],
  gid: [2, u32, required],
  mode: [3, u32, required],
  dev: [4, u32],
  ino: [5, u64],
  rdev: [6, u32],
  atim: [7, timeval],
  mtim: [8, timeval],
  chunks: [9, bool],
  size: [10, u64n],
  symlnk_target: [11, string],
});

/** A piece of a deleted file, which follows the entry; between pieces are holes. */
export const ghost_chunk_entry = message('ghost_chunk_entry', {
  len: [1, u64n, required],
  off: [2, u64n, required],
});

/** flag: 1 fcntl(2), 2 flock(2), 4 F_OFD_SETLK, 8 F_SETLEASE; type: F_RDLCK, F_WRLCK, F_UNLCK, + 4: a lease that is broken; len 0 is to the end. */
export const file_lock_entry = message('file_lock_entry', {
  flag: [1, u32, required],
  type: [2, u32, required],
  pid: [3, i32, required],
  fd: [4, i32, required],
  start: [5, i64n, required],
  len: [6, i64n, required],
});
