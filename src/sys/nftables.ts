/**
 * Holds back the packets of TCP connections while nobody answers for them: nf_tables of the kernel, without nft(8).
 * A rule for each direction of each connection; a table is made or removed at once.
 */
import { Errno } from '../abi/errno.ts';
import { NETLINK_NETFILTER, NLM_F_CREATE, NLM_F_REQUEST } from '../abi/netlink.ts';
import * as nft from '../abi/nf_tables.ts';
import { IPPROTO_TCP } from '../abi/socket.ts';
import { viewOf } from '../abi/struct.ts';
import { bytesOf } from '../abi/text.ts';
import { SyscallError } from '../errors.ts';
import { attribute, messageOf, type NetlinkOrder, NetlinkSocket, nested } from './netlink.ts';

/** Addresses of 4 or 16 bytes, ports as people write them. */
export interface Connection {
  readonly own: { readonly address: Uint8Array; readonly port: number };
  readonly peer: { readonly address: Uint8Array; readonly port: number };
}

/** A table that goes with the process that made it, whatever ends that. */
export class PacketLock {
  readonly #socket = new NetlinkSocket(NETLINK_NETFILTER);
  #open = true;

  /** @throws SyscallError EOPNOTSUPP, EPROTONOSUPPORT (kernel without nf_tables), EEXIST (there is one of this name) */
  constructor(name: string, connections: readonly Connection[]) {
    try {
      make(this.#socket, name, connections, nft.NFT_TABLE_F_OWNER);
    } catch (error) {
      this.#socket[Symbol.dispose]();
      throw error;
    }
  }

  /** Lets the packets through. */
  [Symbol.dispose](): void {
    if (this.#open) this.#socket[Symbol.dispose]();
    this.#open = false;
  }
}

/** Makes a table that stays until it is removed, or the system ends. */
export function lockPackets(name: string, connections: readonly Connection[]): void {
  using((socket) => make(socket, name, connections, 0));
}

/** Removes a table, if it is there. */
export function unlockPackets(name: string): void {
  for (const family of [nft.NFPROTO_IPV4, nft.NFPROTO_IPV6]) {
    try {
      using((socket) => socket.batch(nftBatch([removal(name, family)])));
    } catch (error) {
      if (!(error instanceof SyscallError && NOT_THERE.includes(error.errno))) throw error;
    }
  }
}

/** The table, or nf_tables in this kernel. */
const NOT_THERE: readonly number[] = [Errno.ENOENT, Errno.EPROTONOSUPPORT, Errno.EOPNOTSUPP];

/** What unlockPackets() says, for a socket of another one: a message for each family, of which one may not be there. */
export function unlockMessages(name: string): Uint8Array[] {
  return [nft.NFPROTO_IPV4, nft.NFPROTO_IPV6].map((family) => {
    const { begin, orders, end } = nftBatch([removal(name, family)]);
    return Buffer.concat([begin, ...orders, end].map((each) => messageOf(each, NLM_F_REQUEST, 0)));
  });
}

function removal(name: string, family: number): NetlinkOrder {
  return order(nft.NFT_MSG_DELTABLE, family, 0, text(nft.NFTA_TABLE_NAME, name));
}

function using(action: (socket: NetlinkSocket) => void): void {
  const socket = new NetlinkSocket(NETLINK_NETFILTER);
  try {
    action(socket);
  } finally {
    socket[Symbol.dispose]();
  }
}

function make(socket: NetlinkSocket, name: string, connections: readonly Connection[], flags: number): void {
  const orders = [
    [nft.NFPROTO_IPV4, connections.filter(({ own }) => own.address.length === 4)],
    [nft.NFPROTO_IPV6, connections.filter(({ own }) => own.address.length === 16)],
  ] as const;
  socket.batch(nftBatch(orders.flatMap(([family, of]) => (of.length === 0 ? [] : tableOf(name, family, of, flags)))));
}

function tableOf(name: string, family: number, connections: readonly Connection[], flags: number): NetlinkOrder[] {
  const chain = (called: string, hook: number) =>
    order(
      nft.NFT_MSG_NEWCHAIN,
      family,
      NLM_F_CREATE,
      text(nft.NFTA_CHAIN_TABLE, name),
      text(nft.NFTA_CHAIN_NAME, called),
      nested(nft.NFTA_CHAIN_HOOK, number(nft.NFTA_HOOK_HOOKNUM, hook), number(nft.NFTA_HOOK_PRIORITY, 0)),
      text(nft.NFTA_CHAIN_TYPE, 'filter'),
    );
  const rule = (called: string, from: Connection['own'], to: Connection['own']) =>
    order(
      nft.NFT_MSG_NEWRULE,
      family,
      NLM_F_CREATE,
      text(nft.NFTA_RULE_TABLE, name),
      text(nft.NFTA_RULE_CHAIN, called),
      nested(nft.NFTA_RULE_EXPRESSIONS, ...dropOf(from, to)),
    );
  return [
    order(
      nft.NFT_MSG_NEWTABLE,
      family,
      NLM_F_CREATE,
      text(nft.NFTA_TABLE_NAME, name),
      number(nft.NFTA_TABLE_FLAGS, flags),
    ),
    chain('input', nft.NF_INET_LOCAL_IN),
    chain('output', nft.NF_INET_LOCAL_OUT),
    ...connections.flatMap(({ own, peer }) => [rule('input', peer, own), rule('output', own, peer)]),
  ];
}

/** Offset of the sender's address in the header; the receiver's follows. RFC 791, RFC 8200 */
const ADDRESSES_AT: Record<number, number> = { 4: 12, 16: 8 };

/** Protocol, addresses and ports are loaded and compared one after the other, then the packet is dropped. */
function dropOf(from: Connection['own'], to: Connection['own']): Uint8Array[] {
  const { length } = from.address;
  const ports = new Uint8Array(4);
  viewOf(ports).setUint16(0, from.port);
  viewOf(ports).setUint16(2, to.port);
  return [
    expression('meta', number(nft.NFTA_META_DREG, nft.NFT_REG_1), number(nft.NFTA_META_KEY, nft.NFT_META_L4PROTO)),
    equal(Uint8Array.of(IPPROTO_TCP)),
    load(nft.NFT_PAYLOAD_NETWORK_HEADER, ADDRESSES_AT[length]!, length),
    equal(from.address),
    load(nft.NFT_PAYLOAD_NETWORK_HEADER, ADDRESSES_AT[length]! + length, length),
    equal(to.address),
    load(nft.NFT_PAYLOAD_TRANSPORT_HEADER, 0, ports.length),
    equal(ports),
    expression(
      'immediate',
      number(nft.NFTA_IMMEDIATE_DREG, nft.NFT_REG_VERDICT),
      nested(nft.NFTA_IMMEDIATE_DATA, nested(nft.NFTA_DATA_VERDICT, number(nft.NFTA_VERDICT_CODE, nft.NF_DROP))),
    ),
  ];
}

function load(base: number, offset: number, length: number): Uint8Array {
  return expression(
    'payload',
    number(nft.NFTA_PAYLOAD_DREG, nft.NFT_REG_1),
    number(nft.NFTA_PAYLOAD_BASE, base),
    number(nft.NFTA_PAYLOAD_OFFSET, offset),
    number(nft.NFTA_PAYLOAD_LEN, length),
  );
}

function equal(value: Uint8Array): Uint8Array {
  return expression(
    'cmp',
    number(nft.NFTA_CMP_SREG, nft.NFT_REG_1),
    number(nft.NFTA_CMP_OP, nft.NFT_CMP_EQ),
    nested(nft.NFTA_CMP_DATA, attribute(nft.NFTA_DATA_VALUE, value)),
  );
}

function expression(name: string, ...data: Uint8Array[]): Uint8Array {
  return nested(nft.NFTA_LIST_ELEM, text(nft.NFTA_EXPR_NAME, name), nested(nft.NFTA_EXPR_DATA, ...data));
}

function text(type: number, value: string): Uint8Array {
  return attribute(type, bytesOf(`${value}\0`));
}

/** Numbers are in network order here. */
function number(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value);
  return attribute(type, bytes);
}

function order(type: number, family: number, flags: number, ...attributes: Uint8Array[]): NetlinkOrder {
  const head = nft.nfgenmsg.write({ nfgen_family: family });
  return {
    type: (nft.NFNL_SUBSYS_NFTABLES << 8) | type,
    flags,
    payload: Buffer.concat([head, ...attributes]),
  };
}

/** Orders that are carried out all or none. */
export function nftBatch(orders: readonly NetlinkOrder[]): {
  begin: NetlinkOrder;
  orders: readonly NetlinkOrder[];
  end: NetlinkOrder;
} {
  const payload = nft.nfgenmsg.write({ res_id: nft.NFNL_SUBSYS_NFTABLES });
  const mark = (type: number) => ({ type, flags: 0, payload });
  return { begin: mark(nft.NFNL_MSG_BATCH_BEGIN), orders, end: mark(nft.NFNL_MSG_BATCH_END) };
}
