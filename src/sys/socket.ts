/** Sockets: socket(2), socketpair(2), bind(2), connect(2), listen(2), accept(2), getsockopt(2), send(2), recv(2). */
import * as abi from '../abi/socket.ts';
import { viewOf } from '../abi/struct.ts';
import { address, flags, input, int, oneOf, output, syscall } from './syscall.ts';

const domain = oneOf(abi, /^AF_/);
const type = flags(abi, /^SOCK_/);
const level = oneOf(abi, /^(SOL_SOCKET|IPPROTO_)/);
const messageFlags = flags(abi, /^MSG_/);

/** @param type SOCK_STREAM, ... or-ed with SOCK_CLOEXEC and SOCK_NONBLOCK @returns a descriptor */
export const socket = syscall('socket', 41, { domain, type, protocol: int });
/** @param sv 8 bytes for the two descriptors */
export const socketpair = syscall('socketpair', 53, { domain, type, protocol: int, sv: output });
export const bind = syscall('bind', 49, { sockfd: int, addr: input, addrlen: int });
export const connect = syscall('connect', 42, { sockfd: int, addr: input, addrlen: int });
export const listen = syscall('listen', 50, { sockfd: int, backlog: int });
/** @param addr 0 where the address is not wanted @param flags SOCK_CLOEXEC, SOCK_NONBLOCK @returns a descriptor */
export const accept4 = syscall('accept4', 288, { sockfd: int, addr: output, addrlen: output, flags: type });
/** @param how SHUT_* */
export const shutdown = syscall('shutdown', 48, { sockfd: int, how: oneOf(abi, /^SHUT_/) });
/** @param addrlen 4 bytes: room, then what was taken of it */
export const getsockname = syscall('getsockname', 51, { sockfd: int, addr: output, addrlen: output });
export const getpeername = syscall('getpeername', 52, { sockfd: int, addr: output, addrlen: output });
/** @param optlen 4 bytes: room, then what was taken of it */
export const getsockopt = syscall('getsockopt', 55, {
  sockfd: int,
  level,
  optname: int,
  optval: output,
  optlen: output,
});
export const setsockopt = syscall('setsockopt', 54, { sockfd: int, level, optname: int, optval: input, optlen: int });
/** @returns bytes sent */
export const sendto = syscall('sendto', 44, {
  sockfd: int,
  buf: input,
  len: int,
  flags: messageFlags,
  dest_addr: input,
  addrlen: int,
});
/** @returns bytes received; with MSG_TRUNC the size of the message, which may be more than fitted */
export const recvfrom = syscall('recvfrom', 45, {
  sockfd: int,
  buf: output,
  len: int,
  flags: messageFlags,
  src_addr: output,
  addrlen: output,
});
/** @param msg address of a struct msghdr @returns bytes sent */
export const sendmsg = syscall('sendmsg', 46, { sockfd: int, msg: address, flags: messageFlags });
/** @param msg address of a struct msghdr, which says more afterwards @returns bytes received */
export const recvmsg = syscall('recvmsg', 47, { sockfd: int, msg: address, flags: messageFlags });

/** An option that is an int. @throws SyscallError ENOPROTOOPT (not of this kind of socket) */
export function getOption(sockfd: number, of: number, optname: number): number {
  return viewOf(getOptionBytes(sockfd, of, optname, 4)).getInt32(0, true);
}

/** @param room bytes that the option takes at most */
export function getOptionBytes(sockfd: number, of: number, optname: number, room: number): Uint8Array {
  const optval = new Uint8Array(room);
  const optlen = new Uint8Array(4);
  viewOf(optlen).setUint32(0, room, true);
  getsockopt({ sockfd, level: of, optname, optval, optlen });
  return optval.subarray(0, viewOf(optlen).getUint32(0, true));
}

export function setOption(sockfd: number, of: number, optname: number, value: number): void {
  const optval = new Uint8Array(4);
  viewOf(optval).setInt32(0, value, true);
  setsockopt({ sockfd, level: of, optname, optval, optlen: 4 });
}
