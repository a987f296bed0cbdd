/** Images that build on earlier ones. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { FormatError, UnsupportedError, VerifyError } from '../../../src/errors.ts';
import { dedup } from '../../../src/image/dedup.ts';
import { createDirectory, createPages, openDirectory } from '../../../src/image/directory.ts';
import { writeEntries } from '../../../src/image/file.ts';
import { PE_PARENT, PE_PRESENT } from '../../../src/image/messages/memory.ts';
import { PagemapWriter } from '../../../src/image/pagemap.ts';
import { MemoryImage } from '../../../src/image/pages.ts';
import { readTree } from '../../../src/image/tree.ts';
import { DEDUPED, fileName, images, pagesFile } from '../../../src/image/types.ts';
import { verify } from '../../../src/image/verify.ts';
import { info } from './sample.ts';

const PAGE = 4096;
type Run = readonly [first: number, pages: number, content: string | undefined];

function folder(t: TestContext): string {
  const path = fs.mkdtempSync(join(tmpdir(), 'tideover-chain-'));
  t.after(() => fs.rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Memory of process 7: runs of pages with one letter each, or of the parent. */
function preDump(path: string, parent: string | undefined, runs: readonly Run[]): void {
  const draft = createDirectory(path, info, { replace: true, parent });
  writeEntries(draft.create(fileName(images.INVENTORY)), images.INVENTORY, [{ img_version: 2 }]);
  const pagemap = new PagemapWriter(draft.create(fileName(images.PAGEMAP, 7)), 1);
  for (const [first, pages, content] of runs) pagemap.run(first * PAGE, pages, content ? PE_PRESENT : PE_PARENT);
  pagemap.close();
  const sink = draft.create(pagesFile(1));
  for (const [, pages, content] of runs) if (content) sink.write(Buffer.alloc(pages * PAGE, content));
  sink.close();
  draft.commit();
}

/** The letter of each page, `.` where there is none. */
function lettersOf(path: string, pages: number): string {
  const memory = new MemoryImage(openDirectory(path), 7);
  const letters = Array.from({ length: pages }, (_, i) => String.fromCharCode(memory.read(i * PAGE, 1)[0] || 46));
  memory.close();
  return letters.join('');
}

test('a page comes from the last image that has it', (t) => {
  const at = folder(t);
  preDump(join(at, '1'), undefined, [[1, 8, 'a']]);
  preDump(join(at, '2'), '../1', [
    [1, 2, undefined],
    [3, 2, 'b'],
    [6, 1, undefined],
    [8, 3, 'b'],
  ]);
  preDump(join(at, '3'), '../2', [
    [1, 1, undefined],
    [2, 1, 'c'],
    [3, 1, undefined],
    [8, 2, undefined],
  ]);
  assert.equal(lettersOf(join(at, '2'), 12), '.aabb.a.bbb.');
  assert.equal(lettersOf(join(at, '3'), 12), '.acb....bb..');
  for (const name of ['1', '2', '3']) assert.deepEqual(verify(openDirectory(join(at, name))), []);
  assert.throws(() => readTree(openDirectory(join(at, '3'))), /memory without processes/);
});

test('what later images have is taken out of earlier ones, also where that was interrupted; damage stays what it is', (t) => {
  const at = folder(t);
  const last = join(at, '3');
  preDump(join(at, '1'), undefined, [[1, 8, 'a']]);
  preDump(join(at, '2'), '../1', [
    [1, 2, undefined],
    [3, 2, 'b'],
    [6, 1, undefined],
  ]);
  preDump(last, '../2', [
    [1, 1, undefined],
    [2, 2, 'c'],
    [4, 1, undefined],
  ]);
  const punch = (fd: number, offset: number, size: number) =>
    void fs.writeSync(fd, Buffer.alloc(size), 0, size, offset);
  const pages = (name: string) => fs.readFileSync(join(at, name, pagesFile(1)));
  const whole = pages('1');
  // What a later one has not whole any more stays in the earlier ones.
  const mine = pages('3');
  const ours = ['tideover.sums', 'tideover.json'].map((name) => join(last, name));
  const before = ours.map((file) => fs.readFileSync(file));
  fs.writeFileSync(join(last, pagesFile(1)), Buffer.from(mine).fill('x', 0, 1));
  assert.throws(() => dedup(last, punch), VerifyError);
  fs.writeFileSync(join(last, pagesFile(1)), mine.subarray(1));
  for (const file of ours) fs.rmSync(file);
  assert.throws(() => dedup(last, punch), /pages-1\.img: size: expected 8192/);
  fs.writeFileSync(join(last, pagesFile(1)), mine);
  for (const [i, file] of ours.entries()) fs.writeFileSync(file, before[i]!);
  assert.deepEqual(pages('1'), whole);
  fs.writeFileSync(join(at, '1', pagesFile(1)), Buffer.from(whole).fill('x', 0, 1));
  assert.throws(() => dedup(last, punch), VerifyError);
  assert.equal(fs.existsSync(join(at, '1', DEDUPED)), false);
  fs.writeFileSync(join(at, '1', pagesFile(1)), whole);
  const interrupted = (fd: number, offset: number) => {
    punch(fd, offset, PAGE);
    throw new Error('interrupted');
  };
  assert.throws(() => dedup(last, interrupted), /interrupted/);
  assert.throws(() => dedup(last, interrupted), /interrupted/);
  assert.deepEqual(dedup(last, punch), { images: 2, freed: 4 * PAGE });
  assert.deepEqual(
    ['1', '2', '3'].map((name) => Array.from({ length: pages(name).length / PAGE }, (_, i) => pages(name)[i * PAGE])),
    [
      [97, 0, 0, 0, 97, 97, 97, 97],
      [0, 98],
      [99, 99],
    ],
  );
  assert.equal(lettersOf(last, 6), '.accb.');
  assert.deepEqual(verify(openDirectory(last)), []);
  assert.deepEqual(dedup(last, punch), { images: 2, freed: 4 * PAGE });
});

test('a page that is in no image, damage in an earlier one, and images in a circle are told', (t) => {
  const at = folder(t);
  preDump(join(at, '1'), undefined, [[1, 2, 'a']]);
  preDump(join(at, '2'), '../1', [[1, 3, undefined]]);
  assert.throws(() => lettersOf(join(at, '2'), 1), FormatError);
  assert.match(verify(openDirectory(join(at, '2')))[0]!.message, /flags at 0x3000: expected the page in the parent/);
  preDump(join(at, '3'), '../1', [[1, 2, undefined]]);
  fs.writeFileSync(join(at, '1', 'pages-1.img'), Buffer.alloc(2 * PAGE, 'x'));
  assert.match(verify(openDirectory(join(at, '3')))[0]!.message, /CRC-32/);
  fs.symlinkSync('../3', join(at, '1', 'parent'));
  preDump(join(at, '4'), undefined, [[1, 1, undefined]]);
  assert.throws(() => lettersOf(join(at, '4'), 1), /there is no parent image/);
  fs.symlinkSync('.', join(at, '4', 'parent'));
  assert.throws(() => lettersOf(join(at, '4'), 1), /expected an earlier image/);
});

test('an image that others need is not written over by one that builds on them', (t) => {
  const at = folder(t);
  preDump(join(at, '1'), undefined, [[1, 2, 'a']]);
  preDump(join(at, '2'), '../1', [[1, 2, undefined]]);
  assert.throws(() => preDump(join(at, '1'), '../2', []), UnsupportedError);
  fs.mkdirSync(join(at, 'none'));
  assert.throws(() => preDump(join(at, '3'), '../none', []), /no image in it to build on/);
  // By itself it may be, and has no parent then.
  preDump(join(at, '2'), undefined, [[1, 2, 'b']]);
  assert.ok(!fs.existsSync(join(at, '2', 'parent')));
});

test('memory that a page server has put there only in part is not taken for whole', (t) => {
  const at = folder(t);
  const rest = createDirectory(at, info);
  writeEntries(rest.create(fileName(images.INVENTORY)), images.INVENTORY, [{ img_version: 2 }]);
  rest.commit();
  const take = (content: string, ...ids: number[]) => {
    const draft = createPages(at);
    for (const [i, id] of ids.entries()) {
      const pagemap = new PagemapWriter(draft.create(fileName(images.PAGEMAP, id)), i + 1);
      pagemap.run(PAGE, 1, PE_PRESENT);
      pagemap.close();
      const sink = draft.create(pagesFile(i + 1));
      sink.write(Buffer.alloc(PAGE, content));
      sink.close();
    }
    return draft;
  };
  take('a', 7).commit();
  assert.deepEqual(verify(openDirectory(at)), []);
  fs.mkdirSync(join(at, 'pagemap-8.img'));
  const second = take('b', 7, 8);
  assert.throws(() => second.commit(), /pagemap-8\.img/);
  second.abort();
  fs.rmdirSync(join(at, 'pagemap-8.img'));
  assert.notDeepEqual(verify(openDirectory(at)), []);
});
