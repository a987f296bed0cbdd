/**
 * What only datagrams of IPv4 and IPv6 have: a queue of messages with senders, and being shut down without a connection to end.
 * udp(7), raw(7), sock_diag(7)
 */
import { INET_DIAG_SHUTDOWN } from '../../abi/inet_diag.ts';
import {
  AF_INET,
  AF_INET6,
  IPPROTO_RAW,
  IPPROTO_UDP,
  IPPROTO_UDPLITE,
  SO_DOMAIN,
  SO_PROTOCOL,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOL_SOCKET,
  sockaddr_in,
  sockaddr_in6,
  UDP_CORK,
} from '../../abi/socket.ts';
import { viewOf } from '../../abi/struct.ts';
import { SyscallError, UnsupportedError } from '../../errors.ts';
import { close } from '../../sys/files.ts';
import { Messages } from '../../sys/message.ts';
import { inetSockets } from '../../sys/sock_diag.ts';
import { getOption, sendto, socket } from '../../sys/socket.ts';
import type { Saving } from '../saving.ts';
import type { OpenFile } from './file.ts';
import { bytesOfWords, type InetAddress } from './inetaddress.ts';
import { peekQueue, SHUTDOWN, type Shutdown } from './socket.ts';
import type { Packet } from './unixqueue.ts';

const ALL_STATES = 0xfff;

/** Whether it is shut down. A kernel without udp_diag does not tell; then it is taken for one that is not. */
export function shutdownOf(file: OpenFile, saving: Saving): { shutdown?: Shutdown } {
  const [family, protocol] = [SO_DOMAIN, SO_PROTOCOL].map((name) => getOption(file.local, SOL_SOCKET, name)) as [
    number,
    number,
  ];
  if (protocol !== IPPROTO_UDP && protocol !== IPPROTO_UDPLITE) return {};
  if (getOption(file.local, protocol, UDP_CORK) !== 0) {
    throw new UnsupportedError({
      what: file.link,
      pid: file.pid,
      fd: file.fd,
      why: 'a datagram that is not complete is corked in it (UDP_CORK)',
      remedy: 'try again in a moment, when the program has sent it',
    });
  }
  const how = saving.once(`sockets ${family} ${protocol}`, () => list(family, protocol)).get(Number(file.stat.stx_ino));
  return how === undefined || how === 0 ? {} : { shutdown: SHUTDOWN[how]! };
}

function list(family: number, protocol: number): Map<number, number> {
  const extensions = [INET_DIAG_SHUTDOWN];
  try {
    const all = inetSockets({ family, protocol, states: ALL_STATES, extensions });
    return new Map(all.map(({ inode, attributes }) => [inode, attributes.get(INET_DIAG_SHUTDOWN)?.[0] ?? 0]));
  } catch (error) {
    if (error instanceof SyscallError) return new Map();
    throw error;
  }
}

/** Room for the largest datagram. */
const LARGEST = 1 << 16;

/** Keeps what waits in it, with the addresses of the senders. */
export function saveDatagrams(file: OpenFile, saving: Saving): void {
  const messages = new Messages(LARGEST);
  try {
    for (const { bytes, from } of peekQueue(file.local, undefined, messages)) {
      saving.socketQueues.push({ entry: { id_for: file.id, length: bytes.length, addr: from, scm: [] }, bytes });
    }
  } finally {
    messages[Symbol.dispose]();
  }
}

/**
 * Sends again what waited in it, in the names of the senders: packets of a raw socket that never leave this machine.
 *
 * @param own what it is bound to
 * @throws UnsupportedError where not all of them arrive
 */
export function refillDatagrams(fd: number, own: InetAddress, packets: readonly Packet[]): void {
  const sent = packets.filter(({ entry }) => entry.addr !== undefined && entry.addr.length > 0);
  if (sent.length === 0) return;
  const v6 = own.family === AF_INET6;
  const raw = socket({ domain: own.family, type: SOCK_RAW | SOCK_CLOEXEC, protocol: IPPROTO_RAW });
  try {
    const target = own.words.every((word) => word === 0) ? LOOPBACK[v6 ? 'v6' : 'v4'] : bytesOfWords(own.words);
    for (const { entry, bytes } of sent) {
      const packet = v6
        ? packetV6(entry.addr!, target, own.port, bytes)
        : packetV4(entry.addr!, target, own.port, bytes);
      const to = v6
        ? sockaddr_in6.write({ sin6_family: AF_INET6, sin6_addr: target })
        : sockaddr_in.write({ sin_family: AF_INET, sin_addr: target });
      sendto({ sockfd: raw, buf: packet, len: packet.length, flags: 0, dest_addr: to, addrlen: to.length });
    }
  } finally {
    close({ fd: raw });
  }
  const messages = new Messages(LARGEST);
  try {
    const arrived = peekQueue(fd, undefined, messages).length;
    if (arrived === sent.length) return;
    throw new UnsupportedError({
      what: `port ${own.port}`,
      why: `of ${sent.length} datagrams that waited there ${arrived} could be put back`,
      remedy: 'look whether a firewall drops what comes over the loopback interface',
    });
  } finally {
    messages[Symbol.dispose]();
  }
}

const LOOPBACK = { v4: Uint8Array.of(127, 0, 0, 1), v6: new Uint8Array(16).fill(1, 15) } as const;

/** RFC 791, RFC 768: the kernel completes length, id and checksum of the header; UDP may go without one. */
function packetV4(sender: Uint8Array, target: Uint8Array, port: number, bytes: Uint8Array): Uint8Array {
  const { sin_port, sin_addr } = sockaddr_in.read(sender);
  const packet = new Uint8Array(20 + 8 + bytes.length);
  packet.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, IPPROTO_UDP]);
  packet.set(sin_addr, 12);
  packet.set(target, 16);
  packet.set(udpHeader(sin_port, port, bytes.length), 20);
  packet.set(bytes, 28);
  return packet;
}

/** RFC 8200: without a checksum UDP is dropped. */
function packetV6(sender: Uint8Array, target: Uint8Array, port: number, bytes: Uint8Array): Uint8Array {
  const { sin6_port, sin6_addr } = sockaddr_in6.read(sender);
  const length = 8 + bytes.length;
  const packet = new Uint8Array(40 + length);
  const view = viewOf(packet);
  packet.set([0x60, 0, 0, 0]);
  view.setUint16(4, length);
  packet.set([IPPROTO_UDP, 64], 6);
  packet.set(sin6_addr, 8);
  packet.set(target, 24);
  packet.set(udpHeader(sin6_port, port, bytes.length), 40);
  packet.set(bytes, 48);
  view.setUint16(46, checksum(packet, length));
  return packet;
}

function udpHeader(from: number, to: number, length: number): Uint8Array {
  const header = new Uint8Array(8);
  for (const [i, value] of [from, to, 8 + length, 0].entries()) viewOf(header).setUint16(2 * i, value);
  return header;
}

/** RFC 1071, over the pseudo header of RFC 8200, section 8.1. */
function checksum(packet: Uint8Array, length: number): number {
  let sum = length + IPPROTO_UDP;
  for (let at = 8; at < packet.length; at += 2) sum += (packet[at]! << 8) | (packet[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff || 0xffff;
}
