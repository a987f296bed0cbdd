/** Sockets of the UNIX domain: include/uapi/linux/unix_diag.h, sock_diag(7) */
import { array, struct, u8, u16, u32 } from './struct.ts';

export const unix_diag_req = struct('unix_diag_req', 24, {
  sdiag_family: u8,
  sdiag_protocol: u8,
  pad: u16,
  /** Bit n asks for sockets in state n of tcp.ts. */
  udiag_states: u32,
  /** 0 asks for all. */
  udiag_ino: u32,
  /** UDIAG_SHOW_*: which attributes to send. */
  udiag_show: u32,
  udiag_cookie: array(u32, 2),
});

export const UDIAG_SHOW_NAME = 0x1;
export const UDIAG_SHOW_VFS = 0x2;
export const UDIAG_SHOW_PEER = 0x4;
export const UDIAG_SHOW_ICONS = 0x8;
export const UDIAG_SHOW_RQLEN = 0x10;
export const UDIAG_SHOW_MEMINFO = 0x20;

export const unix_diag_msg = struct('unix_diag_msg', 16, {
  udiag_family: u8,
  udiag_type: u8,
  udiag_state: u8,
  pad: u8,
  udiag_ino: u32,
  udiag_cookie: array(u32, 2),
});

/** Attributes. */
export const UNIX_DIAG_NAME = 0;
export const UNIX_DIAG_VFS = 1;
export const UNIX_DIAG_PEER = 2;
export const UNIX_DIAG_ICONS = 3;
export const UNIX_DIAG_RQLEN = 4;
export const UNIX_DIAG_MEMINFO = 5;
export const UNIX_DIAG_SHUTDOWN = 6;

/** Inode and device of the file that a socket is bound to. */
export const unix_diag_vfs = struct('unix_diag_vfs', 8, { udiag_vfs_ino: u32, udiag_vfs_dev: u32 });

/** Of a listening socket: connections not yet accepted, and the backlog. */
export const unix_diag_rqlen = struct('unix_diag_rqlen', 8, { udiag_rqueue: u32, udiag_wqueue: u32 });
