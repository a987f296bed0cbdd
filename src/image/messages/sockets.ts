/** Sockets and what waits in them. */
import {
  bool,
  bytes,
  enumeration,
  fixed64,
  message,
  repeated,
  required,
  s32,
  string,
  u32,
  u64n,
  unixName,
} from '../proto.ts';
import { fown_entry } from './descriptors.ts';

export const sk_shutdown = enumeration('sk_shutdown', {
  NONE: 0,
  READ: 1,
  WRITE: 2,
  BOTH: 3,
});

/** getsockopt(2) of any socket. */
export const sk_opts_entry = message('sk_opts_entry', {
  so_sndbuf: [1, u32, required],
  so_rcvbuf: [2, u32, required],
  so_snd_tmo_sec: [3, u64n, required],
  so_snd_tmo_usec: [4, u64n, required],
  so_rcv_tmo_sec: [5, u64n, required],
  so_rcv_tmo_usec: [6, u64n, required],
  reuseaddr: [7, bool],
  so_priority: [8, u32],
  so_rcvlowat: [9, u32],
  so_mark: [10, u32],
  so_passcred: [11, bool],
  so_passsec: [12, bool],
  so_dontroute: [13, bool],
  so_no_check: [14, bool],
  so_bound_dev: [15, string],
  so_filter: [16, fixed64, repeated],
  so_reuseport: [17, bool],
  so_broadcast: [18, bool],
  so_keepalive: [19, bool],
  tcp_keepcnt: [20, u32],
  tcp_keepidle: [21, u32],
  tcp_keepintvl: [22, u32],
  so_oobinline: [23, u32],
  so_linger: [24, u32],
  so_buf_lock: [25, u32],
});

export const ip_opts_raw_entry = message('ip_opts_raw_entry', {
  hdrincl: [1, bool],
  nodefrag: [2, bool],
  checksum: [3, bool],
  icmpv_filter: [4, u32, repeated],
});

export const ip_opts_entry = message('ip_opts_entry', {
  freebind: [1, bool],
  raw: [4, ip_opts_raw_entry],
  pktinfo: [5, bool],
  tos: [6, u32],
  ttl: [7, u32],
});

export const tcp_opts_entry = message('tcp_opts_entry', {
  cork: [1, bool],
  nodelay: [2, bool],
  keepcnt: [3, u32],
  keepidle: [4, u32],
  keepintvl: [5, u32],
});

/** TCP, UDP and raw sockets. Addresses are one or four words in network order. */
export const inet_sk_entry = message('inet_sk_entry', {
  id: [1, u32, required],
  ino: [2, u32, required],
  family: [3, u32, required],
  type: [4, u32, required],
  proto: [5, u32, required],
  state: [6, u32, required],
  src_port: [7, u32, required],
  dst_port: [8, u32, required],
  flags: [9, u32, required],
  backlog: [10, u32, required],
  src_addr: [11, u32, repeated],
  dst_addr: [12, u32, repeated],
  fown: [13, fown_entry, required],
  opts: [14, sk_opts_entry, required],
  v6only: [15, bool],
  ip_opts: [16, ip_opts_entry],
  ifname: [17, string],
  ns_id: [18, u32],
  shutdown: [19, sk_shutdown],
  tcp_opts: [20, tcp_opts_entry],
});

/** TCP_REPAIR of a connection; both queues follow the entry. */
export const tcp_stream_entry = message('tcp_stream_entry', {
  inq_len: [1, u32, required],
  inq_seq: [2, u32, required],
  outq_len: [3, u32, required],
  outq_seq: [4, u32, required],
  opt_mask: [5, u32, required],
  snd_wscale: [6, u32, required],
  mss_clamp: [7, u32, required],
  rcv_wscale: [8, u32],
  timestamp: [9, u32],
  cork: [10, bool],
  nodelay: [11, bool],
  unsq_len: [12, u32],
  snd_wl1: [13, u32],
  snd_wnd: [14, u32],
  max_window: [15, u32],
  rcv_wnd: [16, u32],
  rcv_wup: [17, u32],
});

export const file_perms_entry = message('file_perms_entry', {
  mode: [1, u32, required],
  uid: [2, u32, required],
  gid: [3, u32, required],
});

/** A Unix socket; `peer` is the ino of the other end. */
export const unix_sk_entry = message('unix_sk_entry', {
  id: [1, u32, required],
  ino: [2, u32, required],
  type: [3, u32, required],
  state: [4, u32, required],
  flags: [5, u32, required],
  uflags: [6, u32, required],
  backlog: [7, u32, required],
  peer: [8, u32, required],
  fown: [9, fown_entry, required],
  opts: [10, sk_opts_entry, required],
  name: [11, unixName, required],
  shutdown: [12, sk_shutdown],
  file_perms: [13, file_perms_entry],
  name_dir: [14, string],
  deleted: [15, bool],
  ns_id: [16, u32],
  mnt_id: [17, s32, { default: -1 }],
  /** Our own field: it is not part of the image. */
  external: [1000, bool],
});

export const packet_mclist = message('packet_mclist', {
  index: [1, u32, required],
  type: [2, u32, required],
  addr: [3, bytes, required],
});

/** PACKET_RX_RING and PACKET_TX_RING. */
export const packet_ring = message('packet_ring', {
  block_size: [1, u32, required],
  block_nr: [2, u32, required],
  frame_size: [3, u32, required],
  frame_nr: [4, u32, required],
  retire_tmo: [5, u32, required],
  sizeof_priv: [6, u32, required],
  features: [7, u32, required],
});

export const packet_sock_entry = message('packet_sock_entry', {
  id: [1, u32, required],
  type: [2, u32, required],
  protocol: [3, u32, required],
  flags: [4, u32, required],
  ifindex: [5, u32, required],
  fown: [6, fown_entry, required],
  opts: [7, sk_opts_entry, required],
  version: [8, u32, required],
  reserve: [9, u32, required],
  aux_data: [10, bool, required],
  orig_dev: [11, bool, required],
  vnet_hdr: [12, bool, required],
  loss: [13, bool, required],
  timestamp: [14, u32, required],
  copy_thresh: [15, u32, required],
  mclist: [16, packet_mclist, repeated],
  fanout: [17, u32, { default: 4294967295 }],
  rx_ring: [18, packet_ring],
  tx_ring: [19, packet_ring],
  ns_id: [20, u32],
});

export const netlink_sk_entry = message('netlink_sk_entry', {
  id: [1, u32, required],
  ino: [2, u32, required],
  protocol: [3, u32, required],
  state: [4, u32, required],
  flags: [6, u32, required],
  portid: [7, u32, required],
  groups: [8, u32, repeated],
  dst_portid: [9, u32, required],
  dst_group: [10, u32, required],
  fown: [11, fown_entry, required],
  opts: [12, sk_opts_entry, required],
  ns_id: [13, u32],
  /** Ours: options of netlink(7) that are on. */
  options: [1000, u32, repeated],
});

/** Descriptors within the message (SCM_RIGHTS), by file id. */
export const scm_entry = message('scm_entry', {
  type: [1, u32, required],
  rights: [2, u32, repeated],
});

/** One message in a socket's receive queue, which follows the entry. */
export const sk_packet_entry = message('sk_packet_entry', {
  id_for: [1, u32, required],
  length: [2, u32, required],
  /** Whom it is from, as recvmsg(2) has it. Number and name are CRIU's, which does not write it. */
  addr: [3, bytes],
  scm: [4, scm_entry, repeated],
});
