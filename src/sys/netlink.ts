/** Conversation with the kernel's network parts: netlink(7). */
import { Errno } from '../abi/errno.ts';
import * as abi from '../abi/netlink.ts';
import { AF_NETLINK, MSG_TRUNC, SO_SNDBUFFORCE, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET } from '../abi/socket.ts';
import { viewOf } from '../abi/struct.ts';
import { FormatError, SyscallError } from '../errors.ts';
import { close } from './files.ts';
import { Region } from './region.ts';
import { recvfrom, sendto, setOption, socket } from './socket.ts';

/** One message of an answer; `payload` is what follows the nlmsghdr. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  readonly payload: Uint8Array;
}

/** What is asked for or to be done; `payload` is what follows the nlmsghdr. */
export interface NetlinkOrder {
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** More than the 32 KiB that the kernel puts into one datagram of a dump (netlink_dump of net/netlink/af_netlink.c). */
const RECEIVE_SIZE = 1 << 16;

/** A state that changes while it is dumped: how often a dump is begun again. */
const DUMP_ATTEMPTS = 8;

export class NetlinkSocket {
  readonly fd: number;
  readonly #buffer: Region;
  #seq = 0;

  /** @param protocol NETLINK_* @throws SyscallError EPROTONOSUPPORT (not in this kernel) */
  constructor(protocol: number) {
    this.fd = socket({ domain: AF_NETLINK, type: SOCK_RAW | SOCK_CLOEXEC, protocol });
    this.#buffer = new Region(RECEIVE_SIZE);
  }

  /**
   * Asks for all objects of a kind.
   *
   * @returns the messages of the whole answer
   * @throws SyscallError what the kernel answered; EINTR (the state kept changing, 8 times over)
   */
  dump(type: number, payload: Uint8Array): NetlinkMessage[] {
    for (let attempt = 1; ; attempt++) {
      const { messages, interrupted } = this.#exchange(type, abi.NLM_F_REQUEST | abi.NLM_F_DUMP, payload);
      if (!interrupted) return messages;
      if (attempt === DUMP_ATTEMPTS) throw failure(type, Errno.EINTR);
    }
  }

  /** Asks for one object, or gives an order. @returns the answer's messages, none for an order */
  request(type: number, payload: Uint8Array, flags = 0): NetlinkMessage[] {
    return this.#exchange(type, abi.NLM_F_REQUEST | abi.NLM_F_ACK | flags, payload).messages;
  }

  /**
   * Gives orders that are carried out all or none, between two marks that are not answered.
   *
   * @throws SyscallError what the kernel answered to the first that it refused
   */
  batch({ begin, orders, end }: { begin: NetlinkOrder; orders: readonly NetlinkOrder[]; end: NetlinkOrder }): void {
    const first = this.#seq + 1;
    const last = first + orders.length - 1;
    this.#seq = last;
    const acknowledge = (seq: number) => (seq === last ? abi.NLM_F_ACK : 0);
    const buf = Buffer.concat([
      messageOf(begin, abi.NLM_F_REQUEST, 0),
      ...orders.map((each, i) => messageOf(each, abi.NLM_F_REQUEST | each.flags | acknowledge(first + i), first + i)),
      messageOf(end, abi.NLM_F_REQUEST, 0),
    ]);
    this.#sendLarge(buf);
    // Only what failed is answered, or that the last one is done.
    for (;;) {
      for (const { type, seq, payload } of parseMessages(this.#receive())) {
        if (type !== abi.NLMSG_ERROR || seq < first) continue;
        const error = viewOf(payload).getInt32(abi.nlmsgerr.offsets.error, true);
        if (error < 0) throw failure(orders[seq - first]?.type ?? begin.type, -error);
        return;
      }
    }
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    close({ fd: this.fd });
    this.#buffer[Symbol.dispose]();
  }

  /** Sends one message of any size: the kernel takes it whole or not at all (EMSGSIZE). */
  #sendLarge(bytes: Uint8Array): void {
    const room = new Region(bytes.length);
    try {
      room.bytes.set(bytes);
      // What a message takes beside its bytes is counted too.
      setOption(this.fd, SOL_SOCKET, SO_SNDBUFFORCE, 2 * bytes.length);
      sendto({ sockfd: this.fd, buf: room.address, len: bytes.length, flags: 0, dest_addr: 0, addrlen: 0 });
    } finally {
      room[Symbol.dispose]();
    }
  }

  #exchange(type: number, flags: number, payload: Uint8Array): Answer {
    const seq = ++this.#seq;
    const buf = messageOf({ type, payload }, flags, seq);
    sendto({ sockfd: this.fd, buf, len: buf.length, flags: 0, dest_addr: 0, addrlen: 0 });
    return readAnswer(() => this.#receive(), type, seq);
  }

  /** One datagram, in a copy. */
  #receive(): Uint8Array {
    const { address: buf, size: len } = this.#buffer;
    const size = recvfrom({ sockfd: this.fd, buf, len, flags: MSG_TRUNC, src_addr: 0, addrlen: 0 });
    if (size > len) throw malformed(0, 'datagram', `at most ${len} bytes`, `${size} bytes`);
    return this.#buffer.bytes.slice(0, size);
  }
}

interface Answer {
  readonly messages: NetlinkMessage[];
  /** What was told changed meanwhile, so that something may be missing or there twice: NLM_F_DUMP_INTR. */
  readonly interrupted: boolean;
}

/**
 * Reads datagrams up to the end of an answer.
 *
 * @param type of the request, for the message of an error
 * @param seq number of the request; messages with other ones are left from an answer that an error cut short
 * @throws SyscallError what the kernel answered, also where a dump broke off
 */
export function readAnswer(receive: () => Uint8Array, type: number, seq: number): Answer {
  const messages: NetlinkMessage[] = [];
  let interrupted = false;
  for (;;) {
    for (const message of parseMessages(receive())) {
      if (message.seq !== seq) continue;
      interrupted ||= (message.flags & abi.NLM_F_DUMP_INTR) !== 0;
      if (message.type === abi.NLMSG_DONE || message.type === abi.NLMSG_ERROR) {
        // Both begin with 0 or -errno: netlink_dump_done() and netlink_ack() of net/netlink/af_netlink.c.
        const error = viewOf(message.payload).getInt32(abi.nlmsgerr.offsets.error, true);
        if (error < 0) throw failure(type, -error);
        return { messages, interrupted };
      }
      if (message.type !== abi.NLMSG_NOOP) messages.push(message);
    }
  }
}

/** A message as it is sent, filled up to where the next one begins. */
export function messageOf(
  { type, payload }: Pick<NetlinkOrder, 'type' | 'payload'>,
  flags: number,
  seq: number,
): Uint8Array {
  const length = abi.nlmsghdr.size + payload.length;
  const message = new Uint8Array(Math.ceil(length / abi.NLMSG_ALIGNTO) * abi.NLMSG_ALIGNTO);
  abi.nlmsghdr.write({ nlmsg_len: length, nlmsg_type: type, nlmsg_flags: flags, nlmsg_seq: seq }, message);
  message.set(payload, abi.nlmsghdr.size);
  return message;
}

/** Takes a datagram apart. @throws FormatError where a length leads out of it */
export function parseMessages(datagram: Uint8Array): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let at = 0; at < datagram.length; ) {
    const left = datagram.length - at;
    if (left < abi.nlmsghdr.size) throw malformed(at, 'nlmsghdr', `${abi.nlmsghdr.size} bytes`, `${left} bytes`);
    const { nlmsg_len, nlmsg_type, nlmsg_flags, nlmsg_seq } = abi.nlmsghdr.read(datagram, at);
    if (nlmsg_len < abi.nlmsghdr.size || nlmsg_len > left) {
      throw malformed(at, 'nlmsg_len', `${abi.nlmsghdr.size} to ${left}`, String(nlmsg_len));
    }
    const payload = datagram.subarray(at + abi.nlmsghdr.size, at + nlmsg_len);
    messages.push({ type: nlmsg_type, flags: nlmsg_flags, seq: nlmsg_seq, payload });
    at += Math.ceil(nlmsg_len / abi.NLMSG_ALIGNTO) * abi.NLMSG_ALIGNTO;
  }
  return messages;
}

/** One attribute, filled up to where the next one begins. */
export function attribute(type: number, value: Uint8Array): Uint8Array {
  const length = abi.nlattr.size + value.length;
  const bytes = new Uint8Array(Math.ceil(length / abi.NLA_ALIGNTO) * abi.NLA_ALIGNTO);
  abi.nlattr.write({ nla_len: length, nla_type: type }, bytes);
  bytes.set(value, abi.nlattr.size);
  return bytes;
}

/** An attribute of attributes. */
export function nested(type: number, ...attributes: Uint8Array[]): Uint8Array {
  return attribute(type | abi.NLA_F_NESTED, Buffer.concat(attributes));
}

/** Attributes by type, the last one of each. @throws FormatError where a length leads out of `bytes` */
export function parseAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  const attributes = new Map<number, Uint8Array>();
  const view = viewOf(bytes);
  for (let at = 0; at < bytes.length; ) {
    const left = bytes.length - at;
    if (left < abi.nlattr.size) throw malformed(at, 'nlattr', `${abi.nlattr.size} bytes`, `${left} bytes`);
    const length = view.getUint16(at + abi.nlattr.offsets.nla_len, true);
    if (length < abi.nlattr.size || length > left) {
      throw malformed(at, 'nla_len', `${abi.nlattr.size} to ${left}`, String(length));
    }
    const type = view.getUint16(at + abi.nlattr.offsets.nla_type, true) & abi.NLA_TYPE_MASK;
    attributes.set(type, bytes.subarray(at + abi.nlattr.size, at + length));
    at += Math.ceil(length / abi.NLA_ALIGNTO) * abi.NLA_ALIGNTO;
  }
  return attributes;
}

/** A message without some of its attributes. @param head bytes before the first of them */
export function withoutAttributes(payload: Uint8Array, head: number, types: readonly number[]): Uint8Array {
  const left = [...parseAttributes(payload.subarray(head))].filter(([type]) => !types.includes(type));
  return Buffer.concat([payload.subarray(0, head), ...left.map(([type, value]) => attribute(type, value))]);
}

function malformed(offset: number, field: string, expected: string, found: string): FormatError {
  return new FormatError({ file: 'netlink message', offset, field, expected, found });
}

function failure(type: number, errno: number): SyscallError {
  return new SyscallError('netlink', `netlink request of type ${type}`, errno);
}
