import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { type ImageDraft, type ImageStore, readWhole } from '../../../src/image/store.ts';
import { createImage, NoSuchNodeError, OrderError, openImage, openPkram } from '../../../src/pkram/index.ts';
import { MemoryMedium, open, randomFrom } from './medium.ts';

const random = randomFrom(3);
const pages = Uint8Array.from({ length: 9_000_000 }, () => random() * 256);

function write(draft: ImageDraft, file: string, bytes: Uint8Array, size?: number): void {
  const sink = draft.create(file, size);
  for (let at = 0; at < bytes.length; at += 70_001) sink.write(bytes.subarray(at, at + 70_001));
  sink.close();
}

describe('an image in preserved memory', () => {
  const medium = MemoryMedium.formatted(1 << 20, 64 << 20);
  const pkram = openPkram(medium);

  it('is not there before it is committed, nor after it is aborted', () => {
    for (const end of ['commit', 'abort'] as const) {
      const draft = createImage(pkram, 'app', undefined);
      // Whoever saves ends nothing before.
      assert.equal(draft.commitsAtOnce, true);
      // One small file is open around the pages, and one is begun within.
      const around = draft.create('fdinfo-2.img');
      write(draft, 'core-1.img', Buffer.from('core'));
      const large = draft.create('pages-1.img', pages.length);
      write(draft, 'mm-1.img', Buffer.from('mm'));
      large.write(pages);
      large.close();
      around.write(Buffer.from('fdinfo'));
      around.close();
      assert.throws(() => openImage(pkram, 'app'), NoSuchNodeError);
      assert.throws(() => createImage(pkram, 'app', undefined), UnsupportedError);
      draft[end]();
      if (end === 'commit') pkram.remove('app');
      assert.deepEqual(pkram.nodes(), []);
    }
  });

  it('is read at any place, in another program', () => {
    const draft = createImage(pkram, 'app', undefined, { checksums: true });
    write(draft, 'core-1.img', Buffer.from('core'));
    write(draft, 'pages-1.img', pages, pages.length);
    draft.commit();
    const store = openImage(open(medium.bytes), 'app');
    assert.deepEqual(store.names(), ['core-1.img', 'pages-1.img', 'tideover.sums']);
    assert.equal(Buffer.from(readWhole(store.open('core-1.img'), 100)).toString(), 'core');
    const source = store.open('pages-1.img');
    assert.equal(source.size, pages.length);
    for (const [position, length] of [
      [0, 1],
      [4_194_300, 10],
      [1234, 8_900_000],
      [8_999_990, 100],
      [9_000_000, 5],
    ] as const) {
      const into = new Uint8Array(length);
      const got = source.read(into, position);
      assert.ok(Buffer.from(into.subarray(0, got)).equals(pages.subarray(position, position + length)), `${position}`);
    }
    assert.throws(() => store.open('none.img'), FormatError);
    store.close();
    assert.throws(() => source.read(new Uint8Array(1), 0), OrderError);
  });

  it('builds on another one, which is read through it', () => {
    for (const [name, parent] of [
      ['one', undefined],
      ['two', 'one'],
      ['three', 'two'],
    ] as const) {
      const draft = createImage(pkram, name, undefined, { parent });
      write(draft, 'core-1.img', Buffer.from(name));
      draft.commit();
    }
    const store = openImage(open(medium.bytes), 'three');
    const core = (of: ImageStore | undefined) => Buffer.from(readWhole(of!.open('core-1.img'), 100)).toString();
    assert.equal(store.parent!(), store.parent!());
    assert.deepEqual([store, store.parent!(), store.parent!()!.parent!()].map(core), ['three', 'two', 'one']);
    assert.equal(store.parent!()!.parent!()!.parent!(), undefined);
    store.close();
    pkram.remove('one');
    const orphan = openImage(pkram, 'two');
    assert.throws(() => orphan.parent!(), NoSuchNodeError);
    orphan.close();
    for (const name of ['two', 'three']) pkram.remove(name);
  });

  it('that builds on itself is refused', () => {
    for (const [name, parent] of [
      ['a', 'b'],
      ['b', 'a'],
    ] as const) {
      const draft = createImage(pkram, name, undefined, { parent });
      draft.commit();
    }
    const store = openImage(pkram, 'a');
    assert.throws(() => store.parent!()!.parent!(), FormatError);
    store.close();
    for (const name of ['a', 'b']) pkram.remove(name);
  });

  it('that is a node of another kind is refused', () => {
    const save = pkram.prepareSave('other');
    save.prepareSaveObject().finishSaveObject();
    save.finishSave();
    assert.throws(() => openImage(pkram, 'other'), FormatError);
    pkram.remove('other');
  });
});
