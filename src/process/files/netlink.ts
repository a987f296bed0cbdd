/** Sockets by which programs speak with the kernel: netlink(7). */
import { Errno } from '../../abi/errno.ts';
import * as nl from '../../abi/netlink.ts';
import * as so from '../../abi/socket.ts';
import { viewOf } from '../../abi/struct.ts';
import { TCP_CLOSE, TCP_ESTABLISHED } from '../../abi/tcp.ts';
import { UnsupportedError } from '../../errors.ts';
import {
  bind,
  connect,
  getOption,
  getOptionBytes,
  getpeername,
  getsockname,
  getsockopt,
  recvfrom,
  setOption,
  socket,
} from '../../sys/socket.ts';
import { type FileKind, type OpenFile, restoreOwner, saveOwner, setStatusFlags } from './file.ts';
import { restoreOptions, saveOptions } from './socket.ts';

/** Groups that a family may have, in bytes of a bitmap. */
const GROUPS = 1024;
const SWITCHES = [
  ...[nl.NETLINK_PKTINFO, nl.NETLINK_BROADCAST_ERROR, nl.NETLINK_NO_ENOBUFS, nl.NETLINK_LISTEN_ALL_NSID],
  ...[nl.NETLINK_CAP_ACK, nl.NETLINK_EXT_ACK, nl.NETLINK_GET_STRICT_CHK],
];

export const netlink: FileKind = {
  type: 'NETLINKSK',

  matches: ({ link, local }) =>
    link.startsWith('socket:') && getOption(local, so.SOL_SOCKET, so.SO_DOMAIN) === so.AF_NETLINK,

  check: refuseWaiting,

  save(file) {
    refuseWaiting(file);
    const { id, local, flags, stat } = file;
    const own = addressBy(getsockname, local);
    const peer = addressBy(getpeername, local);
    const connected = peer.nl_pid !== 0 || peer.nl_groups !== 0;
    const groups = viewOf(getOptionBytes(local, nl.SOL_NETLINK, nl.NETLINK_LIST_MEMBERSHIPS, GROUPS));
    return {
      nlsk: {
        ...{ id, ino: Number(stat.stx_ino), flags, fown: saveOwner(file), opts: saveOptions(local) },
        protocol: getOption(local, so.SOL_SOCKET, so.SO_PROTOCOL),
        state: connected ? TCP_ESTABLISHED : TCP_CLOSE,
        portid: own.nl_pid,
        groups: trimmed(Array.from({ length: groups.byteLength >> 2 }, (_, i) => groups.getUint32(4 * i, true))),
        ...{ dst_portid: peer.nl_pid, dst_group: peer.nl_groups },
        options: SWITCHES.filter((name) => isOn(local, name)),
      },
    };
  },

  restore(entry, restoring) {
    const { protocol, portid, groups, state, dst_portid, dst_group, flags, fown, opts, options } = entry.nlsk!;
    const type = so.SOCK_RAW | so.SOCK_CLOEXEC | so.SOCK_NONBLOCK;
    const fd = socket({ domain: so.AF_NETLINK, type, protocol });
    if (portid !== 0) bindTo(fd, portid);
    for (const [word, members] of groups.entries()) {
      for (let bit = 0; bit < 32; bit++) {
        if (((members >>> bit) & 1) === 1)
          setOption(fd, nl.SOL_NETLINK, nl.NETLINK_ADD_MEMBERSHIP, 32 * word + bit + 1);
      }
    }
    if (state === TCP_ESTABLISHED) {
      const addr = nl.sockaddr_nl.write({ nl_family: so.AF_NETLINK, nl_pid: dst_portid, nl_groups: dst_group });
      connect({ sockfd: fd, addr, addrlen: addr.length });
    }
    for (const name of options) setOption(fd, nl.SOL_NETLINK, name, 1);
    restoreOptions(fd, opts);
    setStatusFlags(fd, flags);
    restoreOwner(restoring, fd, fown);
    return fd;
  },
};

/** What the kernel has said is about a state of then: whoever reads it later would be misled. @throws UnsupportedError */
function refuseWaiting({ local, link, pid, fd }: OpenFile): void {
  const flags = so.MSG_PEEK | so.MSG_DONTWAIT;
  const args = { sockfd: local, buf: new Uint8Array(1), len: 1, flags, src_addr: 0, addrlen: 0 } as const;
  if (recvfrom.attempt(args) < 0) return;
  const why = 'messages of the kernel wait in it';
  throw new UnsupportedError({
    what: link,
    pid,
    fd,
    why,
    remedy: 'try again in a moment, when the program has read them',
  });
}

function addressBy(call: typeof getsockname, sockfd: number) {
  const addr = new Uint8Array(nl.sockaddr_nl.size);
  call({ sockfd, addr, addrlen: Uint8Array.of(addr.length, 0, 0, 0) });
  return nl.sockaddr_nl.read(addr);
}

/** An option that this kernel does not know is off. */
function isOn(sockfd: number, optname: number): boolean {
  const optval = new Uint8Array(4);
  const optlen = Uint8Array.of(optval.length, 0, 0, 0);
  return getsockopt.attempt({ sockfd, level: nl.SOL_NETLINK, optname, optval, optlen }) === 0 && optval[0] === 1;
}

function trimmed(words: readonly number[]): number[] {
  return words.slice(0, words.findLastIndex((word) => word !== 0) + 1);
}

function bindTo(sockfd: number, nl_pid: number): void {
  const addr = nl.sockaddr_nl.write({ nl_family: so.AF_NETLINK, nl_pid });
  const args = { sockfd, addr, addrlen: addr.length };
  const result = bind.attempt(args);
  if (result >= 0) return;
  if (result !== -Errno.EADDRINUSE) throw bind.error(args, result);
  throw new UnsupportedError({
    what: `netlink address ${nl_pid}`,
    why: 'another socket has it',
    remedy: 'end the program that does (ss -f netlink -a shows it)',
  });
}
