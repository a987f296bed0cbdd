import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openDirectory } from '../../../src/image/directory.ts';
import { MemoryStore, readWhole, withSource } from '../../../src/image/store.ts';
import { hasRoom, spill } from '../../../src/update/spill.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-spill-'));
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
  assert.equal(hasRoom('/dev/shm/not/there/yet', 1), false);
  assert.equal(hasRoom('/', 2 ** 60), false);
});
