/** What only datagrams of IPv4 and IPv6 have: being shut down without a connection to end. udp(7), sock_diag(7) */
import { INET_DIAG_SHUTDOWN } from '../../abi/inet_diag.ts';
import { IPPROTO_UDP, IPPROTO_UDPLITE, SO_DOMAIN, SO_PROTOCOL, SOL_SOCKET, UDP_CORK } from '../../abi/socket.ts';
import { SyscallError, UnsupportedError } from '../../errors.ts';
import { inetSockets } from '../../sys/sock_diag.ts';
import { getOption } from '../../sys/socket.ts';
import type { Saving } from '../saving.ts';
import type { OpenFile } from './file.ts';
import { SHUTDOWN, type Shutdown } from './socket.ts';

const ALL_STATES = 0xfff;

/** Whether it is shut down. A kernel without udp_diag does not tell; then it is taken for one that is not. */
export function shutdownOf(file: OpenFile, saving: Saving): { shutdown?: Shutdown } {
  const [family, protocol] = [SO_DOMAIN, SO_PROTOCOL].map((name) => getOption(file.local, SOL_SOCKET, name)) as [
    number,
    number,
  ];
  if (protocol !== IPPROTO_UDP && protocol !== IPPROTO_UDPLITE) return {};
  if (getOption(file.local, protocol, UDP_CORK) !== 0) {
    throw new UnsupportedError({
      what: file.link,
      pid: file.pid,
      fd: file.fd,
      why: 'a datagram that is not complete is corked in it (UDP_CORK)',
      remedy: 'try again in a moment, when the program has sent it',
    });
  }
  const how = saving.once(`sockets ${family} ${protocol}`, () => list(family, protocol)).get(Number(file.stat.stx_ino));
  return how === undefined || how === 0 ? {} : { shutdown: SHUTDOWN[how]! };
}

function list(family: number, protocol: number): Map<number, number> {
  const extensions = [INET_DIAG_SHUTDOWN];
  try {
    const all = inetSockets({ family, protocol, states: ALL_STATES, extensions });
    return new Map(all.map(({ inode, attributes }) => [inode, attributes.get(INET_DIAG_SHUTDOWN)?.[0] ?? 0]));
  } catch (error) {
    if (error instanceof SyscallError) return new Map();
    throw error;
  }
}
