import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { ImageWriter, isRecord, readBlob, readEntries, records, typeOf } from '../../../src/image/file.ts';
import { ghost_chunk_entry, ghost_file_entry } from '../../../src/image/messages/files.ts';
import { ipc_msg, ipc_msg_entry, ipc_sem_entry } from '../../../src/image/messages/ipc.ts';
import { PE_LAZY, PE_PARENT, PE_PRESENT, pagemap_entry } from '../../../src/image/messages/memory.ts';
import { PagemapWriter, readPagemap } from '../../../src/image/pagemap.ts';
import { memorySource, type Sink } from '../../../src/image/store.ts';
import { fileName, type ImageType, images, isRaw, typeOfFile } from '../../../src/image/types.ts';

/** A sink, and what was written into it. */
function collect(): Sink & { bytes(): Buffer } {
  const parts: Uint8Array[] = [];
  return { write: (bytes) => parts.push(bytes.slice()), close() {}, bytes: () => Buffer.concat(parts) };
}

function written<E, H, I>(type: ImageType<E, H, I>, write: (writer: ImageWriter<E, H, I>) => void): Buffer {
  const sink = collect();
  const writer = new ImageWriter(sink, type);
  write(writer);
  writer.close();
  return sink.bytes();
}

const pstree = { pid: 17, ppid: 0, pgid: 17, sid: 17, threads: [17, 18] };
const pstreeImage = written(images.PSTREE, (writer) => writer.entry(pstree));

test('a file begins with the magics of its kind, and only the inventory with one', () => {
  assert.equal(pstreeImage.toString('hex', 0, 12), '1943565430302750' + '0c000000');
  const inventory = written(images.INVENTORY, (writer) => writer.entry({ img_version: 2 }));
  assert.equal(inventory.toString('hex'), '16313158' + '02000000' + '0802');
  const stats = written(images.STATS, (writer) => writer.entry({}));
  assert.equal(stats.toString('hex', 0, 8), '4059105506330957');
  assert.deepEqual(readEntries(memorySource('pstree.img', pstreeImage), images.PSTREE), [pstree]);
  assert.equal(typeOf(memorySource('any', stats)), images.STATS);
});

test('names tell what is in a file', () => {
  assert.equal(fileName(images.CORE, 12), 'core-12.img');
  assert.equal(fileName(images.GHOST_FILE, 26), 'ghost-file-1a.img');
  assert.equal(fileName(images.STATS, 'dump'), 'stats-dump');
  for (const [file, type] of [
    ['core-12.img', images.CORE],
    ['pagemap-shmem-7.img', images.PAGEMAP],
    ['ghost-file-1a.img', images.GHOST_FILE],
    ['stats-restore', images.STATS],
    ['ipcns-shm-3.img', images.IPCNS_SHM],
    ['pages-1.img', undefined],
    ['core-x.img', undefined],
    ['xcore-1.img', undefined],
  ] as const) {
    assert.equal(typeOfFile(file), type, file);
  }
  for (const raw of ['pages-1.img', 'route6-9.img', 'tmpfs-dev-3.tar.gz.img', 'netns-ct-9.img'])
    assert(isRaw(raw), raw);
  assert(!isRaw('core-1.img'));
});

test('what follows a message comes back, with its padding passed over', () => {
  const desc = { key: 1, uid: 0, gid: 0, cuid: 0, cgid: 0, mode: 0o600, id: 5 };
  const semaphores = written(images.IPCNS_SEM, (writer) => {
    writer.entry({ desc, nsems: 3 }, Uint8Array.of(1, 0, 2, 0, 3, 0));
    writer.entry({ desc, nsems: 1 }, Uint8Array.of(9, 0));
  });
  const source = memorySource('ipcns-sem-1.img', semaphores);
  const found = [...records(source)].map((record) => (isRecord(record, ipc_sem_entry) ? readBlob(source, record) : []));
  assert.deepEqual(found, [Uint8Array.of(1, 0, 2, 0, 3, 0), Uint8Array.of(9, 0)]);

  const queue = written(images.IPCNS_MSG, (writer) => {
    writer.entry({ desc, qbytes: 100, qnum: 2 });
    writer.inner({ mtype: 1n, msize: 3 }, Buffer.from('one'));
    writer.inner({ mtype: 2n ** 62n, msize: 0 }, new Uint8Array(0));
    writer.entry({ desc, qbytes: 100, qnum: 0 });
  });
  const names = [...records(memorySource('q', queue))].map(({ message }) => message.name);
  assert.deepEqual(
    names,
    [ipc_msg_entry, ipc_msg, ipc_msg, ipc_msg_entry].map(({ name }) => name),
  );
  assert.throws(() => [...records(memorySource('q', queue.subarray(0, 40)))], /q at byte \d+/);

  const whole = written(images.GHOST_FILE, (writer) =>
    writer.head({ uid: 0, gid: 0, mode: 0o100644 }, Buffer.from('x')),
  );
  const ghost = memorySource('ghost-file-1.img', whole);
  const [record] = records(ghost);
  assert(isRecord(record!, ghost_file_entry));
  assert.equal(Buffer.from(readBlob(ghost, record)).toString(), 'x');
  const chunks = written(images.GHOST_FILE, (writer) => {
    writer.head({ uid: 0, gid: 0, mode: 0o100644, chunks: true });
    writer.entry({ len: 100_000, off: 0 }, new Uint8Array(100_000));
    writer.entry({ len: 1, off: 2 ** 40 }, Uint8Array.of(1));
  });
  const list = [...records(memorySource('g', chunks))];
  assert.deepEqual(
    list.slice(1).map((each) => [isRecord(each, ghost_chunk_entry), each.blobSize]),
    [
      [true, 100_000],
      [true, 1],
    ],
  );
});

test('foreign and damaged files are refused with the place', () => {
  const cases: [string, Uint8Array, RegExp][] = [
    ['empty', new Uint8Array(0), /empty at byte 0: magic: expected 4 bytes, found 0/],
    ['text', Buffer.from('this is no image'), /text at byte 0: magic: expected the magic of CRIU images/],
    ['half', pstreeImage.subarray(0, 6), /half at byte 4: magic/],
    [
      'core-1.img',
      pstreeImage,
      /core-1\.img at byte 4: magic: expected 0x55053847 \(CORE\), found 0x50273030 \(PSTREE\)/,
    ],
    ['cut', pstreeImage.subarray(0, -1), /cut at byte 8: pstree_entry: size: expected at most 11, found 12/],
    ['size', pstreeImage.subarray(0, 10), /size at byte 8: pstree_entry: size: expected 4 bytes, found 2/],
  ];
  for (const [name, bytes, text] of cases) {
    const type = typeOfFile(name);
    assert.throws(() => [...records(memorySource(name, bytes), type)], text);
  }
  const service = Buffer.from(pstreeImage);
  service.writeUInt32LE(0x55105940, 0);
  assert.throws(() => [...records(memorySource('s', service))], FormatError);
  assert.throws(() => [...records(memorySource('old', pstreeImage.subarray(4)))], UnsupportedError);
});

test('a hostile size costs no memory', () => {
  const hostile = Buffer.from(pstreeImage);
  hostile.writeUInt32LE(0xffff_fff0, 8);
  const before = process.memoryUsage().arrayBuffers;
  // A source that claims to be huge, as a sparse file can.
  const source = { ...memorySource('huge', hostile), size: 2 ** 45 };
  assert.throws(() => [...records(source)], /at most 67108864, found 4294967280/);
  assert(process.memoryUsage().arrayBuffers - before < 1 << 20);
  const shorter = { ...memorySource('shorter', pstreeImage), size: 2 ** 45 };
  assert.throws(() => [...records(shorter)], /shorter at byte 24: .*expected 4 bytes, found 0/);
});

test('a flipped byte or a cut anywhere gives a FormatError or other values, never something else', () => {
  const image = written(images.PIPES_DATA, (writer) => {
    writer.entry({ pipe_id: 9, bytes: 5, size: 65536 }, Buffer.from('bytes'));
    writer.entry({ pipe_id: 10, bytes: 0 }, new Uint8Array(0));
  });
  const readAll = (bytes: Uint8Array) => {
    const source = memorySource('pipes-data.img', bytes);
    try {
      for (const record of records(source)) readBlob(source, record);
    } catch (error) {
      assert(error instanceof FormatError || error instanceof UnsupportedError, `${error}`);
      if (error instanceof FormatError) assert.equal(typeof error.offset, 'number');
    }
  };
  for (let at = 0; at < image.length; at++) {
    readAll(image.subarray(0, at));
    for (let bit = 0; bit < 8; bit++) {
      const flipped = Buffer.from(image);
      flipped[at]! ^= 1 << bit;
      readAll(flipped);
    }
  }
});

test('a pagemap is read run by run as its messages say', () => {
  const run = fc.record({
    vaddr: fc.nat(2 ** 35).map((page) => page * 4096),
    nrPages: fc.integer({ min: 1, max: 2 ** 33 }),
    flags: fc.constantFrom(PE_PRESENT, PE_PARENT, PE_LAZY, PE_PRESENT | PE_LAZY),
  });
  fc.assert(
    fc.property(fc.array(run, { maxLength: 50 }), (given) => {
      const runs = given.map((each) => ({ ...each }));
      const sink = collect();
      const writer = new PagemapWriter(sink, 3);
      for (const { vaddr, nrPages, flags } of runs) writer.run(vaddr, nrPages, flags);
      writer.close();
      const found: typeof runs = [];
      const source = memorySource('pagemap-1.img', sink.bytes());
      const pagesId = readPagemap(source, (vaddr, nrPages, flags) => found.push({ vaddr, nrPages, flags }));
      assert.equal(pagesId, 3);
      assert.deepEqual(found, runs);
      const entries = [...records(source)].slice(1).map(({ value }) => value);
      assert.deepEqual(
        entries,
        runs.map(({ vaddr, nrPages, flags }) => ({
          vaddr,
          compat_nr_pages: Math.min(nrPages, 0xffff_ffff),
          flags,
          nr_pages: nrPages,
        })),
      );
    }),
  );
});

test('a pagemap of an older CRIU has its runs in the parent image or present', () => {
  const image = written(images.PAGEMAP, (writer) => {
    writer.head({ pages_id: 1 });
    writer.entry({ vaddr: 4096, compat_nr_pages: 2 });
    writer.entry({ vaddr: 16384, compat_nr_pages: 1, in_parent: true });
  });
  const found: number[][] = [];
  readPagemap(memorySource('p', image), (...run) => found.push(run));
  assert.deepEqual(found, [
    [4096, 2, PE_PRESENT],
    [16384, 1, PE_PARENT],
  ]);
});

test('a pagemap that is damaged anywhere is refused or read, by both readers alike', () => {
  const image = written(images.PAGEMAP, (writer) => {
    writer.head({ pages_id: 1 });
    writer.entry({ vaddr: 0x7f0000001000, compat_nr_pages: 2, flags: 4, nr_pages: 2 });
  });
  const outcome = (read: () => unknown): unknown => {
    try {
      return read();
    } catch (error) {
      assert(error instanceof FormatError || error instanceof UnsupportedError, `${error}`);
      return 'refused';
    }
  };
  for (let at = 8; at < image.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const flipped = Buffer.from(image);
      flipped[at]! ^= 1 << bit;
      const byHand: number[][] = [];
      const first = outcome(() => {
        readPagemap(memorySource('p', flipped), (vaddr, pages) => byHand.push([vaddr, pages]));
        return byHand;
      });
      const second = outcome(() =>
        [...records(memorySource('p', flipped), images.PAGEMAP as ImageType)].slice(1).map((record) => {
          assert(isRecord(record, pagemap_entry));
          return [record.value.vaddr, record.value.nr_pages ?? record.value.compat_nr_pages];
        }),
      );
      assert.deepEqual(first, second, `byte ${at} bit ${bit}`);
    }
  }
});

test('a window of 64 KiB is enough for a file of any length', () => {
  const sink = collect();
  const writer = new PagemapWriter(sink, 1);
  const count = 200_000;
  for (let index = 0; index < count; index++) writer.run(0x7f00_0000_0000 + index * 8192, 1, PE_PRESENT);
  writer.close();
  const bytes = sink.bytes();
  let largest = 0;
  const plain = memorySource('pagemap-1.img', bytes);
  const source = {
    ...plain,
    read(into: Uint8Array, at: number) {
      largest = Math.max(largest, into.length);
      return plain.read(into, at);
    },
  };
  let [runs, last] = [0, 0];
  readPagemap(source, (vaddr) => {
    runs++;
    last = vaddr;
  });
  assert.deepEqual([runs, last], [count, 0x7f00_0000_0000 + (count - 1) * 8192]);
  assert.equal(largest, 65536);
});
