/** What the next kernel's memory map and command line say of preserved memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { E820_TYPE_PRAM, E820_TYPE_RESERVED, E820_TYPE_SOFT_RESERVED } from '../../../src/abi/e820.ts';
import { locationOf, reservations, withLocation } from '../../../src/update/preserved.ts';

test('a command line has one place of preserved memory, the one of the next kernel', () => {
  const location = locationOf({ ranges: [{ start: 0x1234000, size: 4096 }] });
  assert.equal(location, 'tideover.pkram=0x1234000');
  const before =
    'root=/dev/vda1 tideover.pkram=0x99000 modprobe.blacklist=dax_hmem,kmem modprobe.blacklist=floppy quiet';
  const rest = 'root=/dev/vda1 modprobe.blacklist=floppy quiet';
  assert.equal(withLocation(before, [location]), `${rest} ${location}`);
  assert.equal(withLocation(before, []), rest);
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
