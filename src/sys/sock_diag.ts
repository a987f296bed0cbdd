/** The sockets of this network namespace: sock_diag(7). */
import * as inet from '../abi/inet_diag.ts';
import { NETLINK_SOCK_DIAG } from '../abi/netlink.ts';
import { SOCK_DIAG_BY_FAMILY } from '../abi/sock_diag.ts';
import { AF_INET, AF_UNIX } from '../abi/socket.ts';
import { viewOf } from '../abi/struct.ts';
import { textOf } from '../abi/text.ts';
import * as unix from '../abi/unix_diag.ts';
import { NetlinkSocket, parseAttributes } from './netlink.ts';

/** A socket of IPv4 or IPv6. */
export interface InetSocket {
  readonly family: number;
  /** A state of src/abi/tcp.ts. */
  readonly state: number;
  /** 4 or 16 bytes. */
  readonly source: Uint8Array;
  readonly sourcePort: number;
  readonly destination: Uint8Array;
  readonly destinationPort: number;
  /** Index of the interface it is bound to, or 0. */
  readonly interface: number;
  readonly cookie: bigint;
  /** Bytes not yet read; of a listening socket: connections not yet accepted. */
  readonly receiveQueue: number;
  /** Bytes not yet acknowledged; of a listening socket: the backlog. */
  readonly sendQueue: number;
  readonly uid: number;
  /** As in the link /proc/PID/fd/N, `socket:[inode]`; 0 for one that no descriptor holds. */
  readonly inode: number;
  /** INET_DIAG_* that were asked for and are there. */
  readonly attributes: ReadonlyMap<number, Uint8Array>;
}

/**
 * Lists sockets of one family and protocol.
 *
 * @param states bit n asks for state n
 * @param extensions INET_DIAG_* attributes to send along, from 1 to 8
 * @throws SyscallError ENOENT (kernel without this protocol's diag module)
 */
export function inetSockets(of: {
  readonly family: number;
  readonly protocol: number;
  readonly states: number;
  readonly extensions?: readonly number[];
}): InetSocket[] {
  const request = inet.inet_diag_req_v2.write({
    sdiag_family: of.family,
    sdiag_protocol: of.protocol,
    idiag_ext: (of.extensions ?? []).reduce((mask, attribute) => mask | (1 << (attribute - 1)), 0),
    idiag_states: of.states,
  });
  return dump(request).map(parseInetSocket);
}

export function parseInetSocket(payload: Uint8Array): InetSocket {
  const message = inet.inet_diag_msg.read(payload);
  const { id } = message;
  const addressSize = message.idiag_family === AF_INET ? 4 : 16;
  return {
    family: message.idiag_family,
    state: message.idiag_state,
    source: id.idiag_src.slice(0, addressSize),
    sourcePort: id.idiag_sport,
    destination: id.idiag_dst.slice(0, addressSize),
    destinationPort: id.idiag_dport,
    interface: id.idiag_if,
    cookie: cookieOf(id.idiag_cookie),
    receiveQueue: message.idiag_rqueue,
    sendQueue: message.idiag_wqueue,
    uid: message.idiag_uid,
    inode: message.idiag_inode,
    attributes: parseAttributes(payload.subarray(inet.inet_diag_msg.size)),
  };
}

/** A socket of the UNIX domain. */
export interface UnixSocket {
  /** SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET. */
  readonly type: number;
  /** A state of src/abi/tcp.ts: TCP_ESTABLISHED, TCP_LISTEN or TCP_CLOSE. */
  readonly state: number;
  readonly inode: number;
  readonly cookie: bigint;
  /** A path, or NUL and a name of the abstract namespace; undefined for one that was never bound. */
  readonly name: string | undefined;
  /** Inode and device of the file it is bound to. */
  readonly file: { readonly inode: number; readonly device: number } | undefined;
  /** Inode of the other end. */
  readonly peer: number | undefined;
  /** Of a listening socket: inodes of those that connect and are not yet accepted. */
  readonly pending: readonly number[];
  /** Bytes not yet read, or connections not yet accepted. */
  readonly receiveQueue: number;
  /** Bytes not yet read by the other end, or the backlog. */
  readonly sendQueue: number;
  /** Bit 0: nothing more is received, bit 1: nothing more is sent; shutdown(2). */
  readonly shutdown: number;
}

/** Lists the sockets of the UNIX domain. @param states bit n asks for state n */
export function unixSockets(states: number): UnixSocket[] {
  const { UDIAG_SHOW_NAME, UDIAG_SHOW_VFS, UDIAG_SHOW_PEER, UDIAG_SHOW_ICONS, UDIAG_SHOW_RQLEN } = unix;
  const request = unix.unix_diag_req.write({
    sdiag_family: AF_UNIX,
    udiag_states: states,
    udiag_show: UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN,
  });
  return dump(request).map(parseUnixSocket);
}

export function parseUnixSocket(payload: Uint8Array): UnixSocket {
  const message = unix.unix_diag_msg.read(payload);
  const attributes = parseAttributes(payload.subarray(unix.unix_diag_msg.size));
  const name = attributes.get(unix.UNIX_DIAG_NAME);
  const vfs = attributes.get(unix.UNIX_DIAG_VFS);
  const file = vfs && unix.unix_diag_vfs.read(vfs);
  const queues = attributes.get(unix.UNIX_DIAG_RQLEN);
  const queue = queues && unix.unix_diag_rqlen.read(queues);
  return {
    type: message.udiag_type,
    state: message.udiag_state,
    inode: message.udiag_ino,
    cookie: cookieOf(message.udiag_cookie),
    name: name && pathOf(name),
    file: file && { inode: file.udiag_vfs_ino, device: file.udiag_vfs_dev },
    peer: u32s(attributes.get(unix.UNIX_DIAG_PEER))[0],
    pending: u32s(attributes.get(unix.UNIX_DIAG_ICONS)),
    receiveQueue: queue?.udiag_rqueue ?? 0,
    sendQueue: queue?.udiag_wqueue ?? 0,
    shutdown: attributes.get(unix.UNIX_DIAG_SHUTDOWN)?.[0] ?? 0,
  };
}

function dump(request: Uint8Array): Uint8Array[] {
  const netlink = new NetlinkSocket(NETLINK_SOCK_DIAG);
  try {
    return netlink.dump(SOCK_DIAG_BY_FAMILY, request).map(({ payload }) => payload);
  } finally {
    netlink[Symbol.dispose]();
  }
}

/** A path may end with a NUL, an abstract name begins with one and may hold more. */
function pathOf(bytes: Uint8Array): string {
  const end = bytes[0] === 0 ? -1 : bytes.indexOf(0);
  return textOf(end < 0 ? bytes : bytes.subarray(0, end));
}

function cookieOf([low, high]: readonly number[]): bigint {
  return BigInt(low!) | (BigInt(high!) << 32n);
}

function u32s(bytes: Uint8Array | undefined): number[] {
  if (bytes === undefined) return [];
  const view = viewOf(bytes);
  return Array.from({ length: Math.floor(bytes.length / 4) }, (_, i) => view.getUint32(4 * i, true));
}
