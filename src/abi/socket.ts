/**
 * Sockets: include/linux/socket.h, include/linux/net.h, include/uapi/asm-generic/socket.h, include/uapi/linux/in.h,
 * include/uapi/linux/un.h
 */
import { be16, bytes, chars, i32, struct, u16, u32, u64n } from './struct.ts';

export const AF_UNSPEC = 0;
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;

export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_SEQPACKET = 5;
export const SOCK_NONBLOCK = 0x800;
export const SOCK_CLOEXEC = 0x80000;

export const IPPROTO_IP = 0;
export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_IPV6 = 41;
export const IPPROTO_ICMPV6 = 58;
export const IPPROTO_UDPLITE = 136;
export const IPPROTO_RAW = 255;

export const IP_TOS = 1;
export const IP_TTL = 2;
export const IP_HDRINCL = 3;
export const IP_PKTINFO = 8;
export const IP_FREEBIND = 15;
export const IP_NODEFRAG = 22;
/** Of SOL_RAW and of IPPROTO_ICMPV6: which messages are kept from it. include/uapi/linux/icmp.h, icmpv6.h */
export const SOL_RAW = 255;
export const ICMP_FILTER = 1;
export const ICMPV6_FILTER = 1;

/** Of IPPROTO_UDP. */
export const UDP_CORK = 1;

export const IPV6_UNICAST_HOPS = 16;
export const IPV6_V6ONLY = 26;
export const IPV6_HDRINCL = 36;
export const IPV6_RECVPKTINFO = 49;
export const IPV6_TCLASS = 67;
export const IPV6_FREEBIND = 78;

export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_TYPE = 3;
export const SO_ERROR = 4;
export const SO_DONTROUTE = 5;
export const SO_BROADCAST = 6;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_KEEPALIVE = 9;
export const SO_OOBINLINE = 10;
export const SO_NO_CHECK = 11;
export const SO_PRIORITY = 12;
export const SO_LINGER = 13;
export const SO_REUSEPORT = 15;
export const SO_PASSCRED = 16;
export const SO_RCVLOWAT = 18;
export const SO_RCVTIMEO = 20;
export const SO_SNDTIMEO = 21;
export const SO_BINDTODEVICE = 25;
/** SO_GET_FILTER as well. */
export const SO_ATTACH_FILTER = 26;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const SO_PASSSEC = 34;
export const SO_MARK = 36;
export const SO_PROTOCOL = 38;
export const SO_DOMAIN = 39;
/** Where MSG_PEEK begins to read, or -1. */
export const SO_PEEK_OFF = 42;
/** Which of the buffer sizes were set by the program: SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK. */
export const SO_BUF_LOCK = 72;

/** Descriptors in a control message. */
export const SCM_RIGHTS = 1;

export const SHUT_RD = 0;
export const SHUT_WR = 1;
export const SHUT_RDWR = 2;

/** Bytes that were sent and not read: of UNIX sockets; of TCP those not acknowledged. TIOCOUTQ. */
export const SIOCOUTQ = 0x5411;

/** Bytes that were not sent yet: include/uapi/linux/sockios.h */
export const SIOCOUTQNSD = 0x894b;

export const IFNAMSIZ = 16;
export const SIOCGIFNAME = 0x8910;
export const SIOCGIFINDEX = 0x8933;

/** include/uapi/linux/if.h; of the union only what is asked for here. */
export const ifreq = struct('ifreq', 40, { ifr_name: chars(16), ifr_ifindex: i32, ifr_rest: bytes(20) });

/** Gives a descriptor of the file that a UNIX socket is bound to. */
export const SIOCUNIXFILE = 0x89e0;

export const sockaddr_in = struct('sockaddr_in', 16, {
  sin_family: u16,
  sin_port: be16,
  sin_addr: bytes(4),
  __pad: bytes(8),
});

export const sockaddr_in6 = struct('sockaddr_in6', 28, {
  sin6_family: u16,
  sin6_port: be16,
  /** Network byte order. */
  sin6_flowinfo: u32,
  sin6_addr: bytes(16),
  /** Index of an interface. */
  sin6_scope_id: u32,
});

/** With a name in full length; one may be shorter. */
export const sockaddr_un = struct('sockaddr_un', 110, { sun_family: u16, sun_path: bytes(108) });

/** `struct msghdr` of user space: `user_msghdr` in include/linux/socket.h. */
export const msghdr = struct('msghdr', 56, {
  msg_name: u64n,
  msg_namelen: i32,
  /** Array of struct iovec. */
  msg_iov: u64n,
  msg_iovlen: u64n,
  msg_control: u64n,
  msg_controllen: u64n,
  msg_flags: u32,
});

/** The data follows, the next one at a multiple of 8. */
export const cmsghdr = struct('cmsghdr', 16, { cmsg_len: u64n, cmsg_level: i32, cmsg_type: i32 });

export const MSG_PEEK = 0x2;
/** In an answer: control messages did not fit. */
export const MSG_CTRUNC = 0x8;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_EOR = 0x80;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_CMSG_CLOEXEC = 0x40000000;

/** A program of classic BPF, include/uapi/linux/filter.h: `filter` is the address of `len` instructions of 8 bytes. */
export const sock_fprog = struct('sock_fprog', 16, { len: u16, filter: u64n });
