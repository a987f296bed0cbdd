import assert from 'node:assert/strict';
import { once } from 'node:events';
import { fstatSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Errno } from '../../../src/abi/errno.ts';
import { INET_DIAG_SKMEMINFO } from '../../../src/abi/inet_diag.ts';
import { NETLINK_SOCK_DIAG } from '../../../src/abi/netlink.ts';
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  IPPROTO_TCP,
  SO_TYPE,
  SOCK_CLOEXEC,
  SOCK_STREAM,
  SOL_SOCKET,
} from '../../../src/abi/socket.ts';
import { TCP_ESTABLISHED, TCP_LISTEN } from '../../../src/abi/tcp.ts';
import { SyscallError } from '../../../src/errors.ts';
import { close } from '../../../src/sys/files.ts';
import { NetlinkSocket } from '../../../src/sys/netlink.ts';
import { inetSockets, unixSockets } from '../../../src/sys/sock_diag.ts';
import { getsockopt, recvfrom, sendto, socketpair } from '../../../src/sys/socket.ts';

const descriptor = (of: Server | Socket) => (of as unknown as { _handle: { fd: number } })._handle.fd;

test('sock_diag finds a listening socket and its connections', async () => {
  for (const [family, host] of [
    [AF_INET, '127.0.0.1'],
    [AF_INET6, '::1'],
  ] as const) {
    const server = createServer((socket) => socket.on('error', () => {})).listen({ port: 0, host, backlog: 77 });
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const client = connect(port, host);
    const [accepted] = (await once(server, 'connection')) as [Socket];
    try {
      const states = (1 << TCP_LISTEN) | (1 << TCP_ESTABLISHED);
      const all = inetSockets({ family, protocol: IPPROTO_TCP, states, extensions: [INET_DIAG_SKMEMINFO] });
      const listening = all.filter(({ state, sourcePort }) => state === TCP_LISTEN && sourcePort === port);
      assert.equal(listening.length, 1);
      assert.equal(listening[0]!.inode, fstatSync(descriptor(server)).ino);
      assert.equal(listening[0]!.sendQueue, 77);
      assert.deepEqual([...listening[0]!.source], family === AF_INET ? [127, 0, 0, 1] : [...new Array(15).fill(0), 1]);
      assert.ok(listening[0]!.attributes.get(INET_DIAG_SKMEMINFO)!.length >= 16);
      const ours = all.find(({ inode }) => inode === fstatSync(descriptor(accepted)).ino)!;
      assert.deepEqual([ours.sourcePort, ours.destinationPort, ours.state], [port, client.localPort, TCP_ESTABLISHED]);
    } finally {
      client.destroy();
      accepted.destroy();
      server.close();
    }
  }
});

test('sock_diag finds UNIX sockets with their paths and peers', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-unix-'));
  const path = join(folder, 'sock');
  const server = createServer().listen(path);
  await once(server, 'listening');
  const sv = new Int32Array(2);
  socketpair({ domain: AF_UNIX, type: SOCK_STREAM | SOCK_CLOEXEC, protocol: 0, sv: new Uint8Array(sv.buffer) });
  const [a, b] = [sv[0]!, sv[1]!];
  try {
    assert.equal(sendto({ sockfd: a, buf: Buffer.from('hello'), len: 5, flags: 0, dest_addr: 0, addrlen: 0 }), 5);
    const sockets = unixSockets(0xffff_ffff);
    const listening = sockets.filter(({ name }) => name === path);
    assert.equal(listening.length, 1);
    assert.equal(listening[0]!.inode, fstatSync(descriptor(server)).ino);
    assert.equal(listening[0]!.state, TCP_LISTEN);
    assert.equal(listening[0]!.file!.inode, statSync(path).ino % 2 ** 32);
    const [first, second] = [a, b].map((fd) => sockets.find(({ inode }) => inode === fstatSync(fd).ino)!);
    assert.deepEqual([first!.peer, second!.peer], [second!.inode, first!.inode]);
    assert.equal(second!.receiveQueue, 5);
    const buf = new Uint8Array(16);
    assert.equal(recvfrom({ sockfd: b, buf, len: 16, flags: 0, src_addr: 0, addrlen: 0 }), 5);
    assert.equal(Buffer.from(buf.subarray(0, 5)).toString(), 'hello');
    const optval = new Uint8Array(4);
    getsockopt({ sockfd: a, level: SOL_SOCKET, optname: SO_TYPE, optval, optlen: Uint8Array.of(4, 0, 0, 0) });
    assert.equal(optval[0], SOCK_STREAM);
  } finally {
    close({ fd: a });
    close({ fd: b });
    server.close();
    rmSync(folder, { recursive: true });
  }
});

test('a dump of hundreds of sockets, in many datagrams, is whole', () => {
  const descriptors: number[] = [];
  const sv = new Int32Array(2);
  try {
    for (let i = 0; i < 400; i++) {
      socketpair({ domain: AF_UNIX, type: SOCK_STREAM | SOCK_CLOEXEC, protocol: 0, sv: new Uint8Array(sv.buffer) });
      descriptors.push(...sv);
    }
    const found = new Set(unixSockets(0xffff_ffff).map(({ inode }) => inode));
    for (const fd of descriptors) assert.ok(found.has(fstatSync(fd).ino), `descriptor ${fd} is missing`);
  } finally {
    for (const fd of descriptors) close({ fd });
  }
});

test('what the kernel refuses is an error, and the socket serves on', () => {
  using netlink = new NetlinkSocket(NETLINK_SOCK_DIAG);
  assert.throws(
    () => netlink.request(9999, new Uint8Array(4)),
    (error: unknown) => error instanceof SyscallError && error.errno === Errno.EINVAL,
  );
  assert.throws(() => netlink.dump(20, Uint8Array.of(250, 0, 0, 0)), SyscallError);
  // No kernel has sockets of this protocol: what breaks a dump off is not an empty answer.
  assert.throws(() => inetSockets({ family: AF_INET, protocol: 253, states: 0xffff_ffff }), /ENOENT/);
});
