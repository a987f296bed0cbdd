/**
 * Connections of TCP: sequence numbers, options, windows and both queues, through TCP_REPAIR (Documentation of the kernel commit
 * ee9952831cfd). While a socket is in repair it sends nothing, also when it is closed. Packets are held back meanwhile, and until
 * a restore where the processes end: to a packet for a connection that it does not know the kernel answers with a reset.
 */
import { createHash } from 'node:crypto';
import { Errno } from '../../abi/errno.ts';
import { F_DUPFD_CLOEXEC } from '../../abi/fcntl.ts';
import { NETLINK_NETFILTER } from '../../abi/netlink.ts';
import { FIONREAD } from '../../abi/poll.ts';
import * as so from '../../abi/socket.ts';
import { viewOf } from '../../abi/struct.ts';
import * as tcp from '../../abi/tcp.ts';
import { FormatError, SyscallError } from '../../errors.ts';
import type { tcp_stream_entry } from '../../image/messages/sockets.ts';
import type { Value } from '../../image/proto.ts';
import { fileName, images } from '../../image/types.ts';
import { close, fcntl as control, ioctlInt } from '../../sys/files.ts';
import { NetlinkSocket } from '../../sys/netlink.ts';
import { type Connection, lockPackets, PacketLock, unlockMessages, unlockPackets } from '../../sys/nftables.ts';
import { Region } from '../../sys/region.ts';
import { connect, getOption, getOptionBytes, recvfrom, sendto, setOption, setsockopt } from '../../sys/socket.ts';
import { guardConnections, type TurningGuard } from '../guard.ts';
import type { Restoring } from '../restoring.ts';
import { bytesOfWords, type InetAddress, sockaddrOf } from './inetaddress.ts';
import { type Ending, endAfterRepair, endInRepair, endsOf } from './tcpend.ts';

export interface TcpStream {
  readonly ino: number;
  readonly entry: Value<typeof tcp_stream_entry>;
  /** What was received and not read, then what was sent and not acknowledged. */
  readonly bytes: Uint8Array;
}

/** A connection that is saved. */
interface Held {
  /** A descriptor of ours. */
  readonly fd: number;
  readonly ino: number;
  readonly connection: Connection;
}

/** The connections of a tree while it is saved. */
export class Connections {
  readonly #held: Held[] = [];
  /** Descriptors of those whose processes end, and of those that end with them. */
  readonly #left: number[] = [];
  readonly #ending: number[] = [];
  #lock: PacketLock | undefined;
  #guard: TurningGuard | undefined;

  /** @param local a descriptor of it, which may be closed afterwards */
  add(local: number, ino: number, own: InetAddress, peer: InetAddress): void {
    const fd = control({ fd: local, cmd: F_DUPFD_CLOEXEC, arg: 0 });
    this.#held.push({ fd, ino, connection: connectionOf(own, peer) });
  }

  /** @param local a descriptor of a connection that is to end if its processes do */
  addEnding(local: number): void {
    this.#ending.push(control({ fd: local, cmd: F_DUPFD_CLOEXEC, arg: 0 }));
  }

  /**
   * Holds packets back and reads all, each in repair for no longer than that takes: in repair a socket takes and gives nothing
   * (EINVAL, EPERM), and if we are killed its program goes on at once.
   *
   * @param tree processes that have them
   */
  save(tree: readonly number[]): TcpStream[] {
    if (this.#held.length === 0) return [];
    const connections = this.#held.map(({ connection }) => connection);
    const name = tableName(connections);
    this.#lock = new PacketLock(`${name}-checkpoint`, connections);
    const netlink = new NetlinkSocket(NETLINK_NETFILTER);
    try {
      this.#guard = guardConnections(
        this.#held.map(({ fd }) => fd),
        tree,
        { fd: netlink.fd, messages: unlockMessages(name) },
      );
    } finally {
      netlink[Symbol.dispose]();
    }
    return this.#held.map(({ fd, ino }) => {
      repair(fd, tcp.TCP_REPAIR_ON);
      try {
        return { ino, ...readStream(fd) };
      } finally {
        repair(fd, tcp.TCP_REPAIR_OFF_NO_WP);
      }
    });
  }

  /** Has packets held back until a restore. The processes end next, without a word to the other ends. If it throws, all go on. */
  leave(): void {
    // What is left of them for a minute (TIME_WAIT) does not keep a restored program from its port then.
    for (const fd of this.#ending) setOption(fd, so.SOL_SOCKET, so.SO_REUSEADDR, 1);
    if (this.#held.length === 0) return;
    const connections = this.#held.map(({ connection }) => connection);
    holdPackets(connections);
    try {
      for (const { fd } of this.#held) repair(fd, tcp.TCP_REPAIR_ON);
      this.#guard?.turn();
    } catch (error) {
      // The processes go on, and so do these.
      for (const { fd } of this.#held) endRepair(fd);
      unlockPackets(tableName(connections));
      throw error;
    }
    this.#left.push(...this.#held.splice(0).map(({ fd }) => fd));
  }

  /** Lets packets through to those that were not left. */
  [Symbol.dispose](): void {
    // Before their last descriptors are closed here: it would have them say that they end.
    this.#guard?.end();
    this.#guard = undefined;
    for (const fd of [
      ...this.#ending.splice(0),
      ...this.#left.splice(0),
      ...this.#held.splice(0).map((each) => each.fd),
    ])
      close({ fd });
    this.#lock?.[Symbol.dispose]();
    this.#lock = undefined;
  }
}

/** Has packets held back until a restore of these connections. */
export function holdPackets(connections: readonly Connection[]): void {
  if (connections.length > 0) lockPackets(tableName(connections), connections);
}

/** Lets packets through that holdPackets() holds back. */
export function releasePackets(connections: readonly Connection[]): void {
  if (connections.length > 0) unlockPackets(tableName(connections));
}

/**
 * The name of the table that a restore finds again. Process ids would not do: the root of a tree with ids of its own has 1 in each,
 * and connections are of one tree alone.
 */
function tableName(connections: readonly Connection[]): string {
  const end = ({ address, port }: Connection['own']) => `${[...address]}:${port}`;
  const all = connections.map(({ own, peer }) => `${end(own)} ${end(peer)}`).sort();
  return `tideover-${createHash('sha256').update(all.join()).digest('hex').slice(0, 16)}`;
}

export function connectionOf(own: InetAddress, peer: InetAddress): Connection {
  const end = ({ words, port }: InetAddress) => ({ address: packetAddress(bytesOfWords(words)), port });
  return { own: end(own), peer: end(peer) };
}

/** An IPv6 socket may speak IPv4: ::ffff:a.b.c.d, RFC 4291. */
function packetAddress(address: Uint8Array): Uint8Array {
  const mapped = address.length === 16 && address.subarray(0, 12).every((byte, i) => byte === (i < 10 ? 0 : 0xff));
  return mapped ? address.subarray(12) : address;
}

function repair(fd: number, value: number): void {
  setOption(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR, value);
}

/** Of a socket that may not be in repair. */
function endRepair(sockfd: number): void {
  const optval = new Uint8Array(4);
  viewOf(optval).setInt32(0, tcp.TCP_REPAIR_OFF_NO_WP, true);
  setsockopt.attempt({ sockfd, level: so.IPPROTO_TCP, optname: tcp.TCP_REPAIR, optval, optlen: 4 });
}

function option(fd: number, name: number): number {
  return getOption(fd, so.IPPROTO_TCP, name) >>> 0;
}

function readStream(fd: number): Omit<TcpStream, 'ino'> {
  const info = tcp.tcp_info.read(getOptionBytes(fd, so.IPPROTO_TCP, tcp.TCP_INFO, tcp.tcp_info.size));
  const window = tcp.tcp_repair_window.read(
    getOptionBytes(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR_WINDOW, tcp.tcp_repair_window.size),
  );
  const { sent: end } = endsOf(info.tcpi_state);
  const inq_len = ioctlInt(fd, FIONREAD);
  // An end that is not sent, or not acknowledged, is counted.
  const [outq_len, unsq_len] = [so.SIOCOUTQ, so.SIOCOUTQNSD].map((request) => Math.max(0, ioctlInt(fd, request) - end));
  setOption(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, tcp.TCP_RECV_QUEUE);
  const inq_seq = option(fd, tcp.TCP_QUEUE_SEQ);
  const received = peek(fd, inq_len);
  setOption(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, tcp.TCP_SEND_QUEUE);
  const outq_seq = option(fd, tcp.TCP_QUEUE_SEQ);
  const sent = peek(fd, outq_len!);
  setOption(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, tcp.TCP_NO_QUEUE);
  const scaled = (info.tcpi_options & tcp.TCPI_OPT_WSCALE) !== 0;
  const entry = {
    ...{ inq_len, inq_seq, outq_len: outq_len!, outq_seq, unsq_len: unsq_len! },
    opt_mask: info.tcpi_options & (tcp.TCPI_OPT_TIMESTAMPS | tcp.TCPI_OPT_SACK | tcp.TCPI_OPT_WSCALE),
    snd_wscale: scaled ? info.tcpi_wscale & 0xf : 0,
    rcv_wscale: scaled ? info.tcpi_wscale >> 4 : 0,
    // In repair it is what the other end has announced.
    mss_clamp: option(fd, tcp.TCP_MAXSEG),
    timestamp: option(fd, tcp.TCP_TIMESTAMP),
    ...(option(fd, tcp.TCP_CORK) === 0 ? {} : { cork: true }),
    ...(option(fd, tcp.TCP_NODELAY) === 0 ? {} : { nodelay: true }),
    ...window,
  };
  return { entry, bytes: Buffer.concat([received, sent]) };
}

/** The whole of a queue, which stays. */
function peek(fd: number, length: number): Uint8Array {
  if (length === 0) return new Uint8Array(0);
  const region = new Region(length + 1);
  try {
    const flags = so.MSG_PEEK | so.MSG_DONTWAIT;
    const size = recvfrom({ sockfd: fd, buf: region.address, len: length + 1, flags, src_addr: 0, addrlen: 0 });
    if (size === length) return region.bytes.slice(0, size);
    throw new Error(`a queue of ${length} bytes of a connection gave ${size}`);
  } finally {
    region[Symbol.dispose]();
  }
}

/**
 * Makes a new socket the connection that was saved; it stays in repair until all are ready. It is bound already.
 *
 * @param fd in repair
 * @returns ends that
 */
export function restoreConnection(
  fd: number,
  { ino, state }: { readonly ino: number; readonly state: number },
  [own, peer]: readonly [InetAddress, InetAddress],
  restoring: Restoring,
): () => void {
  const { entry, bytes } = streamOf(restoring, ino);
  const { inq_len, outq_len } = entry;
  const ends = endsOf(state);
  const [awaited, last] = [entry.inq_seq - ends.received, entry.outq_seq - ends.sent];
  const queue = (of: number, seq: number) => {
    setOption(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, of);
    setOption(fd, so.IPPROTO_TCP, tcp.TCP_QUEUE_SEQ, seq | 0);
  };
  queue(tcp.TCP_RECV_QUEUE, awaited - inq_len);
  queue(tcp.TCP_SEND_QUEUE, last - outq_len);
  const addr = sockaddrOf(fd, peer);
  connect({ sockfd: fd, addr, addrlen: addr.length });
  restoreStreamOptions(fd, entry);
  for (const name of [so.SO_SNDBUFFORCE, so.SO_RCVBUFFORCE])
    setOption(fd, so.SOL_SOCKET, name, 2 * bytes.length + ROOM);
  setOption(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, tcp.TCP_RECV_QUEUE);
  send(fd, bytes.subarray(0, inq_len));
  setOption(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, tcp.TCP_SEND_QUEUE);
  const sent = outq_len - (entry.unsq_len ?? 0);
  send(fd, bytes.subarray(inq_len, inq_len + sent));
  setOption(fd, so.IPPROTO_TCP, tcp.TCP_REPAIR_QUEUE, tcp.TCP_NO_QUEUE);
  const window = ['snd_wl1', 'snd_wnd', 'max_window', 'rcv_wnd', 'rcv_wup'] as const;
  if (window.every((name) => entry[name] !== undefined)) {
    const values = Object.fromEntries(window.map((name) => [name, entry[name]!])) as Record<
      (typeof window)[number],
      number
    >;
    values.rcv_wup = (values.rcv_wup - ends.received) >>> 0;
    values.rcv_wnd += ends.received;
    const optval = tcp.tcp_repair_window.write(values);
    setsockopt({ sockfd: fd, level: so.IPPROTO_TCP, optname: tcp.TCP_REPAIR_WINDOW, optval, optlen: optval.length });
  }
  const unsent = bytes.subarray(inq_len + sent);
  const ending: Ending = {
    ...{ state, connection: connectionOf(own, peer), awaited, last, acknowledged: last - outq_len },
    window: Math.min(0xffff, (entry.snd_wnd ?? 0) >>> entry.snd_wscale),
    unsent: unsent.length,
  };
  return () => {
    endInRepair(fd, ending);
    repair(fd, tcp.TCP_REPAIR_OFF);
    try {
      // What was never sent is sent as anything is.
      send(fd, unsent);
      endAfterRepair(fd, ending);
    } catch (error) {
      // The other end has given up meanwhile, and said so now: that is for the program to see, as if it had been there.
      if (!(error instanceof SyscallError && GIVEN_UP.includes(error.errno))) throw error;
    }
  };
}

/** What tcp(7) says of a connection that was reset. */
const GIVEN_UP: readonly number[] = [Errno.ECONNRESET, Errno.EPIPE, Errno.ENOTCONN, Errno.ETIMEDOUT];

/** More than what a queue takes beside its bytes. */
const ROOM = 1 << 16;

function restoreStreamOptions(fd: number, entry: TcpStream['entry']): void {
  const { opt_mask, mss_clamp, snd_wscale, rcv_wscale } = entry;
  const options: [code: number, value: number][] = [[tcp.TCPOPT_MSS, mss_clamp]];
  if ((opt_mask & tcp.TCPI_OPT_SACK) !== 0) options.push([tcp.TCPOPT_SACK_PERM, 0]);
  if ((opt_mask & tcp.TCPI_OPT_WSCALE) !== 0) {
    options.push([tcp.TCPOPT_WINDOW, snd_wscale | ((rcv_wscale ?? 0) << 16)]);
  }
  if ((opt_mask & tcp.TCPI_OPT_TIMESTAMPS) !== 0) options.push([tcp.TCPOPT_TIMESTAMP, 0]);
  const optval = Buffer.concat(options.map(([opt_code, opt_val]) => tcp.tcp_repair_opt.write({ opt_code, opt_val })));
  setsockopt({ sockfd: fd, level: so.IPPROTO_TCP, optname: tcp.TCP_REPAIR_OPTIONS, optval, optlen: optval.length });
  if (entry.timestamp !== undefined) setOption(fd, so.IPPROTO_TCP, tcp.TCP_TIMESTAMP, entry.timestamp | 0);
}

function send(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    const buf = bytes.subarray(done, done + (1 << 16));
    done += sendto({ sockfd: fd, buf, len: buf.length, flags: so.MSG_NOSIGNAL, dest_addr: 0, addrlen: 0 });
  }
}

function streamOf(restoring: Restoring, ino: number): TcpStream {
  const found = restoring.tcpStream(ino);
  if (found !== undefined) return { ino, ...found };
  const file = fileName(images.TCP_STREAM, ino);
  throw new FormatError({ file, field: 'file', expected: 'the state of a connection', found: 'none' });
}

/** Has packets of all connections held back while they are restored, and lets all through when they are. */
export function lockConnections(restoring: Restoring, connections: readonly [InetAddress, InetAddress][]): void {
  if (connections.length === 0) return;
  const packets = connections.map(([own, peer]) => connectionOf(own, peer));
  const lock = new PacketLock(`${tableName(packets)}-restore`, packets);
  restoring.atEnd(() => lock[Symbol.dispose]());
  // Before the sockets leave repair, which tells the other ends.
  restoring.onceReady(() => {
    unlockPackets(tableName(packets));
    lock[Symbol.dispose]();
  });
}

/** Has packets of connections let through that are restored as closed: the other ends are told, or would wait for ever. */
export function dropConnections(restoring: Restoring, connections: readonly [InetAddress, InetAddress][]): void {
  const packets = connections.map(([own, peer]) => connectionOf(own, peer));
  restoring.onceReady(() => unlockPackets(tableName(packets)));
}

/** Puts a new socket into the state in which it takes what was saved. */
export function beginRepair(fd: number): void {
  repair(fd, tcp.TCP_REPAIR_ON);
}
