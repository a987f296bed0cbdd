import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Errno } from '../../../src/abi/errno.ts';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../../../src/abi/fcntl.ts';
import { MADV_HUGEPAGE, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import { bytesOf, textOf } from '../../../src/abi/text.ts';
import { SyscallError } from '../../../src/errors.ts';
import { attributes, close, openat, pread64, read, readlink } from '../../../src/sys/files.ts';
import { kexec_load } from '../../../src/sys/kexec.ts';
import { madvise, mmap } from '../../../src/sys/memory.ts';
import { getpid, getppid, gettid, kill } from '../../../src/sys/process.ts';
import { mapCode, Region } from '../../../src/sys/region.ts';

/** The message of what a call throws. */
function failure(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof SyscallError, String(error));
    return error.message;
  }
  throw new Error('it did not fail');
}

test('an error reads like the call', () => {
  const missing = { dirfd: AT_FDCWD, pathname: '/no/such "file"', flags: O_CLOEXEC, mode: 0o600 };
  assert.equal(
    failure(() => openat(missing)),
    'openat(dirfd=AT_FDCWD, pathname="/no/such \\"file\\"", flags=O_CLOEXEC, mode=0600): ' +
      'ENOENT (No such file or directory)',
  );
  assert.equal(
    failure(() => mmap({ addr: 0x1000, length: 0, prot: 3, flags: MAP_PRIVATE | MAP_FIXED, fd: -1, offset: 0 })),
    'mmap(addr=0x1000, length=0, prot=PROT_READ|PROT_WRITE, flags=MAP_PRIVATE|MAP_FIXED, fd=-1, offset=0x0): ' +
      'EBADF (Bad file descriptor)',
  );
  assert.equal(
    failure(() => madvise({ addr: 1, length: 4096, advice: MADV_HUGEPAGE })),
    'madvise(addr=0x1, length=4096, advice=MADV_HUGEPAGE): EINVAL (Invalid argument)',
  );
  assert.equal(
    failure(() => kill({ pid: 0x7fff_fff0, sig: 15 })),
    'kill(pid=2147483632, sig=SIGTERM): ESRCH (No such process)',
  );
  assert.match(
    // One segment at no address: fails on every kernel before anything is loaded or unloaded.
    failure(() => kexec_load({ entry: 0x100000, nr_segments: 1, segments: 0, flags: 0x3e0000 })),
    /^kexec_load\(entry=0x100000, nr_segments=1, segments=0x0, flags=KEXEC_ARCH_X86_64\): E[A-Z]+ \(/,
  );
});

test('errno is right in 200 000 failing calls with garbage collections between', () => {
  const expected = [
    [() => close.attempt({ fd: -1 }), Errno.EBADF],
    [() => kill.attempt({ pid: 0x7fff_fff0, sig: 0 }), Errno.ESRCH],
    [() => madvise.attempt({ addr: 1, length: 1, advice: 0 }), Errno.EINVAL],
    [() => read.attempt({ fd: 0x7fff_fff0, buf: 8, count: 1 }), Errno.EBADF],
    [() => openat.attempt({ dirfd: AT_FDCWD, pathname: '/no/such', flags: O_RDONLY, mode: 0 }), Errno.ENOENT],
  ] as const;
  let garbage: unknown[] = [];
  for (let i = 0; i < 200_000; i++) {
    const [call, errno] = expected[i % expected.length]!;
    garbage.push({ i, text: `garbage ${i}`, more: new Array(8).fill(i) });
    const result = call();
    if (result !== -errno) assert.fail(`call ${i} gave ${result}, not ${-errno}`);
    if (garbage.length === 5000) garbage = [];
  }
});

test('results, buffers in both directions and text arrive', () => {
  assert.equal(getpid({}), process.pid);
  assert.equal(getppid({}), process.ppid);
  assert.equal(gettid({}), process.pid);
  const folder = mkdtempSync(join(tmpdir(), 'tideover-syscall-'));
  try {
    const file = join(folder, 'größe 😀');
    writeFileSync(file, '0123456789');
    const fd = openat({ dirfd: AT_FDCWD, pathname: file, flags: O_RDONLY, mode: 0 });
    const buf = new Uint8Array(4);
    assert.equal(pread64({ fd, buf, count: 4, offset: 3 }), 4);
    assert.equal(Buffer.from(buf).toString(), '3456');
    assert.equal(readlink(`/proc/self/fd/${fd}`), file);
    close({ fd });
    assert.equal(attributes(AT_FDCWD, file).stx_size, 10);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a file whose name is not UTF-8 is opened and named', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-names-'));
  try {
    const name = Buffer.concat([Buffer.from(`${folder}/`), Uint8Array.of(0xff, 0x41, 0xe6, 0x97)]);
    closeSync(openSync(name, 'w'));
    const fd = openat({ dirfd: AT_FDCWD, pathname: textOf(name), flags: O_RDONLY, mode: 0 });
    assert.deepEqual(Buffer.from(bytesOf(readlink(`/proc/self/fd/${fd}`))), name);
    close({ fd });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('arguments that do not fit are refused before the call', () => {
  const buf = new Uint8Array(2 << 20);
  assert.throws(() => pread64({ fd: 0, buf, count: buf.length, offset: 0 }), /large buffers go into a Region/);
});

test('a call on another thread leaves this one free and throws the same error', async () => {
  using region = new Region(4096);
  const fd = openat({ dirfd: AT_FDCWD, pathname: '/proc/self/status', flags: O_RDONLY, mode: 0 });
  const length = await read.async({ fd, buf: region.address, count: region.size });
  assert.match(Buffer.from(region.bytes.subarray(0, length)).toString(), /^Name:/);
  close({ fd });
  await assert.rejects(read.async({ fd: -1, buf: region.address, count: 1 }), /^SyscallError: read\(fd=-1, buf=0x/);
  await assert.rejects(read.async({ fd: 0, buf: new Uint8Array(1), count: 1 }), TypeError);
});

test('a Worker has system calls of its own', async () => {
  const code = `
    const { getpid, gettid } = await import(${JSON.stringify(import.meta.resolve('../../../src/sys/process.ts'))});
    const { parentPort } = await import('node:worker_threads');
    parentPort.postMessage([getpid({}), gettid({})]);`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
  const [pid, tid] = await new Promise<[number, number]>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  await worker.terminate();
  assert.equal(pid, process.pid);
  assert.notEqual(tid, process.pid);
});

test('a Region is unmapped once, and its address is free again', () => {
  const region = new Region(5000);
  assert.equal(region.size, 8192);
  region.view.setUint32(4096, 0xdead_beef, true);
  assert.equal(region.bytes[4096], 0xef);
  const { address } = region;
  const touch = () => madvise.attempt({ addr: address, length: 8192, advice: 0 });
  assert.equal(touch(), 0);
  region[Symbol.dispose]();
  assert.equal(touch(), -Errno.ENOMEM);
  // Whoever gets the addresses next keeps them.
  const next = mmap({
    addr: address,
    length: 8192,
    prot: PROT_READ | PROT_WRITE,
    flags: MAP_PRIVATE | 0x20 | 0x100000,
    fd: -1,
    offset: 0,
  });
  assert.equal(next, address);
  region[Symbol.dispose]();
  assert.equal(touch(), 0);
});

test('machine code runs', () => {
  const add = mapCode(Uint8Array.of(0x48, 0x8d, 0x04, 0x37, 0xc3), 2); // lea rax, [rdi+rsi]; ret
  assert.equal(add.call(40, 2), 42);
  assert.equal(add.call(-1, -2), -3);
});
