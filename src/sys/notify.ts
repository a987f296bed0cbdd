/** Telling the service manager how a service is: sd_notify(3). */
import { AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM, sockaddr_un } from '../abi/socket.ts';
import { close } from './files.ts';
import { sendto, socket } from './socket.ts';

/** @param at value of NOTIFY_SOCKET: a path, or a name after @ @throws SyscallError ENOENT, ECONNREFUSED (nobody listens) */
export function notifyManager(at: string, state: Readonly<Record<string, string | number>>): void {
  const name = Buffer.from(at.replace(/^@/, '\0'));
  const sun_path = new Uint8Array(108);
  sun_path.set(name.subarray(0, 108));
  const dest_addr = sockaddr_un.write({ sun_family: AF_UNIX, sun_path }).subarray(0, 2 + name.length);
  const buf = Buffer.from(
    Object.entries(state)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
  const sockfd = socket({ domain: AF_UNIX, type: SOCK_DGRAM | SOCK_CLOEXEC, protocol: 0 });
  try {
    sendto({ sockfd, buf, len: buf.length, flags: MSG_NOSIGNAL, dest_addr, addrlen: dest_addr.length });
  } finally {
    close({ fd: sockfd });
  }
}
