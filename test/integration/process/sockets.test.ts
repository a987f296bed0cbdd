/** Programs with sockets, which check themselves after a restore. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { rootTest as test } from '../root.ts';
import { Client } from './client.ts';
import { Bench, program } from './target.ts';

for (const [name, checked] of [
  ['sockets of the UNIX domain go on, with bytes and descriptors in flight', 'unix'],
  ['sockets that listen, and datagrams with their senders go on', 'inet'],
] as const) {
  test(name, async () => {
    const bench = new Bench();
    try {
      const pid = bench.start(bench.compile(checked));
      await bench.says('ready');
      await bench.moveOn(pid);
      process.kill(pid, 'SIGUSR1');
      assert.match(await bench.says(/PASS|FAIL.*/), /PASS/);
    } finally {
      await bench.dispose();
    }
  });
}

test('connections go on with clients outside of the tree, which notice nothing', async () => {
  const bench = new Bench();
  const clients: Client[] = [];
  try {
    const pid = bench.start('python3', [program('answers.py')]);
    const port = Number(/port (\d+)/.exec(await bench.says(/port \d+\n/))![1]);
    for (const host of ['127.0.0.1', '::1']) clients.push(await Client.connect(port, host));
    const [four, six] = clients as [Client, Client];
    assert.equal(await four.ask('one'), '1 one');
    assert.equal(await six.ask('two'), '2 two');

    const kept = ['--tcp-established', '--leave-running'];
    assert.equal(bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, ...kept).status, 0);
    assert.equal(await four.ask('three'), '3 three');

    // More than either side holds is on its way, while the server is not there.
    six.pause();
    six.write('fill\n');
    await bench.says('filled');
    const saved = bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-established');
    assert.equal(saved.status, 0, saved.stderr);
    await bench.gone(pid);
    four.write('meanwhile\n');
    await setTimeout(500);
    const restored = bench.tideover('restore', '-D', bench.image, '-d');
    assert.equal(restored.status, 0, restored.stderr);

    assert.equal(await four.line(), '5 meanwhile');
    assert.equal(await four.ask('six'), '6 six');
    six.resume();
    assert.equal(await six.line(), '4 fill');
    assert.equal((await six.line()).length, 3_000_000);
    assert.equal(await six.ask('seven'), '7 seven');
    assert.deepEqual(
      clients.map(({ ended }) => ended),
      [false, false],
    );
    assert.doesNotMatch(bench.log, /closed/);
  } finally {
    for (const client of clients) client.end();
    await bench.dispose();
  }
});

test('a client that gives up while the server is not there is no reason for the others not to go on', async (t) => {
  const bench = Bench.of(t);
  const pid = bench.start('python3', [program('answers.py')]);
  const port = Number(/port (\d+)/.exec(await bench.says(/port \d+\n/))![1]);
  const stays = await Client.connect(port, '127.0.0.1');
  const leaves = await Client.connect(port, '127.0.0.1');
  t.after(() => stays.end());
  assert.equal(await stays.ask('one'), '1 one');
  // More than either side holds.
  leaves.pause();
  leaves.write('fill\n');
  await bench.says('filled');
  const saved = bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-established');
  assert.equal(saved.status, 0, saved.stderr);
  await bench.gone(pid);
  leaves.end();
  const restored = bench.tideover('restore', '-D', bench.image, '-d');
  assert.equal(restored.status, 0, restored.stderr);
  await bench.says('closed');
  assert.equal(await stays.ask('three'), '3 three');
});

test('a connection is refused where it is not said what becomes of it, and goes on', async () => {
  const bench = new Bench();
  try {
    const pid = bench.start('python3', [program('answers.py')]);
    const port = Number(/port (\d+)/.exec(await bench.says(/port \d+\n/))![1]);
    const client = await Client.connect(port, '127.0.0.1');
    assert.equal(await client.ask('one'), '1 one');
    const { status, stderr } = bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image);
    assert.equal(status, 3);
    assert.match(stderr, /socket:\[\d+\]: it is connected; give --tcp-established/);
    assert.equal(await client.ask('two'), '2 two');
    assert.equal(bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-close').status, 0);
    await bench.gone(pid);
    const restored = bench.tideover('restore', '-D', bench.image, '-d');
    assert.equal(restored.status, 0, restored.stderr);
    await bench.says('closed');
    client.end();
  } finally {
    await bench.dispose();
  }
});

test('300 connections go on, whose rules are more than one message to the kernel may have', async (t) => {
  const bench = Bench.of(t);
  const pid = bench.start('python3', [program('answers.py')]);
  const port = Number(/port (\d+)/.exec(await bench.says(/port \d+\n/))![1]);
  const clients: Client[] = [];
  t.after(() => {
    for (const client of clients) client.end();
  });
  for (let i = 0; i < 300; i++) clients.push(await Client.connect(port, '127.0.0.1'));
  assert.equal(await clients[299]!.ask('one'), '1 one');
  const saved = bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-established');
  assert.equal(saved.status, 0, saved.stderr);
  await bench.gone(pid);
  const restored = bench.tideover('restore', '-D', bench.image, '-d');
  assert.equal(restored.status, 0, restored.stderr);
  assert.equal(await clients[0]!.ask('two'), '2 two');
  assert.equal(await clients[299]!.ask('three'), '3 three');
});

test('connections that are not all left to a restore go on', () => {
  const line = `ip link set lo up && exec ${process.execPath} --input-type=module -e "$0"`;
  const { stdout, stderr } = spawnSync('unshare', ['-n', 'sh', '-c', line, HALF_LEFT], {
    cwd: import.meta.dirname,
    encoding: 'utf8',
    timeout: 120_000,
  });
  assert.equal(stdout, 'EPERM hello\n', stderr);
});

// A listening socket cannot be in repair.
const HALF_LEFT = `
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { ownAddress, peerAddress } from '../../../src/process/files/inetaddress.ts';
import { Connections } from '../../../src/process/files/tcp.ts';
const server = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
await once(server, 'listening');
const client = connect(server.address().port, '127.0.0.1');
await once(client, 'connect');
const { fd } = client._handle;
const connections = new Connections();
connections.add(fd, 1, ownAddress(fd), peerAddress(fd));
connections.add(server._handle.fd, 2, ownAddress(server._handle.fd), ownAddress(fd));
let said;
try {
  connections.leave();
} catch (error) {
  said = error.errnoName;
}
connections[Symbol.dispose]();
client.write('hello');
const [answer] = await once(client, 'data');
console.log(said, String(answer));
process.exit();
`;

test('a connection that was kept and is restored as closed ends on the other side too', async () => {
  const bench = new Bench();
  let client: Client | undefined;
  try {
    const pid = bench.start('python3', [program('answers.py')]);
    const port = Number(/port (\d+)/.exec(await bench.says(/port \d+\n/))![1]);
    client = await Client.connect(port, '127.0.0.1');
    assert.equal(await client.ask('one'), '1 one');
    assert.equal(bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-established').status, 0);
    await bench.gone(pid);
    const restored = bench.tideover('restore', '-D', bench.image, '-d', '--tcp-close');
    assert.equal(restored.status, 0, restored.stderr);
    await bench.says('closed');
    client.write('two\n');
    await assert.rejects(client.line(), /no answer/);
    assert.equal(client.ended, true);
  } finally {
    client?.end();
    await bench.dispose();
  }
});

test('connections go on where tideover is killed while it saves them', async () => {
  const bench = new Bench();
  let client: Client | undefined;
  try {
    // Memory that takes a while to write, as long as its connections are in repair.
    const pid = bench.start('python3', [program('answers.py'), 'ballast']);
    const port = Number(/port (\d+)/.exec(await bench.says(/port \d+\n/))![1]);
    client = await Client.connect(port, '127.0.0.1');
    const times = process.env.TIDEOVER_FULL === undefined ? 5 : 200;
    for (let i = 1; i <= times; i++) {
      const tideover = bench.begin(
        ...['checkpoint', '-t', `${pid}`, '-D', `${bench.image}-${i}`, '--tcp-established', '--leave-stopped'],
      );
      // Stopped for good when that was all over between two looks.
      while (!/^State:\s+t/im.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) await setTimeout(1);
      await setTimeout(100 * Math.random());
      tideover.kill('SIGKILL');
      // It may have been about to stop the process.
      if (tideover.exitCode === null && tideover.signalCode === null) await once(tideover, 'exit');
      process.kill(pid, 'SIGCONT');
      assert.match(await client.ask('still there'), / still there$/);
    }
    assert.equal(client.ended, false);
  } finally {
    client?.end();
    await bench.dispose();
  }
});

test('connections of which one direction has ended go on, with what waits in them', async () => {
  const bench = new Bench();
  try {
    const pid = bench.start('python3', ['-c', ENDING]);
    await bench.says('ready');
    const kept = bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-established', '-R');
    assert.equal(kept.status, 0, kept.stderr);
    const saved = bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-established');
    assert.equal(saved.status, 0, saved.stderr);
    await bench.gone(pid);
    const restored = bench.tideover('restore', '-D', bench.image, '-d');
    assert.equal(restored.status, 0, restored.stderr);
    process.kill(pid, 'SIGTERM');
    assert.match(await bench.says(/ok\n|Error/), /ok\n/);
  } finally {
    await bench.dispose();
  }
});

const ENDING = `
import signal, socket
def pair(family, host):
    server = socket.create_server((host, 0), family=family)
    one = socket.create_connection(server.getsockname()[:2])
    return one, server.accept()[0]
def state(end):
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT = 4, 5, 8
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
families = ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1'))
halves = [pair(*family) for family in families]
for ended, other in halves:
    ended.sendall(b'bye')
    ended.shutdown(socket.SHUT_WR)
    while (state(ended), state(other)) != (FIN_WAIT2, CLOSE_WAIT): pass
# More than the other side takes stands before the end.
full = [pair(*family) for family in families]
lengths = []
for ended, other in full:
    ended.setblocking(False)
    length = 0
    try:
        while True: length += ended.send(b'x' * 65536)
    except BlockingIOError: pass
    ended.shutdown(socket.SHUT_WR)
    lengths.append(length)
print('ready', flush=True)
signal.sigwait([signal.SIGTERM])
for ended, other in halves:
    assert (state(ended), state(other)) == (FIN_WAIT2, CLOSE_WAIT)
    assert other.recv(9) == b'bye' and other.recv(9) == b''
    other.sendall(b'late')
    assert ended.recv(9) == b'late'
    other.close()
    assert ended.recv(9) == b''
for (ended, other), length in zip(full, lengths):
    assert state(ended) == FIN_WAIT1
    while (got := len(other.recv(1 << 20))) > 0: length -= got
    assert length == 0
    other.sendall(b'late')
    ended.setblocking(True)
    assert ended.recv(9) == b'late'
print('ok', flush=True)
`;

test('a connection that nobody has accepted is refused, and lost where that is said; others go on', async () => {
  const bench = new Bench();
  try {
    const pid = bench.start('python3', ['-c', WAITED]);
    const port = Number(/port (\d+)/.exec(await bench.says(/port \d+\n/))![1]);
    const first = await Client.connect(port, '127.0.0.1');
    assert.equal(await first.ask('one'), 'one');
    const second = await Client.connect(port, '127.0.0.1');
    const save = ['checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-established'];
    const refused = bench.tideover(...save);
    assert.equal(refused.status, 3, refused.stderr);
    assert.match(refused.stderr, /accept.*--skip-in-flight/);
    assert.equal(await first.ask('two'), 'two');
    const saved = bench.tideover(...save, '--skip-in-flight');
    assert.equal(saved.status, 0, saved.stderr);
    await bench.gone(pid);
    const restored = bench.tideover('restore', '-D', bench.image, '-d');
    assert.equal(restored.status, 0, restored.stderr);
    assert.equal(await first.ask('three'), 'three');
    // The server knows nothing of it: what is said to it is answered by a reset.
    second.write('lost?\n');
    while (!second.ended) await setTimeout(10);
    const third = await Client.connect(port, '127.0.0.1');
    process.kill(pid, 'SIGTERM');
    assert.equal(await third.ask('four'), 'four');
    for (const client of [first, second, third]) client.end();
  } finally {
    await bench.dispose();
  }
});

/** Answers one client, and the next one when it is told to. */
const WAITED = `
import signal, socket
class Next(Exception): pass
def next(*_): raise Next
listening = socket.create_server(('127.0.0.1', 0))
signal.signal(signal.SIGTERM, next)
print('port', listening.getsockname()[1], flush=True)
while True:
    client = listening.accept()[0]
    try:
        while True: client.sendall(client.recv(1000))
    except Next: pass
`;

test('the port of a server whose connections were closed is free for its restore', async () => {
  const bench = new Bench();
  try {
    const pid = bench.start('python3', ['-c', SINGLE]);
    const port = Number(/port (\d+)/.exec(await bench.says(/port \d+\n/))![1]);
    const client = await Client.connect(port, '127.0.0.1');
    await bench.says('accepted');
    const saved = bench.tideover('checkpoint', '-t', `${pid}`, '-D', bench.image, '--tcp-close');
    assert.equal(saved.status, 0, saved.stderr);
    await bench.gone(pid);
    while (!client.ended) await setTimeout(10);
    client.end();
    const restored = bench.tideover('restore', '-D', bench.image, '-d');
    assert.equal(restored.status, 0, restored.stderr);
    await bench.says('end of the first');
    const other = await Client.connect(port, '127.0.0.1');
    await bench.says('accepted again');
    other.end();
  } finally {
    await bench.dispose();
  }
});

/** Without SO_REUSEADDR. */
const SINGLE = `
import socket
listening = socket.socket()
listening.bind(('127.0.0.1', 0))
listening.listen()
print('port', listening.getsockname()[1], flush=True)
first, _ = listening.accept()
print('accepted', flush=True)
first.recv(1)
print('end of the first', flush=True)
listening.accept()
print('accepted again', flush=True)
`;

test('sockets of netlink keep address, groups and options, and speak with the kernel', async () => {
  const bench = new Bench();
  try {
    const pid = bench.start('python3', ['-c', NETLINK]);
    await bench.says('ready');
    await bench.moveOn(pid);
    process.kill(pid, 'SIGTERM');
    assert.match(await bench.says(/ok\n|Error/), /ok\n/);
  } finally {
    await bench.dispose();
  }
});

const NETLINK = `
import signal, socket, struct
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
SOL_NETLINK, ADD_MEMBERSHIP, LIST_MEMBERSHIPS, EXT_ACK = 270, 1, 9, 11
route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
route.bind((0, 0x11))
route.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, 33)
route.setsockopt(SOL_NETLINK, EXT_ACK, 1)
plain = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
connected = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
connected.connect((0, 1))
def look():
    return [(each.getsockname(), each.getpeername(), each.getsockopt(SOL_NETLINK, LIST_MEMBERSHIPS, 8),
             each.getsockopt(SOL_NETLINK, EXT_ACK)) for each in (route, plain, connected)]
before = look()
print('ready', flush=True)
signal.sigwait([signal.SIGTERM])
assert look() == before, (look(), before)
for each in (route, plain):
    # RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP
    each.send(struct.pack('IHHIIB15x', 32, 18, 0x301, 1, 0, 0))
    assert b'lo\\0' in each.recv(1 << 16)
print('ok', flush=True)
`;
