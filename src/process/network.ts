/**
 * A network namespace that a tree has for itself: network_namespaces(7). Devices, addresses, routes, rules, neighbours, packet filters
 * and settings, as the kernel tells them and takes them: rtnetlink(7). This thread is in it.
 */
import { Errno } from '../abi/errno.ts';
import * as nl from '../abi/netlink.ts';
import * as rt from '../abi/rtnetlink.ts';
import { AF_UNSPEC } from '../abi/socket.ts';
import { viewOf } from '../abi/struct.ts';
import { bytesOf, textOf } from '../abi/text.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import type { net_device_entry } from '../image/messages/network.ts';
import type { Value } from '../image/proto.ts';
import { type ImageStore, readWhole, withSource } from '../image/store.ts';
import { entriesOf } from '../image/tree.ts';
import { images } from '../image/types.ts';
import {
  attribute,
  messageOf,
  type NetlinkMessage,
  NetlinkSocket,
  nested,
  parseAttributes,
  parseMessages,
  withoutAttributes,
} from '../sys/netlink.ts';
import { restoreSettings, saveSettings } from './netsettings.ts';
import { type RuleSet, refuseOldTables, restoreRuleSet, saveRuleSet } from './packetfilter.ts';

export type Device = Value<typeof net_device_entry>;

const ROUTE_MAGIC = 0x4531_1224;
/** What was dumped of one kind, and under which name and mark ip(8) writes it into a file. */
export const DUMPS = [
  { name: 'ifaddr', magic: 0x4736_1222, get: rt.RTM_GETADDR, head: rt.ifaddrmsg.size },
  { name: 'route', magic: ROUTE_MAGIC, get: rt.RTM_GETROUTE, head: rt.rtmsg.size },
  { name: 'rule', magic: 0x7170_6986, get: rt.RTM_GETRULE, head: rt.rtmsg.size },
  { name: 'neighbours', magic: 0, get: rt.RTM_GETNEIGH, head: rt.ndmsg.size },
] as const;
type Dump = (typeof DUMPS)[number]['name'];

export interface Network {
  readonly devices: readonly Device[];
  readonly dumps: Readonly<Record<Dump, readonly NetlinkMessage[]>>;
  readonly settings: readonly string[];
  readonly rules: RuleSet;
}

/** @throws UnsupportedError for a device of another kind */
export function saveNetwork(): Network {
  const socket = new NetlinkSocket(nl.NETLINK_ROUTE);
  try {
    refuseOldTables();
    const links = socket.dump(rt.RTM_GETLINK, rt.ifinfomsg.write({ ifi_family: AF_UNSPEC }));
    const dumps = DUMPS.map(({ name, get, head }) => [name, socket.dump(get, new Uint8Array(head)).filter(KEPT[name])]);
    return {
      devices: links.map(({ payload }) => saveDevice(payload)),
      dumps: Object.fromEntries(dumps) as Network['dumps'],
      settings: saveSettings(),
      rules: saveRuleSet(),
    };
  } finally {
    socket[Symbol.dispose]();
  }
}

const KEPT: Readonly<Record<Dump, (message: NetlinkMessage) => boolean>> = {
  ifaddr: () => true,
  // What the kernel adds by itself for an address, and what it has found out meanwhile.
  route({ payload }) {
    const { rtm_flags, rtm_table, rtm_protocol } = rt.rtmsg.read(payload);
    return (
      (rtm_flags & rt.RTM_F_CLONED) === 0 && !(rtm_table === rt.RT_TABLE_LOCAL && rtm_protocol === rt.RTPROT_KERNEL)
    );
  },
  rule: () => true,
  neighbours: ({ payload }) => (rt.ndmsg.read(payload).ndm_state & rt.NUD_PERMANENT) !== 0,
};

/** Kinds that are made again of what the kernel says of them. */
const KINDS: ReadonlyMap<string, Device['type']> = new Map([
  ['veth', 'VETH'],
  ['bridge', 'BRIDGE'],
  ['dummy', 'EXTLINK'],
  ['vlan', 'EXTLINK'],
]);
/** Devices that are in every new namespace where the kernel has them: of tunnels, without any use. */
const FALLBACK = /^(tunl|gre|gretap|erspan|ip_vti|ip6_vti|sit|ip6tnl|ip6gre)0$/;

function saveDevice(payload: Uint8Array): Device {
  const { ifi_index, ifi_flags } = rt.ifinfomsg.read(payload);
  const all = parseAttributes(payload.subarray(rt.ifinfomsg.size));
  const number = (type: number) => {
    const value = all.get(type);
    return value === undefined ? undefined : viewOf(value).getUint32(0, true);
  };
  const name = textOf(all.get(rt.IFLA_IFNAME)!.subarray(0, -1));
  const info = parseAttributes(all.get(rt.IFLA_LINKINFO) ?? new Uint8Array(0));
  const kind = info.get(rt.IFLA_INFO_KIND);
  const device: Device = {
    ...{ type: 'LOOPBACK', ifindex: ifi_index, mtu: number(rt.IFLA_MTU)!, flags: ifi_flags, name },
    ...{ conf: [], conf4: [], conf6: [] },
    address: all.get(rt.IFLA_ADDRESS)?.slice(),
    txqlen: number(rt.IFLA_TXQLEN),
    master: number(rt.IFLA_MASTER),
  };
  if ((ifi_flags & rt.IFF_LOOPBACK) !== 0 || FALLBACK.test(name)) return device;
  const word =
    kind === undefined ? 'none' : textOf(kind.subarray(0, kind.indexOf(0) < 0 ? kind.length : kind.indexOf(0)));
  const type = KINDS.get(word);
  if (type === undefined)
    throw refused(name, `devices of its kind (${word}) cannot be saved yet`, 'take it out of the namespace');
  device.type = type;
  device.kind = word;
  const outside = all.has(rt.IFLA_LINK_NETNSID);
  if (type === 'VETH') device.peer_ifindex = number(rt.IFLA_LINK) ?? 0;
  else device.link = number(rt.IFLA_LINK);
  if (type === 'VETH' && outside) device.peer_nsid = number(rt.IFLA_LINK_NETNSID)!;
  else if (outside) throw refused(name, 'it stands on a device of another namespace', 'take it out of the namespace');
  if (type !== 'VETH') device.data = info.get(rt.IFLA_INFO_DATA)?.slice();
  return device;
}

/** Where the other end of a veth comes to be, by the name of the one within: a name, and a bridge that it is put into. */
export type Peers = ReadonlyMap<string, { readonly name: string; readonly bridge?: string | undefined }>;

/**
 * Fills the namespace that this thread is in, which is new.
 *
 * @param outside descriptor of the namespace that other ends of veth are made in @throws UnsupportedError, SyscallError
 */
export function restoreNetwork({ devices, dumps, settings, rules }: Network, peers: Peers, outside: number): void {
  const socket = new NetlinkSocket(nl.NETLINK_ROUTE);
  try {
    const made = new Set<number>();
    const there = new Set(
      socket
        .dump(rt.RTM_GETLINK, rt.ifinfomsg.write({ ifi_family: AF_UNSPEC }))
        .map(({ payload }) => rt.ifinfomsg.read(payload).ifi_index),
    );
    // What stands on another one comes after it.
    for (const device of [...devices].sort((a, b) => (a.link ?? 0) - (b.link ?? 0) || a.ifindex - b.ifindex)) {
      if (there.has(device.ifindex) || made.has(device.ifindex)) continue;
      made.add(device.ifindex);
      makeDevice(socket, device, devices, peers, outside);
      if (device.type === 'VETH' && device.peer_nsid === undefined) made.add(device.peer_ifindex!);
    }
    for (const device of devices) setDevice(socket, device, there.has(device.ifindex));
    restoreSettings(settings);
    for (const device of devices) {
      if ((device.flags & rt.IFF_UP) !== 0) changeLink(socket, device.ifindex, [], rt.IFF_UP);
    }
    restoreAddresses(socket, dumps.ifaddr);
    restoreRules(socket, dumps.rule);
    restoreRoutes(socket, dumps.route);
    for (const { type, payload } of dumps.neighbours) add(socket, type, payload, nl.NLM_F_REPLACE);
    // Some of them are changed by what has been done since.
    restoreSettings(settings);
    restoreRuleSet(rules);
  } finally {
    socket[Symbol.dispose]();
  }
}

function makeDevice(
  socket: NetlinkSocket,
  device: Device,
  devices: readonly Device[],
  peers: Peers,
  outside: number,
): void {
  const { name, ifindex, kind, data, link } = device;
  const info = [attribute(rt.IFLA_INFO_KIND, bytesOf(kind ?? ''))];
  if (device.type === 'VETH') {
    const inside =
      device.peer_nsid === undefined ? devices.find((each) => each.ifindex === device.peer_ifindex) : undefined;
    const peer = inside ?? peers.get(name);
    if (peer === undefined) {
      throw refused(
        name,
        'its other end was in another namespace',
        `say what it is to be called: --veth-pair ${name}=NAME`,
      );
    }
    const head = rt.ifinfomsg.write({ ifi_index: inside?.ifindex ?? 0 });
    const place = inside === undefined ? [attribute(rt.IFLA_NET_NS_FD, word(outside))] : [];
    const other = [attribute(rt.IFLA_IFNAME, text(peer.name)), ...place];
    info[0] = attribute(rt.IFLA_INFO_KIND, bytesOf('veth'));
    info.push(nested(rt.IFLA_INFO_DATA, attribute(rt.VETH_INFO_PEER, Buffer.concat([head, ...other]))));
  } else if (kind === undefined)
    throw refused(name, `devices of type ${device.type} cannot be made again yet`, 'restore it with CRIU');
  else if (data !== undefined && kind !== 'bridge') info.push(nested(rt.IFLA_INFO_DATA, data));
  const attributes = [attribute(rt.IFLA_IFNAME, text(name)), nested(rt.IFLA_LINKINFO, ...info)];
  if (device.type !== 'VETH' && link !== undefined && link !== 0) attributes.push(attribute(rt.IFLA_LINK, word(link)));
  const payload = Buffer.concat([rt.ifinfomsg.write({ ifi_index: ifindex }), ...attributes]);
  socket.request(rt.RTM_NEWLINK, payload, nl.NLM_F_CREATE | nl.NLM_F_EXCL);
  if (kind === 'bridge') setBridge(socket, device);
}

/** A bridge is told only what it is not by itself: kernels refuse even the value that they have where a feature is not built in. */
function setBridge(socket: NetlinkSocket, { ifindex, data }: Device): void {
  if (data === undefined) return;
  const [now] = socket.request(rt.RTM_GETLINK, rt.ifinfomsg.write({ ifi_index: ifindex }));
  const has = parseAttributes(saveDevice(now!.payload).data ?? new Uint8Array(0));
  const others = [...parseAttributes(data)].filter(
    ([type, value]) =>
      type !== rt.IFLA_BR_FDB_N_LEARNED && Buffer.compare(value, has.get(type) ?? new Uint8Array(0)) !== 0,
  );
  if (others.length === 0) return;
  const differing = nested(rt.IFLA_INFO_DATA, ...others.map(([type, value]) => attribute(type, value)));
  const info = nested(rt.IFLA_LINKINFO, attribute(rt.IFLA_INFO_KIND, bytesOf('bridge')), differing);
  changeLink(socket, ifindex, [info], 0);
}

/** @param given whether the kernel has made it */
function setDevice(
  socket: NetlinkSocket,
  { ifindex, mtu, address: hardware, txqlen, master, flags }: Device,
  given: boolean,
): void {
  const attributes = [attribute(rt.IFLA_MTU, word(mtu))];
  if (!given && hardware !== undefined && hardware.length > 0) attributes.push(attribute(rt.IFLA_ADDRESS, hardware));
  if (txqlen !== undefined) attributes.push(attribute(rt.IFLA_TXQLEN, word(txqlen)));
  if (given && (flags & rt.IFF_LOOPBACK) === 0) return;
  changeLink(socket, ifindex, attributes, 0);
  if (master !== undefined) changeLink(socket, ifindex, [attribute(rt.IFLA_MASTER, word(master))], 0);
}

function changeLink(socket: NetlinkSocket, ifi_index: number, attributes: readonly Uint8Array[], flags: number): void {
  const head = rt.ifinfomsg.write({ ifi_index, ifi_flags: flags, ifi_change: flags });
  socket.request(rt.RTM_NEWLINK, Buffer.concat([head, ...attributes]));
}

/** Brings the other ends of veth, which are in the namespace of tideover, into their bridges, and up. */
export function connectPeers(devices: readonly Device[], peers: Peers): void {
  const used = devices.flatMap(({ name, peer_nsid }) => (peer_nsid === undefined ? [] : (peers.get(name) ?? [])));
  if (used.length === 0) return;
  const socket = new NetlinkSocket(nl.NETLINK_ROUTE);
  try {
    for (const { name, bridge } of used) {
      const index = (of: string): number => {
        const [found] = socket.request(
          rt.RTM_GETLINK,
          Buffer.concat([rt.ifinfomsg.write({}), attribute(rt.IFLA_IFNAME, text(of))]),
        );
        return rt.ifinfomsg.read(found!.payload).ifi_index;
      };
      if (bridge !== undefined) changeLink(socket, index(name), [attribute(rt.IFLA_MASTER, word(index(bridge)))], 0);
      changeLink(socket, index(name), [], rt.IFF_UP);
    }
  } finally {
    socket[Symbol.dispose]();
  }
}

/** The kernel gives some by itself when a device comes up. */
function restoreAddresses(socket: NetlinkSocket, wanted: readonly NetlinkMessage[]): void {
  const key = ({ payload }: NetlinkMessage) => {
    const rest = withoutAttributes(payload, rt.ifaddrmsg.size, [rt.IFA_CACHEINFO, rt.IFA_FLAGS]);
    // The flags of the head are those of the attribute.
    rest[rt.ifaddrmsg.offsets.ifa_flags] = 0;
    return Buffer.from(rest).toString('hex');
  };
  const has = new Set(socket.dump(rt.RTM_GETADDR, new Uint8Array(rt.ifaddrmsg.size)).map(key));
  for (const message of wanted) {
    if (!has.has(key(message))) add(socket, message.type, address(message.payload), nl.NLM_F_REPLACE);
  }
}

/** An address that is known to be nobody else's: it was here before. */
function address(payload: Uint8Array): Uint8Array {
  const head = rt.ifaddrmsg.read(payload);
  const all = parseAttributes(payload.subarray(rt.ifaddrmsg.size));
  const flags = all.get(rt.IFA_FLAGS);
  if (flags !== undefined) all.set(rt.IFA_FLAGS, word(viewOf(flags).getUint32(0, true) | rt.IFA_F_NODAD));
  const attributes = [...all].map(([type, value]) => attribute(type, value));
  return Buffer.concat([rt.ifaddrmsg.write({ ...head, ifa_flags: head.ifa_flags | rt.IFA_F_NODAD }), ...attributes]);
}

/** Those that a new namespace has and the old one had not are taken away. */
function restoreRules(socket: NetlinkSocket, wanted: readonly NetlinkMessage[]): void {
  const key = ({ payload }: NetlinkMessage) => Buffer.from(payload).toString('hex');
  const now = socket.dump(rt.RTM_GETRULE, new Uint8Array(rt.rtmsg.size));
  const [has, had] = [new Set(now.map(key)), new Set(wanted.map(key))];
  for (const rule of now) if (!had.has(key(rule))) socket.request(rt.RTM_DELRULE, rule.payload);
  for (const rule of wanted) if (!has.has(key(rule))) add(socket, rt.RTM_NEWRULE, rule.payload, 0);
}

/** A route by a gateway needs one to the gateway, which may stand behind it. What the kernel has added is there already. */
function restoreRoutes(socket: NetlinkSocket, routes: readonly NetlinkMessage[]): void {
  let left = [...routes];
  let failed: unknown;
  while (left.length > 0) {
    const still = left.filter(({ payload }) => {
      try {
        // Ages are told, and not to be set.
        add(socket, rt.RTM_NEWROUTE, withoutAttributes(payload, rt.rtmsg.size, [rt.RTA_CACHEINFO]), 0);
        return false;
      } catch (error) {
        failed = error;
        return true;
      }
    });
    if (still.length === left.length) throw failed;
    left = still;
  }
}

/** Makes something that may be there already. */
function add(socket: NetlinkSocket, type: number, payload: Uint8Array, flags: number): void {
  try {
    socket.request(type, payload, nl.NLM_F_CREATE | flags);
  } catch (error) {
    if (!(error instanceof SyscallError && error.errno === Errno.EEXIST)) throw error;
  }
}

/** Messages as ip(8) writes them into a file: a mark, and what the kernel sent. */
export function encodeDump(magic: number, messages: readonly NetlinkMessage[]): Uint8Array {
  const mark = magic === 0 ? [] : [word(magic)];
  return Buffer.concat([...mark, ...messages.map((each) => messageOf(each, each.flags, each.seq))]);
}

/** Reads such a file; the mark is passed over. */
function decodeDump(bytes: Uint8Array, magic: number): NetlinkMessage[] {
  return parseMessages(bytes.subarray(magic === 0 ? 0 : 4));
}

/** What an image says of a network namespace. CRIU writes no neighbours, routes of IPv6 by themselves, and packet filters in words. */
export function readNetwork(store: ImageStore, id: number): Network {
  const raw = (name: string, magic: number) => {
    const file = `${name}-${id}.img`;
    return store.has(file)
      ? decodeDump(
          withSource(store, file, (source) => readWhole(source, LARGEST)),
          magic,
        )
      : [];
  };
  const words = ['iptables', 'ip6tables', 'nftables'].find((name) => store.has(`${name}-${id}.img`));
  if (words !== undefined) {
    const [why, remedy] = ['rules for packets are in the words of another program', 'restore it with CRIU'];
    throw new UnsupportedError({ what: `${words}-${id}.img`, why, remedy });
  }
  const [ifaddr, route, rule, neighbours] = DUMPS.map(({ name, magic }) => raw(name, magic));
  return {
    devices: entriesOf(store, images.NETDEV, id),
    dumps: {
      ...{ ifaddr: ifaddr!, rule: rule!, neighbours: neighbours! },
      route: [...route!, ...raw('route6', ROUTE_MAGIC)],
    },
    settings: entriesOf(store, images.NETNS, id).flatMap(({ settings }) => settings),
    rules: raw('nf-tables', 0),
  };
}

const LARGEST = 64 << 20;

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return bytes;
}

function text(value: string): Uint8Array {
  return Buffer.concat([bytesOf(value), new Uint8Array(1)]);
}

function refused(name: string, why: string, remedy: string): UnsupportedError {
  return new UnsupportedError({ what: `network device ${name}`, why, remedy });
}
