/** What sockets of all families have: options of socket(7), and a queue of messages not yet read. */
import { Errno } from '../../abi/errno.ts';
import * as so from '../../abi/socket.ts';
import { viewOf } from '../../abi/struct.ts';
import { timeval } from '../../abi/time.ts';
import { SyscallError } from '../../errors.ts';
import type { inet_sk_entry, sk_opts_entry } from '../../image/messages/sockets.ts';
import type { Value } from '../../image/proto.ts';
import { close } from '../../sys/files.ts';
import type { Messages, Received } from '../../sys/message.ts';
import { Region } from '../../sys/region.ts';
import { getOption, getOptionBytes, getsockopt, setOption, setsockopt } from '../../sys/socket.ts';

export type SocketOptions = Value<typeof sk_opts_entry>;

export type Shutdown = NonNullable<Value<typeof inet_sk_entry>['shutdown']>;

/** By the two bits of the kernel's sk_shutdown; one less is what shutdown(2) takes. */
export const SHUTDOWN: readonly Shutdown[] = ['NONE', 'READ', 'WRITE', 'BOTH'];

/** Options that are on or off, by their name in the image. */
const SWITCHES = {
  reuseaddr: so.SO_REUSEADDR,
  so_passcred: so.SO_PASSCRED,
  so_passsec: so.SO_PASSSEC,
  so_dontroute: so.SO_DONTROUTE,
  so_no_check: so.SO_NO_CHECK,
  so_reuseport: so.SO_REUSEPORT,
  so_broadcast: so.SO_BROADCAST,
  so_keepalive: so.SO_KEEPALIVE,
} as const;

const SOCK_SNDBUF_LOCK = 1;
const SOCK_RCVBUF_LOCK = 2;

/** @param local a descriptor of this process */
export function saveOptions(local: number): SocketOptions {
  const option = (name: number) => optional(local, name) ?? 0;
  const timeout = (name: number) => {
    const view = viewOf(getOptionBytes(local, so.SOL_SOCKET, name, 16));
    return [view.getBigUint64(0, true), view.getBigUint64(8, true)].map(Number) as [number, number];
  };
  const [so_snd_tmo_sec, so_snd_tmo_usec] = timeout(so.SO_SNDTIMEO);
  const [so_rcv_tmo_sec, so_rcv_tmo_usec] = timeout(so.SO_RCVTIMEO);
  const linger = viewOf(getOptionBytes(local, so.SOL_SOCKET, so.SO_LINGER, 8));
  const switches = Object.entries(SWITCHES).flatMap(([name, number]) => (option(number) === 0 ? [] : [[name, true]]));
  const device = getOptionBytes(local, so.SOL_SOCKET, so.SO_BINDTODEVICE, 16);
  const [priority, mark, inline, lock] = [so.SO_PRIORITY, so.SO_MARK, so.SO_OOBINLINE, so.SO_BUF_LOCK].map(option);
  return {
    ...{ so_sndbuf: option(so.SO_SNDBUF), so_rcvbuf: option(so.SO_RCVBUF) },
    ...{ so_snd_tmo_sec, so_snd_tmo_usec, so_rcv_tmo_sec, so_rcv_tmo_usec },
    ...(Object.fromEntries(switches) as Partial<SocketOptions>),
    so_rcvlowat: option(so.SO_RCVLOWAT),
    so_filter: saveFilter(local),
    ...(priority === 0 ? {} : { so_priority: priority! }),
    ...(mark === 0 ? {} : { so_mark: mark! }),
    ...(inline === 0 ? {} : { so_oobinline: inline! }),
    ...(linger.getInt32(0, true) === 0 ? {} : { so_linger: linger.getInt32(4, true) }),
    ...(device.length > 1 ? { so_bound_dev: Buffer.from(device.subarray(0, -1)).toString() } : {}),
    ...(lock === 0 ? {} : { so_buf_lock: lock! }),
  };
}

export function restoreOptions(fd: number, options: SocketOptions): void {
  const { so_sndbuf, so_rcvbuf, so_bound_dev, so_linger, so_filter } = options;
  // The kernel doubles what it is told; SO_..FORCE is not limited by net.core.*mem_max, and locks.
  for (const [name, size] of [
    [so.SO_SNDBUFFORCE, so_sndbuf],
    [so.SO_RCVBUFFORCE, so_rcvbuf],
  ] as const) {
    setOption(fd, so.SOL_SOCKET, name, size / 2);
  }
  const lock = options.so_buf_lock ?? 0;
  if (lock !== (SOCK_SNDBUF_LOCK | SOCK_RCVBUF_LOCK)) {
    // ENOPROTOOPT before 5.15: they stay locked.
    const optval = Uint8Array.of(lock, 0, 0, 0);
    setsockopt.attempt({ sockfd: fd, level: so.SOL_SOCKET, optname: so.SO_BUF_LOCK, optval, optlen: 4 });
  }
  for (const [name, number] of Object.entries(SWITCHES)) {
    if (name === 'reuseaddr' || name === 'so_reuseport') continue;
    if (options[name as keyof typeof SWITCHES] === true) setOption(fd, so.SOL_SOCKET, number, 1);
  }
  setTimeouts(fd, options);
  if (options.so_rcvlowat !== undefined && options.so_rcvlowat !== 1) {
    // EOPNOTSUPP: families that have none.
    const optval = new Uint8Array(4);
    viewOf(optval).setInt32(0, options.so_rcvlowat, true);
    setsockopt.attempt({ sockfd: fd, level: so.SOL_SOCKET, optname: so.SO_RCVLOWAT, optval, optlen: 4 });
  }
  if (options.so_priority !== undefined) setOption(fd, so.SOL_SOCKET, so.SO_PRIORITY, options.so_priority);
  if (options.so_mark !== undefined) setOption(fd, so.SOL_SOCKET, so.SO_MARK, options.so_mark);
  if (options.so_oobinline !== undefined) setOption(fd, so.SOL_SOCKET, so.SO_OOBINLINE, options.so_oobinline);
  if (so_linger !== undefined) {
    const optval = new Uint8Array(8);
    viewOf(optval).setInt32(0, 1, true);
    viewOf(optval).setInt32(4, so_linger, true);
    setsockopt({ sockfd: fd, level: so.SOL_SOCKET, optname: so.SO_LINGER, optval, optlen: 8 });
  }
  if (so_bound_dev !== undefined) {
    const optval = Buffer.from(`${so_bound_dev}\0`);
    setsockopt({ sockfd: fd, level: so.SOL_SOCKET, optname: so.SO_BINDTODEVICE, optval, optlen: optval.length });
  }
  if (so_filter.length > 0) attachFilter(fd, so_filter);
}

/** Undoes what was set for the time of restoring: that another socket may have the address as well. */
export function restoreSharing(fd: number, { reuseaddr, so_reuseport }: SocketOptions): void {
  setOption(fd, so.SOL_SOCKET, so.SO_REUSEADDR, reuseaddr === true ? 1 : 0);
  setOption(fd, so.SOL_SOCKET, so.SO_REUSEPORT, so_reuseport === true ? 1 : 0);
}

function setTimeouts(fd: number, options: SocketOptions): void {
  for (const [optname, seconds, micros] of [
    [so.SO_SNDTIMEO, options.so_snd_tmo_sec, options.so_snd_tmo_usec],
    [so.SO_RCVTIMEO, options.so_rcv_tmo_sec, options.so_rcv_tmo_usec],
  ] as const) {
    if (seconds === 0 && micros === 0) continue;
    const optval = timeval.write({ tv_sec: seconds, tv_usec: micros });
    setsockopt({ sockfd: fd, level: so.SOL_SOCKET, optname, optval, optlen: optval.length });
  }
}

/** A program of classic BPF, 8 bytes an instruction; the option's length counts instructions. */
function saveFilter(local: number): bigint[] {
  const optlen = new Uint8Array(4);
  const ask = (optval: Uint8Array | 0) =>
    getsockopt.attempt({ sockfd: local, level: so.SOL_SOCKET, optname: so.SO_ATTACH_FILTER, optval, optlen });
  if (ask(0) < 0) return [];
  const count = viewOf(optlen).getUint32(0, true);
  if (count === 0) return [];
  const code = new Uint8Array(8 * count);
  const result = ask(code);
  if (result < 0) return [];
  return Array.from({ length: count }, (_, i) => viewOf(code).getBigUint64(8 * i, true));
}

function attachFilter(fd: number, filter: readonly bigint[]): void {
  const region = new Region(16 + 8 * filter.length);
  try {
    for (const [i, instruction] of filter.entries()) region.view.setBigUint64(16 + 8 * i, instruction, true);
    const optval = so.sock_fprog.write({ len: filter.length, filter: region.address + 16 });
    setsockopt({ sockfd: fd, level: so.SOL_SOCKET, optname: so.SO_ATTACH_FILTER, optval, optlen: optval.length });
  } finally {
    region[Symbol.dispose]();
  }
}

function optional(local: number, name: number): number | undefined {
  try {
    return getOption(local, so.SOL_SOCKET, name);
  } catch (error) {
    // An option that this kernel or this family does not have.
    if (error instanceof SyscallError && [Errno.ENOPROTOOPT, Errno.EOPNOTSUPP].includes(error.errno as 92)) {
      return undefined;
    }
    throw error;
  }
}

/**
 * Reads what waits in a socket, which stays there. Where one look does not show all, SO_PEEK_OFF of socket(7) leads on.
 *
 * A piece of a stream ends behind bytes that came with descriptors. It begins behind the one before: the kernel does not tell
 * which of its bytes came without, so the descriptors come with the first of them then (unix_stream_read_generic() in
 * net/unix/af_unix.c goes on to the next buffer before it looks whether bytes are still wanted).
 *
 * @param size bytes that wait in all; undefined for datagrams, of which only the end tells
 */
export function peekQueue(local: number, size: number | undefined, messages: Messages): Received[] {
  if (size === 0) return [];
  const first = messages.peek(local);
  if (first === undefined) return [];
  if (first.bytes.length === size) return [first];
  for (const fd of first.descriptors) close({ fd });
  const found: Received[] = [];
  const before = getOption(local, so.SOL_SOCKET, so.SO_PEEK_OFF);
  setOption(local, so.SOL_SOCKET, so.SO_PEEK_OFF, 0);
  try {
    for (let seen = 0; size === undefined || seen < size; ) {
      const received = messages.peek(local);
      if (received === undefined) break;
      found.push(received);
      seen += received.bytes.length;
    }
  } finally {
    setOption(local, so.SOL_SOCKET, so.SO_PEEK_OFF, before);
  }
  return found;
}
