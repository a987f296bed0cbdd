import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { FormatError, UnsupportedError, VerifyError } from '../../../src/errors.ts';
import { writeEntries } from '../../../src/image/file.ts';
import { PE_PRESENT } from '../../../src/image/messages/memory.ts';
import { PagemapWriter } from '../../../src/image/pagemap.ts';
import type { MemoryStore, Sink } from '../../../src/image/store.ts';
import { readTree } from '../../../src/image/tree.ts';
import { type ImageType, images } from '../../../src/image/types.ts';
import { verify } from '../../../src/image/verify.ts';
import { files, mm, sample } from './sample.ts';

/** An image as CRIU leaves it, without our two files: nothing but its structure tells of damage. */
function plain(): MemoryStore {
  const store = sample();
  store.files.delete('tideover.json');
  store.files.delete('tideover.sums');
  return store;
}

function sinkOf(store: MemoryStore, file: string): Sink {
  const parts: Uint8Array[] = [];
  return { write: (bytes) => parts.push(bytes.slice()), close: () => store.files.set(file, Buffer.concat(parts)) };
}

function replace<E>(store: MemoryStore, file: string, type: ImageType<E, never, never>, entries: E[]): void {
  writeEntries(sinkOf(store, file), type, entries);
}

const texts = (store: MemoryStore) => verify(store).map(({ message }) => message);

test('a whole image has no faults, with our checksums or without', () => {
  assert.deepEqual(texts(sample()), []);
  assert.deepEqual(texts(plain()), []);
});

test('one changed bit anywhere is found, and named by its file', () => {
  const store = sample();
  for (const [file, whole] of store.files) {
    // Every byte where a file begins, a sample of what follows.
    for (let at = 0; at < whole.length; at += at < 24 ? 1 : file.startsWith('pages-') ? 1013 : 29) {
      const flipped = Buffer.from(whole);
      flipped[at]! ^= 1 << (at % 8);
      store.files.set(file, flipped);
      const found = verify(store);
      assert(found.length > 0, `${file} byte ${at}`);
      for (const fault of found) {
        assert(fault instanceof FormatError || fault instanceof VerifyError || fault instanceof UnsupportedError);
      }
      assert(
        found.some(({ message }) => message.includes(file) || file === 'tideover.sums'),
        `${file} byte ${at}`,
      );
    }
    store.files.set(file, whole);
  }
});

test('a file that is missing, cut or too many is found', () => {
  for (const file of sample().names()) {
    const store = sample();
    store.files.delete(file);
    assert.notDeepEqual(texts(store), [], file);
    const cut = sample();
    cut.files.set(file, cut.files.get(file)!.subarray(0, -1));
    assert.notDeepEqual(texts(cut), [], file);
  }
  const more = sample();
  more.files.set('core-555.img', more.files.get('core-100.img')!);
  assert.match(texts(more)[0]!, /core-555\.img: expected a line in tideover\.sums, found none/);
});

test('without checksums a damaged header is still found or leads to other values, never to a crash', () => {
  const store = plain();
  for (const [file, whole] of store.files) {
    // Of the second process nothing is of another form than of the first.
    if (/^(pages-|.*10[12]\.img$)/.test(file)) continue;
    for (let at = 0; at < whole.length; at++) {
      const flipped = Buffer.from(whole);
      flipped[at]! ^= 1 << ((at * 5) % 8);
      store.files.set(file, flipped);
      for (const fault of verify(store)) {
        assert(fault instanceof FormatError || fault instanceof UnsupportedError, `${file} ${at}: ${fault}`);
      }
    }
    store.files.set(file, whole);
  }
});

test('references that lead nowhere are named', () => {
  const cases: [(store: MemoryStore) => void, RegExp][] = [
    [
      (store) => replace(store, 'files.img', images.FILES, files.slice(1)),
      /mm-100\.img: mm_entry\.exe_file_id: expected an id of files\.img, found 1/,
    ],
    [
      (store) => replace(store, 'fdinfo-1.img', images.FDINFO, [{ id: 2, flags: 0, type: 'PIPE', fd: 0 }]),
      /fdinfo-1\.img: fdinfo_entry\.type of descriptor 0: expected REG, found PIPE/,
    ],
    [
      (store) =>
        replace(store, 'fdinfo-3.img', images.FDINFO, [
          { id: 2, flags: 0, type: 'REG', fd: 0 },
          { id: 3, flags: 0, type: 'REG', fd: 0 },
        ]),
      /fdinfo-3\.img: fdinfo_entry\.fd: expected each once, found 0 twice/,
    ],
    [
      (store) =>
        replace(store, 'pstree.img', images.PSTREE, [
          { pid: 100, ppid: 0, pgid: 1, sid: 1, threads: [100, 101] },
          { pid: 102, ppid: 7, pgid: 1, sid: 1, threads: [102, 101] },
        ]),
      /pstree_entry\.ppid of 102: expected a process of the image, found 7/,
    ],
    [
      (store) => replace(store, 'mm-100.img', images.MM, [{ ...mm, vmas: [...mm.vmas].reverse() }]),
      /mm-100\.img: vma_entry 0x7ffd00000000-0x7ffd00010000: expected whole pages from/,
    ],
    [
      (store) => store.files.delete('pages-102.img'),
      /pagemap-102\.img: pagemap_head\.pages_id: expected pages-102\.img/,
    ],
    [(store) => store.files.delete('pagemap-shmem-77.img'), /memory: pagemap-shmem-77\.img: expected the file/],
    [(store) => store.files.delete('ghost-file-1a.img'), /remap_id: expected ghost-file-1a\.img, found no file/],
    [
      (store) => store.files.set('pages-100.img', new Uint8Array(4096)),
      /pages-100\.img: size: expected 12288, by pagemap-100\.img, found 4096/,
    ],
    [
      (store) => {
        const pagemap = new PagemapWriter(sinkOf(store, 'pagemap-100.img'), 100);
        pagemap.run(0x2000, 1, PE_PRESENT);
        pagemap.run(0x1000, 2, PE_PRESENT);
        pagemap.close();
      },
      /pagemap-100\.img: pagemap_entry\.vaddr: expected whole pages from 0x3000 on, found 0x1000/,
    ],
  ];
  for (const [change, text] of cases) {
    const store = plain();
    change(store);
    assert(
      texts(store).some((each) => text.test(each)),
      `${text} in ${texts(store).join('\n')}`,
    );
  }
});

test('a tree that cannot be read is refused with the reason', () => {
  const cases: [(store: MemoryStore) => void, RegExp][] = [
    [(store) => replace(store, 'inventory.img', images.INVENTORY, [{ img_version: 3 }]), /they are of version 3/],
    [
      (store) => replace(store, 'inventory.img', images.INVENTORY, []),
      /inventory\.img: inventory_entry: expected one entry/,
    ],
    [
      (store) => replace(store, 'pstree.img', images.PSTREE, [{ pid: 100, ppid: 0, pgid: 1, sid: 1, threads: [101] }]),
      /pstree\.img: pstree_entry\.threads: expected 100, found 101/,
    ],
    [(store) => store.files.set('core-100.img', store.files.get('core-101.img')!), /core-100\.img: core_entry\.tc/],
    [(store) => store.files.delete('fs-102.img'), /fs-102\.img: expected the file, found none/],
  ];
  for (const [change, text] of cases) {
    const store = plain();
    change(store);
    assert.throws(() => readTree(store), text);
  }
});

test('the sums are CRC-32', () => {
  const line = Buffer.from(sample().files.get('tideover.sums')!)
    .toString()
    .split('\n')
    .find((each) => / pages-1\.img$/.test(each));
  assert.equal(line, `${crc32(new Uint8Array(4096).fill(7)).toString(16).padStart(8, '0')}         4096 pages-1.img`);
});
