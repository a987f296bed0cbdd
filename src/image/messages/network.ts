/** Network interfaces and network namespaces. */
import { bool, bytes, enumeration, i32, message, repeated, required, string, u32 } from '../proto.ts';

export const SysctlType = enumeration('SysctlType', {
  CTL_STR: 5,
  CTL_32: 6,
});

export const sysctl_entry = message('sysctl_entry', {
  type: [1, SysctlType, required],
  iarg: [2, i32],
  sarg: [3, string],
});

export const tunfile_entry = message('tunfile_entry', {
  id: [1, u32, required],
  netdev: [2, string],
  detached: [3, bool],
  ns_id: [4, u32],
});

export const tun_link_entry = message('tun_link_entry', {
  flags: [1, u32, required],
  owner: [2, i32, required],
  group: [3, i32, required],
  vnethdr: [4, u32, required],
  sndbuf: [5, u32, required],
});

export const macvlan_link_entry = message('macvlan_link_entry', {
  mode: [1, u32, required],
  flags: [2, u32],
});

export const sit_entry = message('sit_entry', {
  link: [1, u32],
  local: [2, u32, repeated],
  remote: [3, u32, repeated],
  ttl: [4, u32],
  tos: [5, u32],
  pmtudisc: [6, bool],
  proto: [7, u32],
  flags: [8, u32],
  encap_type: [9, u32],
  encap_flags: [10, u32],
  encap_sport: [11, u32],
  encap_dport: [12, u32],
  rd_prefixlen: [13, u32],
  rd_prefix: [14, u32, repeated],
  relay_prefixlen: [15, u32],
  relay_prefix: [16, u32, repeated],
});

export const nd_type = enumeration('nd_type', {
  LOOPBACK: 1,
  VETH: 2,
  TUN: 3,
  EXTLINK: 4,
  VENET: 5,
  BRIDGE: 6,
  MACVLAN: 7,
  SIT: 8,
});

/** A network interface. */
export const net_device_entry = message('net_device_entry', {
  type: [1, nd_type, required],
  ifindex: [2, u32, required],
  mtu: [3, u32, required],
  flags: [4, u32, required],
  name: [5, string, required],
  tun: [6, tun_link_entry],
  address: [7, bytes],
  conf: [8, i32, repeated],
  conf4: [9, sysctl_entry, repeated],
  conf6: [10, sysctl_entry, repeated],
  macvlan: [11, macvlan_link_entry],
  peer_ifindex: [12, u32],
  peer_nsid: [13, u32],
  master: [14, u32],
  sit: [15, sit_entry],
  // Not of CRIU.
  /** IFLA_INFO_KIND, and IFLA_INFO_DATA as the kernel gave it. */
  kind: [1000, string],
  data: [1001, bytes],
  /** IFLA_LINK: the device that it stands on, in the same namespace. */
  link: [1002, u32],
  txqlen: [1003, u32],
});

export const netns_id = message('netns_id', {
  target_ns_id: [1, u32, required],
  netnsid_value: [2, i32, required],
});

/** Settings of a network namespace. */
export const netns_entry = message('netns_entry', {
  def_conf: [1, i32, repeated],
  all_conf: [2, i32, repeated],
  def_conf4: [3, sysctl_entry, repeated],
  all_conf4: [4, sysctl_entry, repeated],
  def_conf6: [5, sysctl_entry, repeated],
  all_conf6: [6, sysctl_entry, repeated],
  nsids: [7, netns_id, repeated],
  ext_key: [8, string],
  unix_conf: [9, sysctl_entry, repeated],
  ipv4_sysctl: [10, sysctl_entry, repeated],
  // Not of CRIU.
  /** What /proc/sys/net has in the namespace: `ipv4/ip_forward=1`. */
  settings: [1000, string, repeated],
});
