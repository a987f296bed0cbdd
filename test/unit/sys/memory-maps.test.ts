import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { parseIomem } from '../../../src/sys/iomem.ts';
import { parseFirmwareRange } from '../../../src/sys/memmap.ts';

const IOMEM = `\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000fffff : PCI Bus 0000:00
  000c0000-000cbdff : Video ROM
00100000-bfffffff : System RAM
  01000000-02209987 : Kernel code
  10000000-19ffffff : Crash kernel
eec00000-febfffff : Reserved
  eec00000-eecfffff : PCI ECAM 0000 [bus 00-00]
    eec00000-eecfffff : PCI Bus 0000:00
100000000-63fffffff : System RAM
4000000000-7fffffffff : PCI Bus 0000:00 : odd name
`;

test('resources of iomem have half-open ranges, names and depths', () => {
  const resources = parseIomem(IOMEM, 'sample');
  assert.equal(resources.length, 12);
  assert.deepEqual(resources[0], { start: 0, end: 0x1000, name: 'Reserved', depth: 0 });
  assert.deepEqual(resources[6], { start: 0x1000_0000, end: 0x1a00_0000, name: 'Crash kernel', depth: 1 });
  assert.deepEqual(resources[9], { start: 0xeec0_0000, end: 0xeed0_0000, name: 'PCI Bus 0000:00', depth: 2 });
  assert.deepEqual(resources[10], { start: 0x1_0000_0000, end: 0x6_4000_0000, name: 'System RAM', depth: 0 });
  assert.equal(resources[11]!.name, 'PCI Bus 0000:00 : odd name');
});

test('addresses hidden from a process without privilege are said so, not taken for a memory of one byte', () => {
  const hidden = IOMEM.replace(/[0-9a-f]{8,}/g, '00000000');
  assert.throws(
    () => parseIomem(hidden, '/proc/iomem'),
    (error: unknown) => {
      assert.ok(error instanceof UnsupportedError);
      assert.match(error.message, /CAP_SYS_ADMIN; run as root/);
      return true;
    },
  );
});

test('another text is a FormatError', () => {
  assert.throws(() => parseIomem('00000000-00000fff Reserved\n', 'sample'), FormatError);
});

test('a range of the firmware ends behind its last byte', () => {
  const range = parseFirmwareRange({ start: '0x100000000\n', end: '0x63fffffff\n', type: 'System RAM\n' }, 'sample');
  assert.deepEqual(range, { start: 0x1_0000_0000, end: 0x6_4000_0000, type: 'System RAM' });
  assert.throws(() => parseFirmwareRange({ start: '', end: '0x1\n', type: 'x\n' }, 'sample'), /sample\/start: start/);
});
