/** Sockets: socket(2), socketpair(2), bind(2), getsockopt(2), send(2), recv(2). */
import * as abi from '../abi/socket.ts';
import { flags, input, int, oneOf, output, syscall } from './syscall.ts';

const domain = oneOf(abi, /^AF_/);
const type = flags(abi, /^SOCK_/);
const level = oneOf(abi, /^(SOL_SOCKET|IPPROTO_)/);
const messageFlags = flags(abi, /^MSG_/);

/** @param type SOCK_STREAM, ... or-ed with SOCK_CLOEXEC and SOCK_NONBLOCK @returns a descriptor */
export const socket = syscall('socket', 41, { domain, type, protocol: int });
/** @param sv 8 bytes for the two descriptors */
export const socketpair = syscall('socketpair', 53, { domain, type, protocol: int, sv: output });
export const bind = syscall('bind', 49, { sockfd: int, addr: input, addrlen: int });
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
