import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readNotes, writeNote } from '../../../src/abi/elfnote.ts';
import { openDump } from '../../../src/crash/open.ts';
import { vmcoreinfoOf } from '../../../src/crash/vmcoreinfo.ts';
import { FormatError } from '../../../src/errors.ts';
import { elfDump, memoryReader } from './dumps.ts';

const bytes = (length: number, first = 0) => Uint8Array.from({ length }, (_, i) => (first + i) & 0xff);

function read(file: Uint8Array, address: number, length: number): Uint8Array | { reason: string; address: number } {
  const into = new Uint8Array(length);
  return openDump([memoryReader(file)]).readPhysical(address, into) ?? into;
}

test('memory is read across segments that need not be aligned', () => {
  const file = elfDump([
    { paddr: 0x3000, bytes: bytes(0x1000, 3) },
    { paddr: 0x1001, bytes: bytes(0x1fff, 1) },
  ]);
  assert.deepEqual(read(file, 0x2ffe, 4), Uint8Array.of(0xfe, 0xff, 3, 4));
  assert.deepEqual(read(file, 0x1000, 4), { reason: 'missing', address: 0x1000 });
  assert.deepEqual(read(file, 0x3ffe, 4), { reason: 'missing', address: 0x4000 });
  assert.deepEqual(openDump([memoryReader(file)]).ranges, [{ start: 0x1001, end: 0x4000 }]);
});

test('of segments that overlap either is right, and what one leaves out another may hold', () => {
  const memory = bytes(0x3000);
  const file = elfDump([
    { paddr: 0, bytes: memory.subarray(0, 0x1000), memsz: 0x3000 },
    { paddr: 0x800, bytes: memory.subarray(0x800, 0x2000) },
    { paddr: 0xa00, bytes: memory.subarray(0xa00, 0xb00) },
  ]);
  assert.deepEqual(read(file, 0, 0x2000), memory.slice(0, 0x2000));
  assert.deepEqual(read(file, 0x1000, 0x1800), { reason: 'excluded', address: 0x2000 });
});

test('more than 65535 segments are counted in section header 0', () => {
  const segments = Array.from({ length: 70_000 }, (_, i) => ({ paddr: i * 0x2000, bytes: Uint8Array.of(i & 0xff) }));
  const source = openDump([memoryReader(elfDump(segments))]);
  assert.equal(source.ranges.length, 70_000);
  const into = new Uint8Array(1);
  assert.equal(source.readPhysical(69_999 * 0x2000, into), undefined);
  assert.equal(into[0], 69_999 & 0xff);
});

test('a file that was cut is incomplete, and so is what was in the rest', () => {
  const file = elfDump([{ paddr: 0, bytes: bytes(0x2000) }]);
  const cut = file.subarray(0, file.length - 0x1000);
  assert.equal(openDump([memoryReader(file)]).header.incomplete, false);
  assert.equal(openDump([memoryReader(cut)]).header.incomplete, true);
  assert.deepEqual(read(cut, 0, 0x2000), { reason: 'incomplete', address: 0x1000 });
  assert.equal(openDump([memoryReader(elfDump([], new Uint8Array(), 1))]).header.incomplete, true);
});

test('notes, and what VMCOREINFO says', () => {
  const text =
    'OSRELEASE=6.12.1\nSYMBOL(init_task)=ffffffff8fa10000\nOFFSET(page.flags)=0\nNUMBER(phys_base)=-4096\nSIZE(x)=y\n';
  const notes = Buffer.concat([writeNote('CORE', 1, bytes(5)), writeNote('VMCOREINFO', 0, Buffer.from(text))]);
  assert.deepEqual(
    readNotes(notes).map(({ name, type, desc }) => [name, type, desc.length]),
    [
      ['CORE', 1, 5],
      ['VMCOREINFO', 0, text.length],
    ],
  );
  const source = openDump([memoryReader(elfDump([], notes))]);
  assert.equal(source.header.utsname?.release, '6.12.1');
  const info = vmcoreinfoOf(source.notes)!;
  assert.equal(info.symbol('init_task'), 0xffffffff8fa10000n);
  assert.equal(info.symbol('other'), undefined);
  assert.equal(info.offset('page.flags'), 0);
  assert.equal(info.number('phys_base'), -4096);
  assert.equal(info.size('x'), undefined);
});

test('a header that is cut or asks for too much is refused with its place', () => {
  const file = elfDump([{ paddr: 0, bytes: bytes(16) }], writeNote('CORE', 1, bytes(64)));
  for (let length = 1; length < file.length - 16; length++) {
    assert.throws(() => openDump([memoryReader(file.subarray(0, length))]), FormatError, `${length} bytes`);
  }
  const huge = Buffer.from(file);
  huge.writeBigUInt64LE(1n << 40n, 64 + 32);
  assert.throws(
    () => openDump([memoryReader(huge)]),
    /memory at byte 64: p_filesz of program header 0: expected at most/,
  );
});

test('offsets beyond 2^53, as /proc/kcore has with 5 levels, are read in whole pages', () => {
  const base = 2 ** 55;
  const memory = bytes(0x3000, 7);
  const file = elfDump([{ paddr: 0x5000, bytes: new Uint8Array(0), memsz: 0 }]);
  file.writeBigUInt64LE(BigInt(base), 64 + 56 + 8);
  file.writeBigUInt64LE(0x3000n, 64 + 56 + 32);
  file.writeBigUInt64LE(0x3000n, 64 + 56 + 40);
  const reader = memoryReader(file);
  const source = openDump([
    {
      ...reader,
      size: 2 ** 56,
      read(position, into) {
        if (position < base) return reader.read(position, into);
        assert.equal(position % 4096, 0);
        return memoryReader(memory).read(position - base, into);
      },
    },
  ]);
  const into = new Uint8Array(0x1803);
  assert.equal(source.readPhysical(0x5ffd, into), undefined);
  assert.deepEqual(into, memory.slice(0xffd, 0xffd + into.length));
  assert.deepEqual(source.readPhysical(0x7fff, into), { reason: 'missing', address: 0x8000 });
});
