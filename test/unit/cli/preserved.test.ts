/** How a medium of preserved memory is named, and what the next kernel's command line says of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { E820_TYPE_PRAM, E820_TYPE_RESERVED, E820_TYPE_SOFT_RESERVED } from '../../../src/abi/e820.ts';
import { UsageError } from '../../../src/cli/exit.ts';
import { placeOf } from '../../../src/cli/pkram.ts';
import { locationOf, preserveAs, reservations, withLocation } from '../../../src/cli/preserved.ts';

test('a medium is a file, an address or a range', () => {
  assert.deepEqual(placeOf('/some/file'), { kind: 'file', path: '/some/file' });
  assert.deepEqual(placeOf('./memory'), { kind: 'file', path: './memory' });
  assert.deepEqual(placeOf('memory:0x100000000'), { kind: 'physical', superblock: 2 ** 32 });
  const region = { start: 2 ** 32, end: 2 ** 32 + 2 ** 30 };
  assert.deepEqual(placeOf('memory:0x100000000-0x13fffffff'), { kind: 'physical', superblock: 2 ** 32, region });
  for (const wrong of ['memory:', 'memory:1G', 'memory:0x2000-0x1000', 'memory:4096']) {
    assert.throws(() => placeOf(wrong), UsageError, wrong);
  }
});

test('a command line has one place of preserved memory, the one of the next kernel', () => {
  const location = locationOf({ ranges: [{ start: 0x1234000, size: 4096 }] });
  assert.equal(location, 'tideover.pkram=0x1234000');
  const before =
    'root=/dev/vda1 tideover.pkram=0x99000 modprobe.blacklist=dax_hmem,kmem modprobe.blacklist=floppy quiet';
  const rest = 'root=/dev/vda1 modprobe.blacklist=floppy quiet';
  assert.equal(withLocation(before, [location]), `${rest} ${location}`);
  assert.equal(withLocation(before, []), rest);
});

test('preserved memory is kept as one of the types, or two', () => {
  assert.equal(preserveAs('soft-reserved'), 'soft-reserved');
  assert.equal(preserveAs('soft-reserved,pram'), 'soft-reserved,pram');
  assert.throws(() => preserveAs('pmem'), /reserved or soft-reserved or pram/);
});

test('whole blocks are soft reserved, what lies beside them reserved', () => {
  const MIB = 1 << 20;
  const ranges = [
    { start: 100 * MIB, size: 60 * MIB },
    { start: 160 * MIB, size: 240 * MIB },
    { start: 600 * MIB, size: 20 * MIB },
  ];
  const soft = { start: 128 * MIB, end: 384 * MIB, type: E820_TYPE_SOFT_RESERVED };
  const reserved = (start: number, end: number) => ({ start: start * MIB, end: end * MIB, type: E820_TYPE_RESERVED });
  assert.deepEqual(reservations(ranges, 'soft-reserved', 128 * MIB), [
    soft,
    reserved(100, 128),
    reserved(384, 400),
    reserved(600, 620),
  ]);
  assert.deepEqual(reservations(ranges, 'soft-reserved', undefined), [reserved(100, 400), reserved(600, 620)]);
  assert.deepEqual(reservations(ranges, 'reserved', 128 * MIB), [reserved(100, 400), reserved(600, 620)]);
  const asPram = (each: object) => ({ ...each, type: E820_TYPE_PRAM });
  assert.deepEqual(reservations(ranges, 'pram', 128 * MIB), [reserved(100, 400), reserved(600, 620)].map(asPram));
  const both = [soft, ...[reserved(100, 128), reserved(384, 400), reserved(600, 620)].map(asPram)];
  assert.deepEqual(reservations(ranges, 'soft-reserved,pram', 128 * MIB), both);
});
