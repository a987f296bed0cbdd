/** Calls of another thread, with real ones. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Errno } from '../../../src/abi/errno.ts';
import { O_CLOEXEC } from '../../../src/abi/fcntl.ts';
import { NR } from '../../../src/abi/unistd.ts';
import { Background } from '../../../src/process/background.ts';
import { close, makePipe, read, write } from '../../../src/sys/files.ts';
import { gettid } from '../../../src/sys/process.ts';
import { Region } from '../../../src/sys/region.ts';

test('calls are another thread’s, in their order, while this one goes on', () => {
  const { reader, writer } = makePipe(O_CLOEXEC);
  using data = new Region(4096);
  const { address } = data;
  data.bytes.set([1, 2, 3]);
  using calls = new Background(4);
  const tid = calls.add(NR.gettid);
  // Until this thread has written, which it can as soon as that one has its calls.
  const got = calls.add(NR.read, reader, address + 128, 8);
  const failed = calls.add(NR.close, -1);
  const again = calls.add(NR.write, writer, address + 128, 2);
  calls.start();
  write({ fd: writer, buf: address, count: 3 });
  calls.wait();
  assert.deepEqual([calls.result(got), calls.result(failed), calls.result(again)], [3, -Errno.EBADF, 2]);
  assert.notEqual(calls.result(tid), gettid({}));
  assert.equal(read({ fd: reader, buf: address + 256, count: 8 }), 2);
  assert.deepEqual([...data.bytes.subarray(256, 258)], [1, 2]);
  for (const fd of [reader, writer]) close({ fd });
});

test('thousands of them leave nothing behind, without a turn of the event loop', () => {
  const before = readdirSync('/proc/self/task').length;
  for (let round = 0; round < 2000; round++) {
    using calls = new Background(1);
    const pid = calls.add(NR.getpid);
    calls.start();
    calls.wait();
    assert.equal(calls.result(pid), process.pid);
  }
  assert.ok(readdirSync('/proc/self/task').length <= before + 1);
});

test('what was never begun need not be waited for', () => {
  using calls = new Background(1);
  calls.add(NR.getpid);
  calls.wait();
});
