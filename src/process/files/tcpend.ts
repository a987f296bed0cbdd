/**
 * Connections of which one direction, or both, has ended: RFC 9293, section 3.6. An end (FIN) takes one sequence number, and is no
 * byte of a queue. Ours is made by shutdown(2). That of the other side is not sent again, as it was acknowledged: a segment in the
 * name of the other side brings it, which never leaves this machine.
 *
 *     FIN_WAIT1  ours is sent          CLOSE_WAIT  theirs has come
 *     FIN_WAIT2  and acknowledged      LAST_ACK    ours is sent after it
 *     CLOSING    theirs has come while ours was on its way
 */
import {
  AF_INET,
  AF_INET6,
  IPPROTO_RAW,
  IPPROTO_TCP,
  SHUT_WR,
  SOCK_CLOEXEC,
  SOCK_RAW,
  sockaddr_in,
  sockaddr_in6,
} from '../../abi/socket.ts';
import { viewOf } from '../../abi/struct.ts';
import * as tcp from '../../abi/tcp.ts';
import { close } from '../../sys/files.ts';
import type { Connection } from '../../sys/nftables.ts';
import { sendto, setOption, shutdown, socket } from '../../sys/socket.ts';

const OURS: ReadonlySet<number> = new Set([tcp.TCP_FIN_WAIT1, tcp.TCP_FIN_WAIT2, tcp.TCP_CLOSING, tcp.TCP_LAST_ACK]);
const THEIRS: ReadonlySet<number> = new Set([tcp.TCP_CLOSE_WAIT, tcp.TCP_CLOSING, tcp.TCP_LAST_ACK]);

/** States in which a socket has another end, and sequence numbers. */
export function isConnected(state: number): boolean {
  return state === tcp.TCP_ESTABLISHED || OURS.has(state) || THEIRS.has(state);
}

/** How many sequence numbers ends take: of what we send, and of what we get. */
export function endsOf(state: number): { sent: 0 | 1; received: 0 | 1 } {
  return { sent: OURS.has(state) ? 1 : 0, received: THEIRS.has(state) ? 1 : 0 };
}

/** A connection as it stands before its ends are made again. */
export interface Ending {
  readonly state: number;
  readonly connection: Connection;
  /** Next byte that is awaited from the other side; first one of ours that is not acknowledged; the one behind our last. */
  readonly awaited: number;
  readonly acknowledged: number;
  readonly last: number;
  /** What the other side takes, as segments have it. */
  readonly window: number;
  /** Bytes that were never sent and come before our end. */
  readonly unsent: number;
}

/** Ends what is to be ended before the socket leaves repair: nothing is sent. */
export function endInRepair(fd: number, ending: Ending): void {
  const { state, unsent, awaited, acknowledged, last } = ending;
  const { sent, received } = endsOf(state);
  if (sent === 1 && unsent === 0 && state !== tcp.TCP_LAST_ACK) {
    setOption(fd, IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, tcp.TCP_SEND_QUEUE);
    shutdown({ sockfd: fd, how: SHUT_WR });
    setOption(fd, IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, tcp.TCP_NO_QUEUE);
  }
  if (received === 1) receive(ending, FIN | ACK, awaited, acknowledged);
  if (state === tcp.TCP_FIN_WAIT2) receive(ending, ACK, awaited, last + 1);
}

/** Ends our direction behind what is sent again, out of repair. */
export function endAfterRepair(fd: number, { state, unsent }: Ending): void {
  if (state === tcp.TCP_LAST_ACK || (endsOf(state).sent === 1 && unsent > 0)) shutdown({ sockfd: fd, how: SHUT_WR });
}

const FIN = 0x01;
const ACK = 0x10;

/** Has a socket of ours receive a segment without data. @param seq @param ack sequence numbers, of which 32 bits count */
function receive({ connection: { own, peer }, window }: Ending, flags: number, seq: number, ack: number): void {
  const v6 = own.address.length === 16;
  const segment = new Uint8Array(20);
  const view = viewOf(segment);
  view.setUint16(0, peer.port);
  view.setUint16(2, own.port);
  view.setUint32(4, seq >>> 0);
  view.setUint32(8, ack >>> 0);
  segment.set([0x50, flags], 12);
  view.setUint16(14, window);
  view.setUint16(16, checksum(peer.address, own.address, segment));
  const header = v6 ? headerV6(peer.address, own.address) : headerV4(peer.address, own.address);
  const packet = Buffer.concat([header, segment]);
  const to = v6
    ? sockaddr_in6.write({ sin6_family: AF_INET6, sin6_addr: own.address })
    : sockaddr_in.write({ sin_family: AF_INET, sin_addr: own.address });
  const raw = socket({ domain: v6 ? AF_INET6 : AF_INET, type: SOCK_RAW | SOCK_CLOEXEC, protocol: IPPROTO_RAW });
  try {
    sendto({ sockfd: raw, buf: packet, len: packet.length, flags: 0, dest_addr: to, addrlen: to.length });
  } finally {
    close({ fd: raw });
  }
}

/** RFC 791: the kernel completes length, id and checksum. */
function headerV4(from: Uint8Array, to: Uint8Array): Uint8Array {
  const header = new Uint8Array(20);
  header.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, IPPROTO_TCP]);
  header.set(from, 12);
  header.set(to, 16);
  return header;
}

/** RFC 8200. */
function headerV6(from: Uint8Array, to: Uint8Array): Uint8Array {
  const header = new Uint8Array(40);
  header.set([0x60, 0, 0, 0, 0, 20, IPPROTO_TCP, 64]);
  header.set(from, 8);
  header.set(to, 24);
  return header;
}

/** RFC 1071, over addresses, protocol and length as well. */
function checksum(from: Uint8Array, to: Uint8Array, segment: Uint8Array): number {
  let sum = IPPROTO_TCP + segment.length;
  for (const part of [from, to, segment]) {
    for (let at = 0; at < part.length; at += 2) sum += (part[at]! << 8) | part[at + 1]!;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
