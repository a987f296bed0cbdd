/** Sockets of IPv4 and IPv6: include/uapi/linux/inet_diag.h, sock_diag(7) */
import { array, be16, bytes, struct, u8, u32 } from './struct.ts';

/** An IPv4 address takes the first 4 of the 16 bytes. */
export const inet_diag_sockid = struct('inet_diag_sockid', 48, {
  idiag_sport: be16,
  idiag_dport: be16,
  idiag_src: bytes(16),
  idiag_dst: bytes(16),
  idiag_if: u32,
  /** Names one socket among equals; INET_DIAG_NOCOOKIE twice where it is not known. */
  idiag_cookie: array(u32, 2),
});

export const inet_diag_req_v2 = struct('inet_diag_req_v2', 56, {
  sdiag_family: u8,
  sdiag_protocol: u8,
  /** Bit INET_DIAG_x - 1 asks for the attribute x. */
  idiag_ext: u8,
  pad: u8,
  /** Bit n asks for sockets in state n of tcp.ts. */
  idiag_states: u32,
  id: inet_diag_sockid,
});

export const inet_diag_msg = struct('inet_diag_msg', 72, {
  idiag_family: u8,
  idiag_state: u8,
  idiag_timer: u8,
  idiag_retrans: u8,
  id: inet_diag_sockid,
  /** Milliseconds. */
  idiag_expires: u32,
  /** Bytes not yet read; of a listening socket: connections not yet accepted. */
  idiag_rqueue: u32,
  /** Bytes not yet acknowledged; of a listening socket: the backlog. */
  idiag_wqueue: u32,
  idiag_uid: u32,
  idiag_inode: u32,
});

export const INET_DIAG_NOCOOKIE = 0xffffffff;

/** Attributes. */
export const INET_DIAG_MEMINFO = 1;
export const INET_DIAG_INFO = 2;
export const INET_DIAG_TOS = 5;
export const INET_DIAG_TCLASS = 6;
export const INET_DIAG_SKMEMINFO = 7;
export const INET_DIAG_SHUTDOWN = 8;
export const INET_DIAG_PROTOCOL = 10;
export const INET_DIAG_SKV6ONLY = 11;
export const INET_DIAG_MARK = 15;
