/** Messages with descriptors in them: sendmsg(2), recvmsg(2), cmsg(3), unix(7). */
import { Errno } from '../abi/errno.ts';
import {
  cmsghdr,
  MSG_CMSG_CLOEXEC,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_PEEK,
  MSG_TRUNC,
  msghdr,
  SCM_RIGHTS,
  SOL_SOCKET,
} from '../abi/socket.ts';
import { viewOf } from '../abi/struct.ts';
import { iovec } from '../abi/uio.ts';
import { Region } from './region.ts';
import { recvmsg, sendmsg } from './socket.ts';

export interface Received {
  readonly bytes: Uint8Array;
  /** Of this process, close-on-exec. */
  readonly descriptors: readonly number[];
  /** Whom it is from: family and name, or nothing. */
  readonly from: Uint8Array;
}

/** What lies where in the room. SCM_MAX_FD of include/net/scm.h, 253, limits what control messages need. */
const HEADER = 0;
const VECTOR = 64;
const NAME = 128;
const NAME_ROOM = 128;
const CONTROL = 256;
const CONTROL_ROOM = 4096;
const DATA = CONTROL + CONTROL_ROOM;

/** Room for messages, used again for each one. */
export class Messages {
  readonly #region: Region;

  /** @param size of the largest message, in bytes */
  constructor(size: number) {
    this.#region = new Region(DATA + size);
  }

  [Symbol.dispose](): void {
    this.#region[Symbol.dispose]();
  }

  /**
   * Reads a message, or of a stream as much as fits, which stays in the queue.
   *
   * @returns undefined where there is none; an empty message at the end of a stream
   * @throws SyscallError EMSGSIZE (it does not fit)
   */
  peek(sockfd: number): Received | undefined {
    const { bytes } = this.#region;
    const room = bytes.length - DATA;
    this.#header(room, NAME_ROOM, CONTROL_ROOM);
    const flags = MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC;
    const args = { sockfd, msg: this.#region.address, flags };
    const size = recvmsg.attempt(args);
    if (size === -Errno.EAGAIN) return undefined;
    if (size < 0) throw recvmsg.error(args, size);
    const { msg_namelen, msg_controllen, msg_flags } = msghdr.read(bytes, HEADER);
    const descriptors = descriptorsIn(bytes.subarray(CONTROL, CONTROL + msg_controllen));
    if (size > room || (msg_flags & MSG_CTRUNC) !== 0) throw recvmsg.error(args, -Errno.EMSGSIZE);
    return {
      bytes: bytes.slice(DATA, DATA + size),
      descriptors,
      from: bytes.slice(NAME, NAME + Math.min(msg_namelen, NAME_ROOM)),
    };
  }

  /** @param to an address, for a socket that is not connected @returns bytes sent */
  send(sockfd: number, content: Uint8Array, descriptors: readonly number[] = [], to?: Uint8Array): number {
    const { bytes, view } = this.#region;
    const control = descriptors.length === 0 ? 0 : cmsghdr.size + 4 * descriptors.length;
    this.#header(content.length, to?.length ?? 0, control);
    if (to !== undefined) bytes.set(to, NAME);
    bytes.set(content, DATA);
    if (control > 0) {
      cmsghdr.write({ cmsg_len: control, cmsg_level: SOL_SOCKET, cmsg_type: SCM_RIGHTS }, bytes, CONTROL);
      for (const [i, fd] of descriptors.entries()) view.setInt32(CONTROL + cmsghdr.size + 4 * i, fd, true);
    }
    return sendmsg({ sockfd, msg: this.#region.address, flags: MSG_NOSIGNAL });
  }

  #header(size: number, name: number, control: number): void {
    const { address, bytes } = this.#region;
    iovec.write({ iov_base: address + DATA, iov_len: size }, bytes, VECTOR);
    msghdr.write(
      {
        msg_name: name === 0 ? 0 : address + NAME,
        msg_namelen: name,
        msg_iov: address + VECTOR,
        msg_iovlen: 1,
        msg_control: control === 0 ? 0 : address + CONTROL,
        msg_controllen: control,
      },
      bytes,
      HEADER,
    );
  }
}

function descriptorsIn(control: Uint8Array): number[] {
  const found: number[] = [];
  const view = viewOf(control);
  for (let at = 0; at + cmsghdr.size <= control.length; ) {
    const { cmsg_len, cmsg_level, cmsg_type } = cmsghdr.read(control, at);
    if (cmsg_len < cmsghdr.size) break;
    if (cmsg_level === SOL_SOCKET && cmsg_type === SCM_RIGHTS) {
      for (let each = at + cmsghdr.size; each + 4 <= at + cmsg_len; each += 4) found.push(view.getInt32(each, true));
    }
    at += Math.ceil(cmsg_len / 8) * 8;
  }
  return found;
}
