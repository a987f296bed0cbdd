/** Addresses of IPv4 and IPv6 as images and system calls have them: ip(7), ipv6(7). */
import { Errno } from '../../abi/errno.ts';
import {
  AF_INET,
  AF_INET6,
  IFNAMSIZ,
  ifreq,
  SIOCGIFINDEX,
  SIOCGIFNAME,
  sockaddr_in,
  sockaddr_in6,
} from '../../abi/socket.ts';
import { viewOf } from '../../abi/struct.ts';
import { ioctl } from '../../sys/files.ts';
import { getpeername, getsockname } from '../../sys/socket.ts';

export interface InetAddress {
  readonly family: number;
  readonly port: number;
  /** One or four words in network order, each read as the image has it. */
  readonly words: number[];
  /** Name of the interface that a link-local address belongs to. */
  readonly interface?: string | undefined;
}

export function ownAddress(local: number): InetAddress {
  const addr = new Uint8Array(sockaddr_in6.size);
  getsockname({ sockfd: local, addr, addrlen: Uint8Array.of(addr.length, 0, 0, 0) });
  return parse(local, addr);
}

/** @returns undefined for a socket that is not connected */
export function peerAddress(local: number): InetAddress | undefined {
  const addr = new Uint8Array(sockaddr_in6.size);
  const args = { sockfd: local, addr, addrlen: Uint8Array.of(addr.length, 0, 0, 0) };
  const result = getpeername.attempt(args);
  if (result === -Errno.ENOTCONN) return undefined;
  if (result < 0) throw getpeername.error(args, result);
  return parse(local, addr);
}

function parse(local: number, bytes: Uint8Array): InetAddress {
  const family = viewOf(bytes).getUint16(0, true);
  if (family === AF_INET) {
    const { sin_port, sin_addr } = sockaddr_in.read(bytes);
    return { family, port: sin_port, words: words(sin_addr) };
  }
  const { sin6_port, sin6_addr, sin6_scope_id } = sockaddr_in6.read(bytes);
  const place = { family, port: sin6_port, words: words(sin6_addr) };
  return sin6_scope_id === 0 ? place : { ...place, interface: interfaceName(local, sin6_scope_id) };
}

/** The struct sockaddr of an address. @param local any socket, by which interfaces are asked for */
export function sockaddrOf(local: number, { family, port, words: address, interface: name }: InetAddress): Uint8Array {
  const bytes = bytesOfWords(address);
  if (family === AF_INET) return sockaddr_in.write({ sin_family: AF_INET, sin_port: port, sin_addr: bytes });
  const sin6_scope_id = name === undefined ? 0 : interfaceIndex(local, name);
  return sockaddr_in6.write({ sin6_family: AF_INET6, sin6_port: port, sin6_addr: bytes, sin6_scope_id });
}

/** As they lie in memory, which is the order in which they are sent. */
export function bytesOfWords(address: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * address.length);
  for (const [i, word] of address.entries()) viewOf(bytes).setUint32(4 * i, word, true);
  return bytes;
}

/** An image has them as they lie in memory. */
function words(bytes: Uint8Array): number[] {
  return Array.from({ length: bytes.length / 4 }, (_, i) => viewOf(bytes).getUint32(4 * i, true));
}

function interfaceName(local: number, ifr_ifindex: number): string {
  const arg = ifreq.write({ ifr_ifindex });
  ioctl({ fd: local, request: SIOCGIFNAME, arg });
  return ifreq.read(arg).ifr_name;
}

function interfaceIndex(local: number, ifr_name: string): number {
  const arg = ifreq.write({ ifr_name: ifr_name.slice(0, IFNAMSIZ - 1) });
  ioctl({ fd: local, request: SIOCGIFINDEX, arg });
  return ifreq.read(arg).ifr_ifindex;
}
