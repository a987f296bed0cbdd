/** Setting up a network interface, as ip(8) does: rtnetlink(7). */
import { isIPv6, SocketAddress } from 'node:net';
import * as nl from '../abi/netlink.ts';
import * as rt from '../abi/rtnetlink.ts';
import { AF_INET, AF_INET6 } from '../abi/socket.ts';
import { attribute, NetlinkSocket } from './netlink.ts';

export interface InterfaceAddress {
  /** IPv4 or IPv6: `10.0.2.15`. */
  readonly address: string;
  /** Bits of it that are the network's. */
  readonly prefix: number;
  /** The way to everything else, of the same family; undefined for none. */
  readonly gateway: string | undefined;
}

/** Brings an interface up, with an address and a default route. What is there already stays. @throws SyscallError ENODEV, EPERM */
export function setUp(index: number, { address, prefix, gateway }: InterfaceAddress): void {
  using socket = new NetlinkSocket(nl.NETLINK_ROUTE);
  const order = (type: number, head: Uint8Array, attributes: readonly Uint8Array[], flags = 0) =>
    socket.request(type, Buffer.concat([head, ...attributes]), flags);
  const family = isIPv6(address) ? AF_INET6 : AF_INET;
  const link = new Uint8Array(rt.ifinfomsg.size);
  rt.ifinfomsg.write({ ifi_index: index, ifi_flags: rt.IFF_UP, ifi_change: rt.IFF_UP }, link);
  order(rt.RTM_NEWLINK, link, []);
  const own = new Uint8Array(rt.ifaddrmsg.size);
  // The address was this machine's a moment ago: nobody has to be asked whether it is another's.
  const ifa_flags = family === AF_INET6 ? rt.IFA_F_NODAD : 0;
  rt.ifaddrmsg.write({ ifa_family: family, ifa_prefixlen: prefix, ifa_flags, ifa_index: index }, own);
  const bytes = addressBytes(address);
  const replace = nl.NLM_F_CREATE | nl.NLM_F_REPLACE;
  order(rt.RTM_NEWADDR, own, [attribute(rt.IFA_LOCAL, bytes), attribute(rt.IFA_ADDRESS, bytes)], replace);
  if (gateway === undefined) return;
  const route = new Uint8Array(rt.rtmsg.size);
  rt.rtmsg.write(
    { rtm_family: family, rtm_table: rt.RT_TABLE_MAIN, rtm_protocol: rt.RTPROT_BOOT, rtm_type: rt.RTN_UNICAST },
    route,
  );
  const device = new Uint8Array(new Uint32Array([index]).buffer);
  const gate = attribute(rt.RTA_GATEWAY, addressBytes(gateway));
  order(rt.RTM_NEWROUTE, route, [gate, attribute(rt.RTA_OIF, device)], replace);
}

/** An address as it stands in packets: 4 or 16 bytes. @param address as text, without a zone */
export function addressBytes(address: string): Uint8Array {
  if (!isIPv6(address)) return Uint8Array.from(address.split('.'), Number);
  // Node writes it in its shortest form, in which the last 32 bits may be an IPv4 address.
  const shortest = new SocketAddress({ address, family: 'ipv6' }).address;
  const text = shortest.replace(/[\d.]+$/, (last) => {
    if (!last.includes('.')) return last;
    const [a, b, c, d] = last.split('.').map(Number);
    return `${((a! << 8) | b!).toString(16)}:${((c! << 8) | d!).toString(16)}`;
  });
  const [before, after] = text.split('::') as [string, string | undefined];
  const words = (part: string) => (part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16)));
  const [head, tail] = [words(before), words(after ?? '')];
  const all = [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail];
  return Uint8Array.from(all.flatMap((word) => [word >>> 8, word & 255]));
}
