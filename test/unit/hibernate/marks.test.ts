/** What makes a saved machine one that must not go on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { knownLosses } from '../../../src/hibernate/drivers.ts';
import { changedAmong, type FileSystemMark } from '../../../src/hibernate/marks.ts';

const mark = (id: string, digest: string, at = ''): FileSystemMark => ({ id, digest, at });

test('a file system that is another one now is named; one that is not there, or of which a mirror is, is passed over', () => {
  const saved = [mark('ext:1', 'a', '/'), mark('xfs:2', 'b', '/home')];
  assert.equal(changedAmong(saved, [mark('ext:1', 'a'), mark('xfs:2', 'b')]), undefined);
  assert.equal(changedAmong(saved, [mark('ext:1', 'a'), mark('xfs:2', 'c')]), '/home');
  assert.equal(changedAmong(saved, [mark('ext:1', 'a')]), undefined);
  assert.equal(changedAmong(saved, [mark('ext:1', 'x'), mark('ext:1', 'a')]), undefined);
});

test('drivers that do not survive are named with what to do, one of them only while it is used', () => {
  assert.deepEqual(knownLosses(new Map([['ext4', 3]]), 'ro quiet'), []);
  assert.deepEqual(knownLosses(new Map([['vfio_pci', 0]]), ''), []);
  for (const loaded of [new Map([['nvidia', 0]]), new Map([['vfio_pci', 1]])]) {
    const [loss] = knownLosses(loaded, '');
    assert.match(loss!.what, new RegExp(`${[...loaded.keys()][0]}$`));
    assert.ok(loss!.remedy.length > 0);
  }
  assert.match(knownLosses(new Map(), 'ro mem_encrypt=on')[0]!.what, /encrypted/);
});
