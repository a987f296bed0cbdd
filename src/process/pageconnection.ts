/** Connections to page servers and their clients that wait: who traces cannot do anything else meanwhile. */
import { lookup } from 'node:dns/promises';
import { isIPv6 } from 'node:net';
import * as so from '../abi/socket.ts';
import { viewOf } from '../abi/struct.ts';
import { TCP_NODELAY } from '../abi/tcp.ts';
import { SyscallError } from '../errors.ts';
import type { Connection } from '../image/pagexfer.ts';
import { close } from '../sys/files.ts';
import { accept4, bind, connect, getsockname, listen, recvfrom, sendto, setOption, socket } from '../sys/socket.ts';

/** @param host name or address @throws SyscallError ECONNREFUSED, ... */
export async function connectPageServer(host: string, port: number): Promise<Connection & Disposable> {
  const { address } = await lookup(host);
  const domain = isIPv6(address) ? so.AF_INET6 : so.AF_INET;
  const sockfd = socket({ domain, type: so.SOCK_STREAM | so.SOCK_CLOEXEC, protocol: 0 });
  try {
    const addr = sockaddr(address, port);
    connect({ sockfd, addr, addrlen: addr.length });
    setOption(sockfd, so.IPPROTO_TCP, TCP_NODELAY, 1);
  } catch (error) {
    close({ fd: sockfd });
    throw error;
  }
  return connectionOn(sockfd, `page server ${host} port ${port}`);
}

/**
 * Waits for one client, on an address of this machine.
 *
 * @param port 0 for one that is free @param listening is called with it
 */
export async function awaitPageClient(
  host: string,
  port: number,
  listening: (port: number) => void,
): Promise<() => Connection & Disposable> {
  const { address } = await lookup(host);
  const domain = isIPv6(address) ? so.AF_INET6 : so.AF_INET;
  const sockfd = socket({ domain, type: so.SOCK_STREAM | so.SOCK_CLOEXEC, protocol: 0 });
  return () => {
    try {
      setOption(sockfd, so.SOL_SOCKET, so.SO_REUSEADDR, 1);
      const addr = sockaddr(address, port);
      bind({ sockfd, addr, addrlen: addr.length });
      listen({ sockfd, backlog: 1 });
      const [got, addrlen] = [new Uint8Array(addr.length), new Uint8Array(4)];
      viewOf(addrlen).setUint32(0, addr.length, true);
      getsockname({ sockfd, addr: got, addrlen });
      listening(viewOf(got).getUint16(2));
      const client = accept4({ sockfd, addr: 0, addrlen: 0, flags: so.SOCK_CLOEXEC });
      setOption(client, so.IPPROTO_TCP, TCP_NODELAY, 1);
      return connectionOn(client, 'whoever asks for pages');
    } finally {
      close({ fd: sockfd });
    }
  };
}

/** @param other for messages */
function connectionOn(sockfd: number, other: string): Connection & Disposable {
  return {
    send(bytes) {
      for (let done = 0; done < bytes.length; ) {
        const buf = bytes.subarray(done);
        done += sendto({ sockfd, buf, len: buf.length, flags: so.MSG_NOSIGNAL, dest_addr: 0, addrlen: 0 });
      }
    },
    receive(length) {
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length; ) {
        const buf = bytes.subarray(done);
        const got = recvfrom({ sockfd, buf, len: buf.length, flags: 0, src_addr: 0, addrlen: 0 });
        if (got === 0) throw new SyscallError('recvfrom', `${other}: it closed the connection`, 104);
        done += got;
      }
      return bytes;
    },
    [Symbol.dispose]: () => void close({ fd: sockfd }),
  };
}

function sockaddr(address: string, port: number): Uint8Array {
  if (!isIPv6(address)) {
    const sin_addr = Uint8Array.from(address.split('.').map(Number));
    return so.sockaddr_in.write({ sin_family: so.AF_INET, sin_port: port, sin_addr });
  }
  return so.sockaddr_in6.write({ sin6_family: so.AF_INET6, sin6_port: port, sin6_addr: bytesOf6(address) });
}

/** RFC 4291, section 2.2; a URL has its third form, an IPv4 address at the end, as hexadecimal. */
function bytesOf6(address: string): Uint8Array {
  const { hostname } = new URL(`http://[${address.replace(/%.*$/, '')}]`);
  const [before, after] = hostname.slice(1, -1).split('::') as [string, string?];
  const words = (text = '') => (text === '' ? [] : text.split(':').map((word) => Number.parseInt(word, 16)));
  const [first, last] = [words(before), words(after)];
  const all = [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last];
  return Uint8Array.from(all.flatMap((word) => [word >> 8, word & 0xff]));
}
