import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  NLA_TYPE_MASK,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLMSG_DONE,
  NLMSG_ERROR,
  nlattr,
  nlmsghdr,
} from '../../../src/abi/netlink.ts';
import { TCP_LISTEN } from '../../../src/abi/tcp.ts';
import { UNIX_DIAG_NAME, UNIX_DIAG_PEER, UNIX_DIAG_RQLEN, unix_diag_msg } from '../../../src/abi/unix_diag.ts';
import { FormatError } from '../../../src/errors.ts';
import { parseAttributes, parseMessages, readAnswer } from '../../../src/sys/netlink.ts';
import { parseInetSocket, parseUnixSocket } from '../../../src/sys/sock_diag.ts';

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  whole.set(bytes);
  return whole;
}

function message(type: number, seq: number, payload: Uint8Array, flags = NLM_F_MULTI): Uint8Array {
  const length = nlmsghdr.size + payload.length;
  const head = nlmsghdr.write({ nlmsg_len: length, nlmsg_type: type, nlmsg_flags: flags, nlmsg_seq: seq });
  return Buffer.concat([head, padded(payload)]);
}

function attribute(type: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([nlattr.write({ nla_len: 4 + value.length, nla_type: type }), padded(value)]);
}

const payload = fc.uint8Array({ maxLength: 40 });

test('messages come out of a datagram as they went in', () => {
  const one = fc.record({ type: fc.nat(0xffff), seq: fc.nat(), payload });
  fc.assert(
    fc.property(fc.array(one, { maxLength: 6 }), (messages) => {
      const datagram = Buffer.concat(messages.map((m) => message(m.type, m.seq, m.payload)));
      const found = parseMessages(datagram).map((m) => ({ ...m, payload: Uint8Array.from(m.payload) }));
      assert.deepEqual(
        found,
        messages.map((m) => ({ ...m, flags: 2 })),
      );
    }),
  );
});

test('an answer ends with its own end, and says what became of it', () => {
  const status = (value: number) => new Uint8Array(Int32Array.of(value).buffer);
  const read = (...datagrams: Uint8Array[]) => readAnswer(() => datagrams.shift()!, 20, 7);
  const found = Uint8Array.of(1, 2, 3, 4);
  // What an earlier request left behind is passed over.
  const old = [message(20, 6, found), message(NLMSG_DONE, 6, status(-1))];
  const whole = read(Buffer.concat(old), message(20, 7, found), message(NLMSG_DONE, 7, status(0)));
  assert.deepEqual([whole.messages.map(({ seq }) => seq), whole.interrupted], [[7], false]);
  for (const [first, last] of [
    [NLM_F_DUMP_INTR, 0],
    [0, NLM_F_DUMP_INTR],
  ]) {
    const datagrams = [message(20, 7, found, first), message(NLMSG_DONE, 7, status(0), last)];
    assert.equal(read(...datagrams).interrupted, true);
  }
  for (const end of [NLMSG_DONE, NLMSG_ERROR]) {
    assert.throws(
      () => read(message(20, 7, found), message(end, 7, status(-2))),
      /^SyscallError: netlink .*20: ENOENT/,
    );
  }
});

test('attributes come out as they went in, without the flags of their types', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(fc.nat(NLA_TYPE_MASK), payload), { selector: ([type]) => type }), (list) => {
      const bytes = Buffer.concat(list.map(([type, value]) => attribute(type | 0x8000, value)));
      const found = [...parseAttributes(bytes)].map(([type, value]) => [type, Uint8Array.from(value)]);
      assert.deepEqual(found, list);
    }),
  );
});

test('damaged messages end, and only in a FormatError', () => {
  const parsers = [parseMessages, parseAttributes, parseInetSocket, parseUnixSocket];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(parsers.length - 1), (bytes, i) => {
      try {
        parsers[i]!(bytes);
      } catch (error) {
        assert.ok(error instanceof FormatError || error instanceof RangeError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

test('a length that leads out of the datagram is told with its place', () => {
  const bytes = Buffer.concat([message(20, 1, Uint8Array.of(1, 2, 3, 4)), message(20, 1, new Uint8Array(8))]);
  bytes.writeUInt32LE(1000, 20);
  assert.throws(() => parseMessages(bytes), /netlink message at byte 20: nlmsg_len: expected 16 to 24, found 1000/);
});

test('a socket of IPv4 is read from the bytes that the kernel sends', () => {
  // From a dump of a listening socket on 127.0.0.1:8080.
  const bytes = Buffer.from(
    `02 0a 00 00 1f90 0000 7f000001 000000000000000000000000 00000000 000000000000000000000000 00000000 11000000 01000000
     00000000 00000000 80000000 e8030000 39300000 05 00 08 00 00 00 00 00`.replace(/\s/g, ''),
    'hex',
  );
  const socket = parseInetSocket(bytes);
  assert.deepEqual([socket.family, socket.state, socket.sourcePort, socket.inode], [2, TCP_LISTEN, 8080, 12345]);
  assert.deepEqual([...socket.source], [127, 0, 0, 1]);
  assert.equal(socket.cookie, 0x1_0000_0011n);
  assert.deepEqual([socket.receiveQueue, socket.sendQueue, socket.uid], [0, 128, 1000]);
  assert.deepEqual([...socket.attributes.keys()], [8]);
});

test('names of UNIX sockets: a path, an abstract one, none', () => {
  const head = unix_diag_msg.write({ udiag_family: 1, udiag_type: 1, udiag_state: TCP_LISTEN, udiag_ino: 77 });
  const named = (name: Uint8Array) => parseUnixSocket(Buffer.concat([head, attribute(UNIX_DIAG_NAME, name)])).name;
  assert.equal(named(Buffer.from('/run/x.sock\0')), '/run/x.sock');
  assert.equal(named(Buffer.from('\0abstract\0name')), '\0abstract\0name');
  assert.equal(parseUnixSocket(head).name, undefined);
  const queues = attribute(UNIX_DIAG_RQLEN, Uint8Array.of(3, 0, 0, 0, 128, 0, 0, 0));
  const peer = attribute(UNIX_DIAG_PEER, Uint8Array.of(78, 0, 0, 0));
  const socket = parseUnixSocket(Buffer.concat([head, peer, queues]));
  assert.deepEqual([socket.inode, socket.peer, socket.receiveQueue, socket.sendQueue], [77, 78, 3, 128]);
});
