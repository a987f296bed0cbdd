import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { Errno } from '../../../src/abi/errno.ts';
import {
  AT_FDCWD,
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_GROW,
  F_SEAL_SHRINK,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
} from '../../../src/abi/fcntl.ts';
import * as fs from '../../../src/abi/fs.ts';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import { iovec } from '../../../src/abi/uio.ts';
import * as uffd from '../../../src/abi/userfaultfd.ts';
import { close, fcntl, ftruncate, openat, read } from '../../../src/sys/files.ts';
import { readMaps, readSmaps } from '../../../src/sys/maps.ts';
import { memfd_create, mincore } from '../../../src/sys/memory.ts';
import { type PageFilter, Pagemap, PM_FILE, PM_PRESENT, pfnOf } from '../../../src/sys/pagemap.ts';
import { process_vm_readv, readMemory, writeMemory } from '../../../src/sys/process_vm.ts';
import { Region } from '../../../src/sys/region.ts';
import { openUserfaultfd, uffdio } from '../../../src/sys/userfaultfd.ts';
import { BULK_SIZE, fill, halt, PATTERN_PAGES, SHARED_PAGES, startTarget } from './target.ts';

const PAGE = 4096;
const isRoot = process.getuid!() === 0;
const needsFrames = { skip: !isRoot && 'page frame numbers need root' };

test("another process's memory is read and written", async (t) => {
  const target = await startTarget(t);
  using region = new Region(BULK_SIZE);
  assert.equal(readMemory(target.pid, target.bulk, region.address, BULK_SIZE), BULK_SIZE);
  const expected = new Uint8Array(BULK_SIZE);
  fill(expected);
  const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
  assert.equal(digest(region.bytes), digest(expected));

  region.bytes.set([9, 8, 7, 6]);
  assert.equal(writeMemory(target.pid, target.bulk + 4094, region.address, 4), 4);
  assert.equal(readMemory(target.pid, target.bulk + 4092, region.address + 8, 8), 8);
  assert.deepEqual([...region.bytes.subarray(10, 14)], [9, 8, 7, 6]);
});

test('many ranges go into one buffer, and reading stops where the memory ends', async (t) => {
  const target = await startTarget(t);
  using region = new Region(BULK_SIZE);
  const ranges = Array.from({ length: 600 }, (_, i) => ({ iov_base: target.bulk + 3 * PAGE * i, iov_len: 100 + i }));
  const total = ranges.reduce((sum, { iov_len }) => sum + iov_len, 0);
  const remote_iov = Buffer.concat(ranges.map((range) => iovec.write(range)));
  const local_iov = iovec.write({ iov_base: region.address, iov_len: total });
  const args = { pid: target.pid, local_iov, liovcnt: 1, remote_iov, riovcnt: ranges.length, flags: 0 };
  assert.equal(process_vm_readv(args), total);
  const all = new Uint8Array(BULK_SIZE);
  fill(all);
  let at = 0;
  for (const [i, { iov_len }] of ranges.entries()) {
    assert.deepEqual(region.bytes.subarray(at, at + iov_len), all.subarray(3 * PAGE * i, 3 * PAGE * i + iov_len));
    at += iov_len;
  }

  const vma = readMaps(target.pid).find(({ path }) => path.startsWith('/memfd:tideover target'));
  assert.ok(vma);
  // Pages of a mapping behind the end of its file cannot be read.
  ftruncateOf(target.pid, target.memfd, 2 * PAGE);
  assert.equal(readMemory(target.pid, target.shared, region.address, 4 * PAGE), 2 * PAGE);
  assert.throws(() => readMemory(target.pid, 0x1000, region.address, 8), /^SyscallError: process_vm_readv\(.*EFAULT/);
});

function ftruncateOf(pid: number, fd: number, length: number): void {
  const file = openat({ dirfd: AT_FDCWD, pathname: `/proc/${pid}/fd/${fd}`, flags: O_RDWR, mode: 0 });
  ftruncate({ fd: file, length });
  close({ fd: file });
}

const filter = (start: number, pages: number, more: Partial<PageFilter> = {}): PageFilter => ({
  start,
  end: start + pages * PAGE,
  category_inverted: 0,
  category_mask: 0,
  category_anyof_mask: fs.PAGE_IS_PRESENT | fs.PAGE_IS_SWAPPED,
  return_mask: fs.PAGE_IS_PRESENT | fs.PAGE_IS_SWAPPED | fs.PAGE_IS_FILE | fs.PAGE_IS_PFNZERO,
  ...more,
});

/** What a checkpoint saves: neither pages of files nor the page of zeros. */
const dirty = {
  category_inverted: fs.PAGE_IS_FILE | fs.PAGE_IS_PFNZERO,
  category_mask: fs.PAGE_IS_FILE | fs.PAGE_IS_PFNZERO,
  return_mask: 0,
};

test('pages are found by their state', needsFrames, async (t) => {
  const target = await startTarget(t);
  using pagemap = new Pagemap(target.pid);
  for (const scan of [pagemap.scan.bind(pagemap), pagemap.scanWithoutIoctl.bind(pagemap)]) {
    const expected: number[] = [];
    for (let page = 0; page < PATTERN_PAGES; page++) {
      const at = target.pattern + page * PAGE;
      if (page % 3 === 0) expected.push(at, at + PAGE, fs.PAGE_IS_PRESENT);
      if (page % 3 === 1) expected.push(at, at + PAGE, fs.PAGE_IS_PRESENT | fs.PAGE_IS_PFNZERO);
    }
    assert.deepEqual([...scan(filter(target.pattern, PATTERN_PAGES))], expected);

    const written = [...scan(filter(target.pattern, PATTERN_PAGES, dirty))];
    assert.deepEqual(
      written.filter((_, i) => i % 3 === 0),
      Array.from({ length: Math.ceil(PATTERN_PAGES / 3) }, (_, i) => target.pattern + 3 * i * PAGE),
    );
    // Bulk memory is one run.
    const bulk = scan(filter(target.bulk, BULK_SIZE / PAGE, dirty));
    assert.deepEqual([...bulk], [target.bulk, target.bulk + BULK_SIZE, 0]);
    // Of a private mapping of a file what was written is not the file's; what was read is.
    const copies = [...scan(filter(target.private, SHARED_PAGES, dirty))];
    assert.deepEqual(copies, [target.private, target.private + 2 * PAGE, 0]);
    const readOnly = [...scan(filter(target.private, SHARED_PAGES, { category_mask: fs.PAGE_IS_FILE }))];
    assert.deepEqual(readOnly.slice(0, 1), [target.private + 2 * PAGE]);
    assert.equal(readOnly[2]! & fs.PAGE_IS_FILE, fs.PAGE_IS_FILE);
  }
});

test('PAGEMAP_SCAN and the entries of pagemap give the same answer for every mapping', needsFrames, async (t) => {
  const target = await startTarget(t);
  using pagemap = new Pagemap(target.pid);
  await halt(target.pid);
  let runs = 0;
  // PAGEMAP_SCAN leaves memory of devices out, and it knows huge pages of zeros.
  const same = readSmaps(target.pid).filter(
    ({ flags, sizes, path }) => !flags.has('pf') && sizes.get('AnonHugePages') === 0 && path !== '[vsyscall]',
  );
  for (const vma of same) {
    const whole = { start: vma.start, end: vma.end };
    for (const more of [{}, dirty, { category_mask: fs.PAGE_IS_FILE }]) {
      const wanted = filter(vma.start, 0, { ...more, ...whole });
      let [byIoctl, byEntries] = [pagemap.scan(wanted), pagemap.scanWithoutIoctl(wanted)];
      // The kernel takes pages of files away when it needs memory.
      for (let tries = 0; tries < 10 && !isDeepStrictEqual(byIoctl, byEntries); tries++) {
        [byIoctl, byEntries] = [pagemap.scan(wanted), pagemap.scanWithoutIoctl(wanted)];
      }
      assert.deepEqual(byEntries, byIoctl, vma.path);
      runs += byIoctl.length / 3;
    }
  }
  assert.ok(runs > 100, `${runs} runs`);
  // All at once, without the terabytes between them, of which reading the entries would take hours.
  const all = filter(0, 0, { ...dirty, start: same[0]!.start, end: same.at(-1)!.end });
  const each = same.flatMap(({ start, end }) => [...pagemap.scan(filter(0, 0, { ...dirty, start, end }))]);
  const joined = [...pagemap.scanWithoutIoctl(all, same)];
  const bytes = (list: number[]) => list.reduce((sum, _, i) => (i % 3 === 0 ? sum + list[i + 1]! - list[i]! : sum), 0);
  assert.equal(bytes(joined), bytes(each));
});

test('more runs than fit one answer of the kernel are all there', () => {
  const pages = 40_000;
  using region = new Region(pages * PAGE);
  using pagemap = new Pagemap('self');
  for (let page = 0; page < pages; page += 2) region.bytes[page * PAGE] = 1;
  const found = pagemap.scan(filter(region.address, pages, dirty));
  assert.equal(found.length, (3 * pages) / 2);
  assert.deepEqual(pagemap.scanWithoutIoctl(filter(region.address, pages, dirty)), found);
  for (let i = 0; i < found.length; i += 3) {
    if (found[i] !== region.address + (2 * i * PAGE) / 3) assert.fail(`run ${i / 3} starts at ${found[i]}`);
  }
});

test('a filter that would match pages that are not there is refused', () => {
  using pagemap = new Pagemap('self');
  const bad = [
    { category_anyof_mask: 0 },
    { category_anyof_mask: fs.PAGE_IS_FILE },
    { category_inverted: fs.PAGE_IS_PRESENT },
  ];
  for (const more of bad) assert.throws(() => pagemap.scan(filter(0, 1, more)), RangeError);
  const written = { return_mask: fs.PAGE_IS_WRITTEN };
  assert.throws(() => pagemap.scanWithoutIoctl(filter(0, 1, written)), /0x2: not in pagemap/);
});

test('entries of pagemap tell page frames, which shared memory has in common', {
  skip: !isRoot && 'needs root',
}, async (t) => {
  const target = await startTarget(t);
  using pagemap = new Pagemap(target.pid);
  const length = SHARED_PAGES * PAGE;
  let shared: Uint32Array;
  let privately: Uint32Array;
  // The kernel may move a page between two looks at it.
  do {
    shared = pagemap.read(target.shared, target.shared + length);
    privately = pagemap.read(target.private, target.private + length);
  } while (!isDeepStrictEqual(pagemap.read(target.shared, target.shared + length), shared));
  assert.equal(shared.length, 2 * SHARED_PAGES);
  assert.ok((shared[3]! & PM_PRESENT) !== 0 && (shared[3]! & PM_FILE) !== 0);
  // Page 3 was read only and is the file's; page 1 was written and is a copy.
  assert.equal(pfnOf(privately, 3), pfnOf(shared, 3));
  assert.notEqual(pfnOf(shared, 3), 0);
  assert.notEqual(pfnOf(privately, 1), pfnOf(shared, 1));
  // Behind the end of the address space there is nothing.
  assert.deepEqual([...pagemap.read(0x7fff_ffff_f000, 0x8000_0000_0000)], [0, 0]);
});

test('a userfaultfd fills memory that is missing', { skip: !isRoot && 'needs root' }, async () => {
  const { fd, features, ioctls } = openUserfaultfd(O_CLOEXEC | O_NONBLOCK | uffd.UFFD_USER_MODE_ONLY);
  assert.ok(features & uffd.UFFD_FEATURE_MISSING_SHMEM);
  // UFFDIO_API itself.
  assert.equal((ioctls >> 63n) & 1n, 1n);
  using memory = new Region(4 * PAGE);
  using source = new Region(4 * PAGE);
  fill(source.bytes);
  const range = { start: memory.address, len: memory.size };
  const register = uffd.uffdio_register.write({ range, mode: uffd.UFFDIO_REGISTER_MODE_MISSING });
  uffdio({ fd, request: uffd.UFFDIO_REGISTER, arg: register });
  const copy = { dst: memory.address, src: source.address, len: memory.size, mode: 0 };
  const arg = uffd.uffdio_copy.write(copy);
  uffdio({ fd, request: uffd.UFFDIO_COPY, arg });
  assert.equal(uffd.uffdio_copy.read(arg).copy, memory.size);
  assert.deepEqual(memory.bytes, source.bytes);
  // A page that is there is not overwritten, and the argument says so too.
  const again = uffd.uffdio_copy.write(copy);
  assert.equal(uffdio.attempt({ fd, request: uffd.UFFDIO_COPY, arg: again }), -Errno.EEXIST);
  assert.equal(uffd.uffdio_copy.read(again).copy, -Errno.EEXIST);
  assert.equal(read.attempt({ fd, buf: new Uint8Array(32), count: 32 }), -Errno.EAGAIN);
  close({ fd });
});

test('a memfd keeps its seals, and mincore sees what was touched', () => {
  const fd = memfd_create({ name: 'sealed', flags: MFD_CLOEXEC | MFD_ALLOW_SEALING });
  ftruncate({ fd, length: PAGE });
  fcntl({ fd, cmd: F_ADD_SEALS, arg: F_SEAL_GROW | F_SEAL_SHRINK });
  assert.equal(fcntl({ fd, cmd: F_GET_SEALS, arg: 0 }), F_SEAL_GROW | F_SEAL_SHRINK);
  assert.throws(() => ftruncate({ fd, length: 2 * PAGE }), /ftruncate\(fd=\d+, length=8192\): EPERM/);
  close({ fd });
  using region = new Region(4 * PAGE);
  region.bytes[2 * PAGE] = 1;
  const vec = new Uint8Array(4);
  mincore({ addr: region.address, length: region.size, vec });
  assert.deepEqual([...vec], [0, 0, 1, 0]);
});

test('mappings of a process are those it made', async (t) => {
  const target = await startTarget(t);
  await halt(target.pid);
  const maps = readMaps(target.pid);
  const at = (address: number) => maps.find(({ start, end }) => start <= address && address < end)!;
  assert.equal(at(target.shared).start, target.shared);
  assert.equal(at(target.shared).end, target.shared + SHARED_PAGES * PAGE);
  assert.deepEqual(
    [at(target.shared).shared, at(target.shared).path, at(target.shared).deleted, at(target.shared).prot],
    [true, '/memfd:tideover target', true, PROT_READ | PROT_WRITE],
  );
  assert.equal(at(target.private).shared, false);
  assert.equal(at(target.private).inode, at(target.shared).inode);
  const smaps = readSmaps(target.pid);
  const bulk = smaps.find(({ start, end }) => start <= target.bulk && target.bulk < end)!;
  assert.ok(bulk.sizes.get('Rss')! >= BULK_SIZE);
  assert.ok(bulk.flags.has('wr') && !bulk.flags.has('sh'));
  assert.deepEqual(
    smaps.map(({ start }) => start),
    maps.map(({ start }) => start),
  );
});
