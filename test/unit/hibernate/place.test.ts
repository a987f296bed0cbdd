/** Images in files, whose blocks are read and written on the disk itself. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { openOutput, openReader, placeOf } from '../../../src/hibernate/place.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-place-'));
after(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'disk');
/** Pieces of 40, 8 and 16 bytes, which lie on the disk in another order. */
const extents = [
  { start: 0, at: 100, length: 40 },
  { start: 40, at: 8, length: 8 },
  { start: 48, at: 60, length: 16 },
];

test('pieces of a disk are one row of bytes, and nothing beside them is touched', () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 64 });
  fc.assert(
    fc.property(bytes, fc.nat(63), (written, position) => {
      fc.pre(position + written.length <= 64);
      const disk = Buffer.alloc(160, 0xee);
      writeFileSync(path, disk);
      const output = openOutput({ path, extents });
      output.write(position, written);
      output.close();
      for (const [i, byte] of written.entries()) {
        const at = position + i;
        const { start, at: place } = extents.findLast((each) => each.start <= at)!;
        disk[place + at - start] = byte;
      }
      assert.deepEqual(readFileSync(path), disk);
      const reader = openReader({ path, extents });
      const found = new Uint8Array(80);
      assert.equal(reader.size, 64);
      assert.equal(reader.read(position, found), 64 - position);
      assert.deepEqual(found.subarray(0, written.length), written);
      reader.close();
    }),
  );
});

test('behind the last piece there is no room', () => {
  const output = openOutput({ path, extents });
  assert.throws(() => output.write(60, new Uint8Array(5)), /ENOSPC/);
  output.close();
  assert.equal(openReader({ path, extents }).read(64, new Uint8Array(1)), 0);
});

test('what is neither a disk nor a file is refused', () => {
  assert.throws(() => placeOf('/dev/null'), /neither a disk nor a file/);
});
