/** Messages to and from the kernel's network parts: include/uapi/linux/netlink.h, netlink(7) */
import { i32, struct, u16, u32 } from './struct.ts';

/** Protocol of the socket. */
export const NETLINK_ROUTE = 0;
export const NETLINK_SOCK_DIAG = 4;
export const NETLINK_NETFILTER = 12;

/** Level of options, and those that are a group or a list of them; what can be on or off. */
export const SOL_NETLINK = 270;
export const NETLINK_ADD_MEMBERSHIP = 1;
export const NETLINK_LIST_MEMBERSHIPS = 9;
export const NETLINK_PKTINFO = 3;
export const NETLINK_BROADCAST_ERROR = 4;
export const NETLINK_NO_ENOBUFS = 5;
export const NETLINK_LISTEN_ALL_NSID = 8;
export const NETLINK_CAP_ACK = 10;
export const NETLINK_EXT_ACK = 11;
export const NETLINK_GET_STRICT_CHK = 12;

/** `nlmsg_type` of control messages. */
export const NLMSG_NOOP = 0x1;
export const NLMSG_ERROR = 0x2;
export const NLMSG_DONE = 0x3;
export const NLMSG_OVERRUN = 0x4;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_MULTI = 0x2;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_ROOT = 0x100;
export const NLM_F_MATCH = 0x200;
export const NLM_F_DUMP = 0x300;
/** Of orders that make something. */
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;

export const NLA_F_NESTED = 0x8000;
/** Mask of an attribute's type without its flags NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
export const NLA_TYPE_MASK = 0x3fff;

export const sockaddr_nl = struct('sockaddr_nl', 12, { nl_family: u16, nl_pad: u16, nl_pid: u32, nl_groups: u32 });

/** `nlmsg_len` counts the header too. A message begins at a multiple of NLMSG_ALIGNTO from the one before. */
export const nlmsghdr = struct('nlmsghdr', 16, {
  nlmsg_len: u32,
  nlmsg_type: u16,
  nlmsg_flags: u16,
  nlmsg_seq: u32,
  nlmsg_pid: u32,
});

/** `error` is 0 (an acknowledgement) or -errno; `msg` is the head of the request it answers. */
export const nlmsgerr = struct('nlmsgerr', 20, { error: i32, msg: nlmsghdr });

export const nlattr = struct('nlattr', 4, { nla_len: u16, nla_type: u16 });

export const NLMSG_ALIGNTO = 4;
export const NLA_ALIGNTO = 4;
