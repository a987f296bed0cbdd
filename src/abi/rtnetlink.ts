/**
 * Devices, addresses, routes: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h, fib_rules.h, net/if.h, veth.h
 */
import { i32, struct, u8, u16, u32 } from './struct.ts';

export const RTM_NEWLINK = 16;
export const RTM_GETLINK = 18;
export const RTM_NEWADDR = 20;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
export const RTM_GETROUTE = 26;
export const RTM_NEWNEIGH = 28;
export const RTM_GETNEIGH = 30;
export const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
export const RTM_GETRULE = 34;

export const ifinfomsg = struct('ifinfomsg', 16, {
  ifi_family: u8,
  __ifi_pad: u8,
  ifi_type: u16,
  ifi_index: i32,
  ifi_flags: u32,
  ifi_change: u32,
});
export const ifaddrmsg = struct('ifaddrmsg', 8, {
  ifa_family: u8,
  ifa_prefixlen: u8,
  ifa_flags: u8,
  ifa_scope: u8,
  ifa_index: u32,
});
export const rtmsg = struct('rtmsg', 12, {
  rtm_family: u8,
  rtm_dst_len: u8,
  rtm_src_len: u8,
  rtm_tos: u8,
  rtm_table: u8,
  rtm_protocol: u8,
  rtm_scope: u8,
  rtm_type: u8,
  rtm_flags: u32,
});
export const ndmsg = struct('ndmsg', 12, {
  ndm_family: u8,
  ndm_pad1: u8,
  ndm_pad2: u16,
  ndm_ifindex: i32,
  ndm_state: u16,
  ndm_flags: u8,
  ndm_type: u8,
});

export const IFLA_ADDRESS = 1;
export const IFLA_IFNAME = 3;
export const IFLA_MTU = 4;
export const IFLA_LINK = 5;
export const IFLA_MASTER = 10;
export const IFLA_TXQLEN = 13;
export const IFLA_LINKINFO = 18;
export const IFLA_NET_NS_FD = 28;
export const IFLA_LINK_NETNSID = 37;
export const IFLA_INFO_KIND = 1;
export const IFLA_INFO_DATA = 2;
export const VETH_INFO_PEER = 1;
/** How many addresses a bridge has learned: only told. */
export const IFLA_BR_FDB_N_LEARNED = 48;

export const IFF_UP = 0x1;
export const IFF_LOOPBACK = 0x8;

export const IFA_ADDRESS = 1;
export const IFA_LOCAL = 2;
export const IFA_FLAGS = 8;
export const IFA_CACHEINFO = 6;
/** Made by the kernel itself when the device comes up, or as others say it. */
export const IFA_F_NODAD = 0x2;

export const RTA_OIF = 4;
export const RTA_GATEWAY = 5;
export const RTA_TABLE = 15;
export const RT_TABLE_MAIN = 254;
export const RTN_UNICAST = 1;
export const RTPROT_BOOT = 3;
export const RTA_CACHEINFO = 12;
export const RT_TABLE_LOCAL = 255;
export const RTPROT_KERNEL = 2;
export const RTM_F_CLONED = 0x200;

export const NUD_PERMANENT = 0x80;
