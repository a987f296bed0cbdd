import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PROT_EXEC, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import { bytesOf, textOf } from '../../../src/abi/text.ts';
import { FormatError } from '../../../src/errors.ts';
import { disjoint, parseMaps, parseSmaps, type Vma } from '../../../src/sys/maps.ts';

const SAMPLE = `\
55f0c6a4b000-55f0c6a4d000 r--p 00000000 fe:00 338937                     /usr/bin/cat
55f0c6a4d000-55f0c6a52000 r-xp 00002000 fe:00 338937                     /usr/bin/cat
7f3b4c000000-7f3b4c021000 rw-p 00000000 00:00 0 
7f3b50a00000-7f3b50c00000 rw-s 00000000 00:01 2048                       /memfd:ring buffer (deleted)
7f3b50c00000-7f3b50c01000 rw-s 10000000 00:10 1038                       anon_inode:[io_uring]
7ffd3b9d6000-7ffd3b9f7000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`;

test('all fields of a mapping are read', () => {
  const vmas = parseMaps(SAMPLE, 'sample');
  assert.equal(vmas.length, 7);
  assert.deepEqual(vmas[1], {
    start: 0x55f0c6a4d000,
    end: 0x55f0c6a52000,
    prot: PROT_READ | PROT_EXEC,
    shared: false,
    offset: 0x2000,
    major: 0xfe,
    minor: 0,
    inode: 338937n,
    path: '/usr/bin/cat',
    deleted: false,
  });
  assert.equal(vmas[2]!.path, '');
  assert.deepEqual(
    [vmas[3]!.path, vmas[3]!.deleted, vmas[3]!.shared, vmas[3]!.prot],
    ['/memfd:ring buffer', true, true, PROT_READ | PROT_WRITE],
  );
  assert.equal(vmas[4]!.path, 'anon_inode:[io_uring]');
});

test('the address of [vsyscall] is exact', () => {
  const vsyscall = parseMaps(SAMPLE, 'sample').at(-1)!;
  assert.equal(BigInt(vsyscall.start), 0xffffffffff600000n);
  assert.equal(BigInt(vsyscall.end), 0xffffffffff601000n);
});

test('a path may hold anything but a NUL', () => {
  const head = '1000-2000 r--p 00000000 08:01 5 ';
  const path = (name: string) => parseMaps(`${head}                         ${name}\n`, 'sample')[0]!.path;
  assert.equal(path('/tmp/a\\012b'), '/tmp/a\nb');
  assert.equal(path('/tmp/two  blanks and a tab\t'), '/tmp/two  blanks and a tab\t');
  assert.equal(path('/tmp/\u2028\u0085 /x'), '/tmp/\u2028\u0085 /x');
  assert.equal(path('/tmp/1000-2000 r--p 00000000 08:01 5'), '/tmp/1000-2000 r--p 00000000 08:01 5');
  const bytes = Uint8Array.of(0x2f, 0xff, 0xfe, 0x41);
  assert.deepEqual(Uint8Array.from(bytesOf(path(textOf(bytes)))), bytes);
});

test('what was joined with others between two reads is told once', () => {
  const joined = `\
7f3b4c000000-7f3b4c021000 rw-p 00000000 00:00 0 
7f3b50a00000-7f3b50a10000 rw-p 00000000 fe:00 7                          /a
7f3b50a00000-7f3b50a30000 rw-p 00000000 fe:00 7                          /a
7f3b50a10000-7f3b50a30000 rw-p 00010000 fe:00 7                          /a
7f3b50a30000-7f3b50a31000 rw-p 00000000 00:00 0 
`;
  assert.deepEqual(
    disjoint(parseMaps(joined, 'sample')).map(({ start, end, offset }) => [start, end, offset]),
    [
      [0x7f3b4c000000, 0x7f3b4c021000, 0],
      [0x7f3b50a00000, 0x7f3b50a10000, 0],
      [0x7f3b50a10000, 0x7f3b50a30000, 0x10000],
      [0x7f3b50a30000, 0x7f3b50a31000, 0],
    ],
  );
  assert.deepEqual(disjoint(parseMaps(SAMPLE, 'sample')), parseMaps(SAMPLE, 'sample'));
});

const page = fc.integer({ min: 0, max: 2 ** 35 - 2 }).map((n) => n * 4096);
const vma: fc.Arbitrary<Vma> = fc.record(
  {
    start: page,
    end: page,
    prot: fc.integer({ min: 0, max: 7 }),
    shared: fc.boolean(),
    offset: page,
    major: fc.integer({ min: 0, max: 0xfff }),
    minor: fc.integer({ min: 0, max: 0xfffff }),
    inode: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    path: fc
      .uint8Array({ maxLength: 40 })
      .map((bytes) => `/${textOf(bytes.filter((byte) => byte !== 0))}`)
      .filter((name) => !name.includes('\\012') && !name.endsWith(' (deleted)')),
    deleted: fc.boolean(),
  },
  { noNullPrototype: true },
);

/** As show_map_vma() of fs/proc/task_mmu.c prints it. */
function render(of: Vma): string {
  const hex = (value: number, width: number) => value.toString(16).padStart(width, '0');
  const perms = `${of.prot & 1 ? 'r' : '-'}${of.prot & 2 ? 'w' : '-'}${of.prot & 4 ? 'x' : '-'}${of.shared ? 's' : 'p'}`;
  const head = `${hex(of.start, 8)}-${hex(of.end, 8)} ${perms} ${hex(of.offset, 8)} ${hex(of.major, 2)}:${hex(of.minor, 2)} ${of.inode} `;
  return `${head.padEnd(73)}${of.path.replaceAll('\n', '\\012')}${of.deleted ? ' (deleted)' : ''}\n`;
}

test('what the kernel prints is what is read, for any mapping', () => {
  fc.assert(
    fc.property(fc.array(vma, { maxLength: 5 }), (vmas) => {
      assert.deepEqual(parseMaps(vmas.map(render).join(''), 'sample'), vmas);
    }),
  );
});

test('another text is a FormatError that shows the line', () => {
  assert.throws(
    () => parseMaps('1000-2000 r--p zero\n', '/proc/1/maps'),
    (error: unknown) => {
      assert.ok(error instanceof FormatError);
      assert.match(error.message, /^\/proc\/1\/maps: line: expected a mapping, found "1000-2000 r--p zero"/);
      return true;
    },
  );
});

const SMAPS = `\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0 
Size:               2048 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                  12 kB
Pss:                   6 kB
Swap:                  4 kB
Locked:                0 kB
THPeligible:           1
ProtectionKey:         3
VmFlags: rd wr mr mw me ac sd lo 
7f0000200000-7f0000201000 r--p 00000000 fe:00 12                         /tmp/Name: with colon 4 kB
Size:                  4 kB
Rss:                   0 kB
THPeligible:    0
VmFlags: rd mr mw me 
`;

test('smaps gives sizes in bytes and the flags of each mapping', () => {
  const [anonymous, file] = parseSmaps(SMAPS, 'sample');
  assert.equal(anonymous!.sizes.get('Size'), 2 << 20);
  assert.equal(anonymous!.sizes.get('Rss'), 12 << 10);
  assert.equal(anonymous!.sizes.get('Swap'), 4096);
  assert.deepEqual([...anonymous!.flags], ['rd', 'wr', 'mr', 'mw', 'me', 'ac', 'sd', 'lo']);
  assert.equal(anonymous!.thpEligible, true);
  assert.equal(anonymous!.protectionKey, 3);
  assert.equal(file!.path, '/tmp/Name: with colon 4 kB');
  assert.equal(file!.sizes.get('Rss'), 0);
  assert.equal(file!.thpEligible, false);
  assert.equal(file!.protectionKey, undefined);
  assert.equal(file!.flags.has('wr'), false);
});
