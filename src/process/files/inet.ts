/**
 * Sockets of IPv4 and IPv6: those that listen, UDP, ICMP, raw ones; a TCP connection's own state is in tcp.ts.
 * ip(7), ipv6(7), udp(7), tcp(7)
 */
import { Errno } from '../../abi/errno.ts';
import * as so from '../../abi/socket.ts';
import { viewOf } from '../../abi/struct.ts';
import * as tcp from '../../abi/tcp.ts';
import { type SyscallError, UnsupportedError } from '../../errors.ts';
import type { inet_sk_entry, ip_opts_entry, tcp_opts_entry } from '../../image/messages/sockets.ts';
import type { Value } from '../../image/proto.ts';
import type { ImageTree } from '../../image/tree.ts';
import {
  bind,
  connect,
  getOption,
  getOptionBytes,
  listen,
  setOption,
  setsockopt,
  shutdown,
  socket,
} from '../../sys/socket.ts';
import type { Restoring } from '../restoring.ts';
import type { Saving } from '../saving.ts';
import { type FileKind, type OpenFile, restoreOwner, saveOwner, setStatusFlags } from './file.ts';
import { bytesOfWords, type InetAddress, ownAddress, peerAddress, sockaddrOf } from './inetaddress.ts';
import { restoreOptions, restoreSharing, SHUTDOWN, saveOptions } from './socket.ts';
import { beginRepair, dropConnections, lockConnections, restoreConnection } from './tcp.ts';
import { isConnected } from './tcpend.ts';
import { refillDatagrams, saveDatagrams, shutdownOf } from './udp.ts';

export type InetEntry = Value<typeof inet_sk_entry>;
type IpOptions = Value<typeof ip_opts_entry>;
type TcpOptions = Value<typeof tcp_opts_entry>;

export const inet: FileKind = {
  type: 'INETSK',

  matches({ link, local }) {
    if (!link.startsWith('socket:')) return false;
    const [family, proto] = familyOf(local);
    if (family !== so.AF_INET && family !== so.AF_INET6) return false;
    return PROTOCOLS.has(proto) || typeOf(local) === so.SOCK_RAW;
  },

  save(file, saving) {
    const { local } = file;
    const [family, proto] = familyOf(local);
    const type = typeOf(local);
    const [own, peer] = [ownAddress(local), peerAddress(local)];
    const { state, backlog } = type === so.SOCK_STREAM ? stateOf(file, saving) : { state: stateWith(peer), backlog: 0 };
    // One that was connected, or is to be restored as closed, has no addresses; reading from it gives its end.
    const kept = type !== so.SOCK_STREAM || state !== tcp.TCP_CLOSE || (peer === undefined && !wasConnected(local));
    const isk: InetEntry = {
      ...{ id: file.id, ino: Number(file.stat.stx_ino), family, type, proto, state },
      ...{ src_port: kept ? own.port : 0, src_addr: kept ? own.words : [] },
      ...{ dst_port: (kept && peer?.port) || 0, dst_addr: (kept && peer?.words) || [] },
      ...{ flags: file.flags, backlog, fown: saveOwner(file), opts: saveOptions(local) },
      ip_opts: saveIpOptions(local, family, type),
      ...(family === so.AF_INET6 ? { v6only: getOption(local, so.IPPROTO_IPV6, so.IPV6_V6ONLY) === 1 } : {}),
      ...((own.interface ?? peer?.interface) === undefined ? {} : { ifname: (own.interface ?? peer?.interface)! }),
      ...(type === so.SOCK_STREAM ? { tcp_opts: saveTcpOptions(local) } : {}),
      ...(type === so.SOCK_DGRAM ? shutdownOf(file, saving) : kept ? {} : { shutdown: 'BOTH' }),
    };
    if (!saving.stopped) return { isk };
    if (type === so.SOCK_DGRAM) saveDatagrams(file, saving);
    if (isConnection(isk)) saving.connections.add(local, isk.ino, own, peer!);
    else if (type === so.SOCK_STREAM && peer !== undefined) saving.connections.addEnding(local);
    return { isk };
  },

  restore(entry, restoring) {
    return restoreSocket(entry.isk!, restoring);
  },
};

const PROTOCOLS = new Set<number>([
  so.IPPROTO_TCP,
  so.IPPROTO_UDP,
  so.IPPROTO_UDPLITE,
  so.IPPROTO_ICMP,
  so.IPPROTO_ICMPV6,
]);

function familyOf(local: number): [family: number, proto: number] {
  return [getOption(local, so.SOL_SOCKET, so.SO_DOMAIN), getOption(local, so.SOL_SOCKET, so.SO_PROTOCOL)];
}

function typeOf(local: number): number {
  return getOption(local, so.SOL_SOCKET, so.SO_TYPE);
}

/** Whether a closed socket of TCP ever sent something: its port is somebody else's by now, or of nobody for a minute. */
function wasConnected(local: number): boolean {
  const info = getOptionBytes(local, so.IPPROTO_TCP, tcp.TCP_INFO, tcp.TCPI_SEGS_OUT_AT + 4);
  return info.length > tcp.TCPI_SEGS_OUT_AT && viewOf(info).getUint32(tcp.TCPI_SEGS_OUT_AT, true) > 0;
}

function stateWith(peer: InetAddress | undefined): number {
  return peer === undefined ? tcp.TCP_CLOSE : tcp.TCP_ESTABLISHED;
}

/**
 * What a socket of TCP is, and whether it can be saved.
 *
 * @throws UnsupportedError for a connection in passing, or one that is not to be kept
 */
function stateOf(file: OpenFile, { options }: Saving): { state: number; backlog: number } {
  const info = tcp.tcp_info.read(getOptionBytes(file.local, so.IPPROTO_TCP, tcp.TCP_INFO, tcp.tcp_info.size));
  const refuse = (why: string, remedy: string) =>
    new UnsupportedError({ what: file.link, pid: file.pid, fd: file.fd, why, remedy });
  const closed = { state: tcp.TCP_CLOSE, backlog: 0 };
  switch (info.tcpi_state) {
    case tcp.TCP_CLOSE:
      return closed;
    case tcp.TCP_LISTEN:
      // Of a listening socket these two are how many wait, and how many may.
      if (info.tcpi_unacked > 0 && options.skipInFlight !== true && options.connections !== 'closed') {
        throw refuse(
          'a connection waits to be accepted',
          'try again in a moment, when the program has accepted it, or give --skip-in-flight',
        );
      }
      return { state: tcp.TCP_LISTEN, backlog: info.tcpi_sacked };
    default:
      if (options.connections === 'closed') return closed;
      if (options.connections !== 'kept') {
        throw refuse(
          'it is connected',
          'give --tcp-established to keep the connection, or --tcp-close to restore it as closed',
        );
      }
      if (isConnected(info.tcpi_state)) return { state: info.tcpi_state, backlog: 0 };
      throw refuse('it is being connected', 'try again in a moment, or give --tcp-close');
  }
}

function saveIpOptions(local: number, family: number, type: number): IpOptions {
  const v6 = family === so.AF_INET6;
  const level = v6 ? so.IPPROTO_IPV6 : so.IPPROTO_IP;
  const on = (name: number) => (getOption(local, level, name) === 0 ? undefined : true);
  const freebind = on(v6 ? so.IPV6_FREEBIND : so.IP_FREEBIND);
  const pktinfo = on(v6 ? so.IPV6_RECVPKTINFO : so.IP_PKTINFO);
  const raw =
    type === so.SOCK_RAW
      ? {
          ...(on(v6 ? so.IPV6_HDRINCL : so.IP_HDRINCL) === undefined ? {} : { hdrincl: true }),
          ...(v6 || on(so.IP_NODEFRAG) === undefined ? {} : { nodefrag: true }),
          icmpv_filter: saveIcmpFilter(local, family),
        }
      : undefined;
  return {
    ...(freebind === undefined ? {} : { freebind }),
    ...(raw === undefined ? {} : { raw }),
    ...(pktinfo === undefined ? {} : { pktinfo }),
    tos: getOption(local, level, v6 ? so.IPV6_TCLASS : so.IP_TOS),
    ttl: getOption(local, level, v6 ? so.IPV6_UNICAST_HOPS : so.IP_TTL),
  };
}

/** What a raw socket of ICMP does not want to see: raw(7). */
function saveIcmpFilter(local: number, family: number): number[] {
  const [level, name, room] = icmpFilter(family);
  if (familyOf(local)[1] !== (family === so.AF_INET6 ? so.IPPROTO_ICMPV6 : so.IPPROTO_ICMP)) return [];
  const filter = viewOf(getOptionBytes(local, level, name, room));
  return Array.from({ length: room / 4 }, (_, i) => filter.getUint32(4 * i, true));
}

function icmpFilter(family: number): [level: number, name: number, size: number] {
  return family === so.AF_INET6 ? [so.IPPROTO_ICMPV6, so.ICMPV6_FILTER, 32] : [so.SOL_RAW, so.ICMP_FILTER, 4];
}

function restoreIpOptions(fd: number, family: number, options: IpOptions): void {
  const v6 = family === so.AF_INET6;
  const level = v6 ? so.IPPROTO_IPV6 : so.IPPROTO_IP;
  const set = (name: number, value: number | boolean | undefined) => {
    if (value !== undefined) setOption(fd, level, name, Number(value));
  };
  set(v6 ? so.IPV6_FREEBIND : so.IP_FREEBIND, options.freebind);
  set(v6 ? so.IPV6_RECVPKTINFO : so.IP_PKTINFO, options.pktinfo);
  set(v6 ? so.IPV6_HDRINCL : so.IP_HDRINCL, options.raw?.hdrincl);
  if (!v6) set(so.IP_NODEFRAG, options.raw?.nodefrag);
  const filter = options.raw?.icmpv_filter ?? [];
  if (filter.length > 0) {
    const [of, optname, optlen] = icmpFilter(family);
    setsockopt({ sockfd: fd, level: of, optname, optval: bytesOfWords(filter), optlen });
  }
  set(v6 ? so.IPV6_TCLASS : so.IP_TOS, options.tos);
  set(v6 ? so.IPV6_UNICAST_HOPS : so.IP_TTL, options.ttl);
}

function saveTcpOptions(local: number): TcpOptions {
  const option = (name: number) => getOption(local, so.IPPROTO_TCP, name);
  return {
    ...(option(tcp.TCP_CORK) === 0 ? {} : { cork: true }),
    ...(option(tcp.TCP_NODELAY) === 0 ? {} : { nodelay: true }),
    keepcnt: option(tcp.TCP_KEEPCNT),
    keepidle: option(tcp.TCP_KEEPIDLE),
    keepintvl: option(tcp.TCP_KEEPINTVL),
  };
}

function restoreTcpOptions(fd: number, { cork, nodelay, keepcnt, keepidle, keepintvl }: TcpOptions): void {
  for (const [name, value] of [
    [tcp.TCP_CORK, cork],
    [tcp.TCP_NODELAY, nodelay],
    [tcp.TCP_KEEPCNT, keepcnt],
    [tcp.TCP_KEEPIDLE, keepidle],
    [tcp.TCP_KEEPINTVL, keepintvl],
  ] as const) {
    if (value !== undefined) setOption(fd, so.IPPROTO_TCP, name, Number(value));
  }
}

function isConnection({ type, state }: InetEntry): boolean {
  return type === so.SOCK_STREAM && isConnected(state);
}

function restoreSocket(entry: InetEntry, restoring: Restoring): number {
  const { family, type, proto, state } = entry;
  const fd = socket({ domain: family, type: type | so.SOCK_CLOEXEC | so.SOCK_NONBLOCK, protocol: proto });
  if (entry.v6only !== undefined && (getOption(fd, so.IPPROTO_IPV6, so.IPV6_V6ONLY) === 1) !== entry.v6only) {
    setOption(fd, so.IPPROTO_IPV6, so.IPV6_V6ONLY, Number(entry.v6only));
  }
  restoreOwner(restoring, fd, entry.fown);
  const [own, peer] = addressesOf(entry);
  if (isConnection(entry) && restoring.connections === 'closed') {
    if (restoring.first('connections')) dropConnections(restoring, connectionsOf(restoring.tree));
    // Reading from it gives its end.
    shutdown.attempt({ sockfd: fd, how: so.SHUT_RDWR });
    settle(fd, entry);
    return fd;
  }
  const connection = isConnection(entry);
  if (connection) {
    if (restoring.first('connections')) lockConnections(restoring, connectionsOf(restoring.tree));
    beginRepair(fd);
  }
  // The program may have switched this off since it was bound.
  restoreIpOptions(fd, family, { freebind: true });
  if (own.port !== 0 || own.words.some((word) => word !== 0)) {
    // Others of the image may have the same address, and what the program left may not have timed out.
    setOption(fd, so.SOL_SOCKET, so.SO_REUSEADDR, 1);
    setOption(fd, so.SOL_SOCKET, so.SO_REUSEPORT, 1);
    bindTo(fd, own);
  }
  // The port must be taken when this changes.
  restoring.atEnd(() => restoreSharing(fd, entry.opts));
  if (connection) {
    const end = restoreConnection(fd, entry, [own, peer!], restoring);
    restoring.onceReady(() => {
      end();
      settle(fd, entry);
    });
    return fd;
  }
  // One that is connected takes them from its peer only.
  refillDatagrams(fd, own, restoring.socketQueues.get(entry.id) ?? []);
  if (state === tcp.TCP_LISTEN) listen({ sockfd: fd, backlog: entry.backlog });
  if (peer !== undefined) {
    const addr = sockaddrOf(fd, peer);
    connect({ sockfd: fd, addr, addrlen: addr.length });
  }
  settle(fd, entry);
  return fd;
}

/** What can be set at any time. */
function settle(fd: number, entry: InetEntry): void {
  restoreOptions(fd, entry.opts);
  restoreIpOptions(fd, entry.family, { freebind: false, ...entry.ip_opts });
  if (entry.tcp_opts !== undefined) restoreTcpOptions(fd, entry.tcp_opts);
  const how = SHUTDOWN.indexOf(entry.shutdown ?? 'NONE');
  // ENOTCONN says that it is not connected; what shutting down does, it has done.
  if (how > 0) shutdown.attempt({ sockfd: fd, how: how - 1 });
  setStatusFlags(fd, entry.flags);
}

/** Own and other ends of all connections of a tree. */
export function connectionsOf({ files }: ImageTree): [InetAddress, InetAddress][] {
  return [...files.values()].flatMap(({ isk }) => {
    if (isk === undefined || !isConnection(isk)) return [];
    const [own, peer] = addressesOf(isk);
    return [[own, peer!]];
  });
}

function addressesOf(entry: InetEntry): [InetAddress, InetAddress | undefined] {
  const { family, src_port, src_addr, dst_port, dst_addr, ifname } = entry;
  const own = { family, port: src_port, words: src_addr, interface: isLinkLocal(src_addr) ? ifname : undefined };
  const connected = isConnected(entry.state);
  const peer = { family, port: dst_port, words: dst_addr, interface: isLinkLocal(dst_addr) ? ifname : undefined };
  return [own, connected ? peer : undefined];
}

/** fe80::/10 */
function isLinkLocal(words: readonly number[]): boolean {
  return words.length === 4 && (words[0]! & 0xc0ff) === 0x80fe;
}

/** @throws UnsupportedError where the address is taken, or no longer there */
function bindTo(fd: number, own: InetAddress): void {
  const addr = sockaddrOf(fd, own);
  const args = { sockfd: fd, addr, addrlen: addr.length };
  const result = bind.attempt(args);
  if (result >= 0) return;
  const error: SyscallError = bind.error(args, result);
  const what = `port ${own.port}`;
  if (error.errno === Errno.EADDRINUSE) {
    throw new UnsupportedError({ what, why: 'another process uses it', remedy: 'end that one (ss -tulpn shows it)' });
  }
  if (error.errno === Errno.EADDRNOTAVAIL) {
    throw new UnsupportedError({
      what,
      why: 'it is of an address that this machine does not have',
      remedy: 'give the interface its address back (ip address add)',
    });
  }
  throw error;
}
