/** Setting up a network interface, as ip(8) does: rtnetlink(7). */
import * as nl from '../abi/netlink.ts';
import * as rt from '../abi/rtnetlink.ts';
import { AF_INET } from '../abi/socket.ts';
import { attribute, NetlinkSocket } from './netlink.ts';

export interface InterfaceAddress {
  /** IPv4, `10.0.2.15`. */
  readonly address: string;
  /** Bits of it that are the network's. */
  readonly prefix: number;
  /** The way to everything else; undefined for none. */
  readonly gateway: string | undefined;
}

/** Brings an interface up, with an address and a default route. What is there already stays. @throws SyscallError ENODEV, EPERM */
export function setUp(index: number, { address, prefix, gateway }: InterfaceAddress): void {
  using socket = new NetlinkSocket(nl.NETLINK_ROUTE);
  const order = (type: number, head: Uint8Array, attributes: readonly Uint8Array[], flags = 0) =>
    socket.request(type, Buffer.concat([head, ...attributes]), flags);
  const link = new Uint8Array(rt.ifinfomsg.size);
  rt.ifinfomsg.write({ ifi_index: index, ifi_flags: rt.IFF_UP, ifi_change: rt.IFF_UP }, link);
  order(rt.RTM_NEWLINK, link, []);
  const own = new Uint8Array(rt.ifaddrmsg.size);
  rt.ifaddrmsg.write({ ifa_family: AF_INET, ifa_prefixlen: prefix, ifa_index: index }, own);
  const bytes = bytesOf(address);
  const replace = nl.NLM_F_CREATE | nl.NLM_F_REPLACE;
  order(rt.RTM_NEWADDR, own, [attribute(rt.IFA_LOCAL, bytes), attribute(rt.IFA_ADDRESS, bytes)], replace);
  if (gateway === undefined) return;
  const route = new Uint8Array(rt.rtmsg.size);
  rt.rtmsg.write(
    { rtm_family: AF_INET, rtm_table: rt.RT_TABLE_MAIN, rtm_protocol: rt.RTPROT_BOOT, rtm_type: rt.RTN_UNICAST },
    route,
  );
  const device = new Uint8Array(new Uint32Array([index]).buffer);
  order(rt.RTM_NEWROUTE, route, [attribute(rt.RTA_GATEWAY, bytesOf(gateway)), attribute(rt.RTA_OIF, device)], replace);
}

function bytesOf(address: string): Uint8Array {
  return Uint8Array.from(address.split('.'), Number);
}
