import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { UnsupportedError } from '../../../src/errors.ts';
import { openDirectory } from '../../../src/image/directory.ts';
import { MemoryStore, readWhole, withSource } from '../../../src/image/store.ts';
import { dropSpilled, spill, spillFolder, spillRound } from '../../../src/update/spill.ts';

// On a disk, as /tmp may not be.
const folder = mkdtempSync('/var/tmp/tideover-spill-');
after(() => rmSync(folder, { recursive: true }));

/** An image of two files. */
function image(pages: Uint8Array): MemoryStore {
  const store = new MemoryStore();
  const draft = store.draft();
  for (const [file, bytes] of [
    ['inventory.img', Buffer.from('small')],
    ['pages-1.img', pages],
  ] as const) {
    const sink = draft.create(file, bytes.length);
    sink.write(bytes);
    sink.close();
  }
  draft.commit();
  return store;
}

test('a copy on the disk has the files of the image, and one that was there before is replaced', () => {
  for (const fill of [1, 2]) {
    const original = image(new Uint8Array(300_000).fill(fill));
    spill(original, folder, 'name');
    const copy = openDirectory(join(folder, 'name'));
    assert.deepEqual(copy.names(), original.names());
    for (const file of original.names()) {
      const bytes = withSource(copy, file, (source) => readWhole(source, 1 << 20));
      assert.deepEqual(Buffer.from(bytes), Buffer.from(original.files.get(file)!), file);
    }
    copy.close();
  }
});

test('there is no room in memory that a reset clears, nor for more than a disk has', () => {
  assert.throws(() => spillFolder('/dev/shm/not/there/yet', 1), UnsupportedError);
  assert.throws(() => spillFolder('/', 2 ** 60), UnsupportedError);
  assert.equal(spillFolder(undefined, 2 ** 60), undefined);
  assert.equal(spillFolder('none', 1), undefined);
});

test('what a folder has beside the copies is left alone, also where it has the name of a tree', () => {
  const named = join(folder, 'named');
  const own = join(named, 'postgresql', 'main');
  mkdirSync(own, { recursive: true });
  const copies = spillFolder(named, 1)!;
  spillRound(image(new Uint8Array(4096)), { folder: copies, name: 'postgresql', round: 1 });
  spill(image(new Uint8Array(4096)), copies, 'postgresql', 1);
  assert.ok(existsSync(join(copies, 'postgresql', 'inventory.img')));
  dropSpilled('postgresql', copies);
  assert.ok(!existsSync(join(copies, 'postgresql')));
  assert.ok(existsSync(own));
});

test('a folder for copies that others could have put there is refused', () => {
  const named = mkdtempSync(join(folder, 'open-'));
  const copies = join(named, 'tideover-spilled');
  symlinkSync(folder, copies);
  assert.throws(() => spillFolder(named, 1), UnsupportedError);
  rmSync(copies);
  mkdirSync(copies);
  chmodSync(copies, 0o777);
  assert.throws(() => spillFolder(named, 1), UnsupportedError);
  chmodSync(copies, 0o700);
  assert.equal(spillFolder(named, 1), copies);
});
