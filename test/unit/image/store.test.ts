import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { SyscallError, UnsupportedError, VerifyError } from '../../../src/errors.ts';
import { checkedStore } from '../../../src/image/checked.ts';
import { createDirectory, openDirectory } from '../../../src/image/directory.ts';
import { incompatibilities, infoText, parseInfo } from '../../../src/image/info.ts';
import { type ImageStore, MemoryStore, readWhole, withSource } from '../../../src/image/store.ts';
import { createStream, openStream } from '../../../src/image/stream.ts';
import { Sums } from '../../../src/image/sums.ts';
import { fileHeader, header, paddingOf, readHeader, type TarHeader } from '../../../src/image/tar.ts';
import { verify } from '../../../src/image/verify.ts';
import { saveToDisk, writers } from '../../../src/process/disk.ts';
import { info, sample, writeSample } from './sample.ts';

function temporary(t: { after(action: () => void): void }): string {
  const path = fs.mkdtempSync(join(tmpdir(), 'tideover-image-'));
  t.after(() => fs.rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Everything that a store has, small files first as a stream demands. */
function contents(store: ImageStore, names: readonly string[]): Map<string, string> {
  const order = [...names].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b, 'en', { numeric: true }));
  return new Map(
    order.map((file) => [
      file,
      withSource(store, file, (source) => Buffer.from(readWhole(source, 1 << 20)).toString('hex')),
    ]),
  );
}

/** The order of a stream: small images, pages, sums. */
const rank = (file: string) => (file === 'tideover.sums' ? 2 : file.startsWith('pages-') ? 1 : 0);

const names = sample().names();

test('a directory has the image when it is committed, readable by its owner alone', (t) => {
  const path = join(temporary(t), 'image');
  const draft = createDirectory(path, info);
  writeSample(draft);
  assert.deepEqual(
    fs.readdirSync(path).filter((file) => !file.startsWith('.partial-')),
    [],
    'nothing is seen before',
  );
  draft.commit();
  assert.deepEqual(fs.readdirSync(path).sort(), names);
  for (const file of names) assert.equal(fs.statSync(join(path, file)).mode & 0o777, 0o600, file);
  assert.equal(fs.statSync(path).mode & 0o777, 0o700);
  const store = openDirectory(path);
  assert.deepEqual(contents(store, names), contents(sample(), names));
  assert.deepEqual(verify(store), []);
  assert.throws(() => store.open('core-9.img'), /core-9\.img: expected the file, found none/);
});

test('a draft that is given up leaves nothing, whatever was written', (t) => {
  const folder = temporary(t);
  const path = join(folder, 'image');
  const draft = createDirectory(path, info);
  draft.create('pages-1.img', 10).write(new Uint8Array(5));
  draft.abort();
  assert.deepEqual(fs.readdirSync(folder), []);

  fs.mkdirSync(path);
  fs.writeFileSync(join(path, 'dump.log'), 'mine');
  const second = createDirectory(path, info);
  writeSample(second);
  second.abort();
  assert.deepEqual(fs.readdirSync(path), ['dump.log']);

  const third = createDirectory(path, info, { parent: undefined });
  writeSample(third);
  third.commit();
  third.abort();
  assert.deepEqual(fs.readdirSync(path), ['dump.log']);
});

test('an image is replaced only when that is asked for, and then as a whole', (t) => {
  const path = temporary(t);
  const first = createDirectory(path, info);
  writeSample(first);
  first.create('core-999.img').close();
  first.commit();
  assert.throws(() => createDirectory(path, info), UnsupportedError);
  const second = createDirectory(path, info, { replace: true });
  writeSample(second);
  second.commit();
  assert.deepEqual(fs.readdirSync(path).sort(), names);
});

test('what a killed program left is removed, what a living one writes is not', (t) => {
  const path = temporary(t);
  const living = createDirectory(path, info);
  fs.mkdirSync(join(path, '.partial-999999999-abcdef'));
  fs.writeFileSync(join(path, '.partial-999999999-abcdef', 'core-1.img'), '');
  const other = createDirectory(path, info);
  assert.equal(fs.readdirSync(path).length, 2);
  other.abort();
  living.abort();
  assert.deepEqual(fs.readdirSync(path), []);
});

/** An image that is whole and was left by a program that is dead. */
function abandoned(path: string, writer = '999999999'): string {
  const draft = createDirectory(path, info);
  // It was never written, and is none of it.
  draft.reserve!('pages-7.img', 0, false);
  writeSample(draft);
  draft.seal();
  const partial = fs.readdirSync(path).find((name) => fs.existsSync(join(path, name, 'tideover.sums')));
  const left = join(path, `.partial-${writer}-abcdef`);
  fs.renameSync(join(path, partial!), left);
  return left;
}

test('what a killed program left is known also where another process has its number by now', (t) => {
  const path = temporary(t);
  const living = createDirectory(path, info, { writers });
  abandoned(path, `${process.pid}.1`);
  assert.deepEqual(openDirectory(path).names(), [], 'the number is in use');
  assert.deepEqual(openDirectory(path, writers).names(), names);
  living.abort();
  assert.deepEqual(fs.readdirSync(path).sort(), names);
});

test('what a killed program left leads nowhere else', (t) => {
  const [path, other] = [temporary(t), temporary(t)];
  const victim = join(other, 'victim');
  fs.writeFileSync(victim, 'mine');
  abandoned(path);
  fs.symlinkSync(victim, join(path, 'tideover.sums'));
  assert.deepEqual(openDirectory(path).names(), names);
  assert.equal(fs.readFileSync(victim, 'utf8'), 'mine');
  assert.ok(fs.lstatSync(join(path, 'tideover.sums')).isFile());

  const elsewhere = join(other, 'image');
  fs.mkdirSync(elsewhere);
  const left = abandoned(elsewhere);
  fs.renameSync(left, join(other, 'theirs'));
  fs.symlinkSync(join(other, 'theirs'), left);
  assert.deepEqual(openDirectory(elsewhere).names(), []);
  assert.deepEqual(fs.readdirSync(join(other, 'theirs')).sort(), [...names, 'pages-7.img'].sort());
});

test('a commit that fails halfway says where the image is, and is gone on with', (t) => {
  const path = temporary(t);
  fs.mkdirSync(join(path, 'files.img', 'in the way'), { recursive: true });
  const draft = createDirectory(path, info);
  writeSample(draft);
  draft.seal();
  assert.throws(() => draft.commit(), SyscallError);
  assert.equal(draft.keep(), path);
  fs.rmSync(join(path, 'files.img'), { recursive: true });
  const [partial] = fs.readdirSync(path).filter((name) => name.startsWith('.partial-'));
  fs.renameSync(join(path, partial!), join(path, '.partial-999999999-abcdef'));
  const store = openDirectory(path);
  assert.deepEqual(store.names(), names);
  assert.deepEqual(verify(store), []);
});

test('the hooks get what they ask for', (t) => {
  const path = temporary(t);
  const calls: string[] = [];
  const draft = createDirectory(path, info, {
    fallocate: (fd, size) => calls.push(`fallocate ${typeof fd} ${size}`),
    syncfs: (directory) => calls.push(`syncfs ${fs.readdirSync(directory).length}`),
  });
  writeSample(draft);
  draft.commit();
  assert.deepEqual(calls, [
    'fallocate number 4096',
    'fallocate number 12288',
    'fallocate number 12288',
    `syncfs ${names.length}`,
  ]);
});

test('what has been given room becomes what is written, and goes if nothing is', (t) => {
  const path = temporary(t);
  const given: number[] = [];
  const fallocate = (fd: number, size: number) => {
    given.push(size);
    fs.ftruncateSync(fd, 0);
  };
  const occupy = (fd: number, size: number) => fs.writeSync(fd, new Uint8Array(size).fill(1));
  const draft = createDirectory(path, info, { fallocate, occupy });
  draft.reserve!('pages-1.img', 16384, true);
  draft.reserve!('pages-2.img', 4096, false);
  draft.reserve!('pages-7.img', 4096, true);
  writeSample(draft);
  draft.commit();
  assert.deepEqual(given, [16384, 4096, 4096, 12288, 12288]);
  assert.deepEqual(fs.readdirSync(path).sort(), names);
  assert.deepEqual(contents(openDirectory(path), names), contents(sample(), names));
  const other = createDirectory(path, info, { replace: true, fallocate });
  other.reserve!('pages-1.img', 4096, false);
  other.abort();
  assert.deepEqual(fs.readdirSync(path).sort(), names);
});

test('room behind the end of a file is given back by the commit', (t) => {
  const path = temporary(t);
  const { fallocate } = saveToDisk;
  const draft = createDirectory(path, info, { fallocate: fallocate! });
  // More is given back at once.
  draft.reserve!('pages-1.img', 64 << 10, false);
  draft.reserve!('pages-100.img', 2 << 20, false);
  writeSample(draft);
  draft.seal();
  const [partial] = fs.readdirSync(path);
  const stat = (folder: string, file: string) => fs.statSync(join(folder, file));
  const [sealed, other] = ['pages-1.img', 'pages-100.img'].map((file) => stat(join(path, partial!), file));
  draft.commit();
  const committed = stat(path, 'pages-1.img');
  assert.equal(sealed!.size, committed.size, 'whoever moves the image up after a kill compares sizes');
  assert.ok(512 * sealed!.blocks >= 64 << 10, `${sealed!.blocks} blocks`);
  assert.ok(
    512 * committed.blocks < 64 << 10 && 512 * other!.blocks < 2 << 20,
    `${committed.blocks} and ${other!.blocks} blocks`,
  );
});

test('a name that is no image cannot be written', () => {
  const draft = new MemoryStore().draft(info);
  for (const name of ['../core-1.img', '/etc/passwd', '.img', 'a/b.img', 'x']) {
    assert.throws(() => draft.create(name), /is not the name of an image/, name);
  }
  draft.create('core-1.img').close();
  assert.throws(() => draft.create('core-1.img'), /written twice/);
});

/** A stream through a file, which stands for the pipe: it is written once and read once, forwards. */
function streamed(path: string, write: (fd: number) => void): number {
  const fd = fs.openSync(path, 'w', 0o600);
  write(fd);
  fs.closeSync(fd);
  return fs.openSync(path, 'r');
}

/** @returns a descriptor of a stream that is the sample */
function sampleStreamed(path: string): number {
  return streamed(path, (out) => {
    const draft = createStream(out, info);
    writeSample(draft);
    draft.commit();
  });
}

test('a stream is a tar archive, and read once it is the image', (t) => {
  const path = join(temporary(t), 'stream.tar');
  const fd = sampleStreamed(path);
  t.after(() => fs.closeSync(fd));
  const store = openStream(fd);
  assert(!store.has('seccomp.img'));
  assert.deepEqual(contents(store, [...names]), contents(sample(), names));
});

test('a stream that is taken as a whole is the image too, in any order', (t) => {
  const path = join(temporary(t), 'stream.tar');
  const fd = sampleStreamed(path);
  t.after(() => fs.closeSync(fd));
  const store = openStream(fd);
  assert(store.has('pstree.img'));
  store.takeAll!();
  assert.deepEqual(contents(store, [...names].toReversed()), contents(sample(), [...names].toReversed()));
  store.takeAll!();
  const checked = checkedStore(store);
  for (const file of names) checked.open(file).close();
  checked.finish();
});

test('what was written to a stream is there to be read when that is announced, and all of it when it is over', (t) => {
  const path = join(temporary(t), 'stream.tar');
  const fd = fs.openSync(path, 'w', 0o600);
  t.after(() => fs.closeSync(fd));
  const there = () => fs.readFileSync(path, 'latin1').slice(0, 14);
  let [waited, last] = ['', -1];
  const draft = createStream(fd, info, {
    taken() {
      waited = there();
    },
    over() {
      last = fs.statSync(path).size;
    },
  });
  assert.equal(there(), '');
  draft.announce!();
  assert.equal(there(), 'tideover.json\0');
  assert.equal(waited, there(), 'the reader is waited for when it can read that');
  const sink = draft.create('pages-1.img', 4096);
  assert.match(fs.readFileSync(path, 'latin1'), /pages-1\.img/, 'what stands before pages is there before them');
  sink.write(new Uint8Array(4096));
  sink.close();
  draft.commit();
  assert.equal(last, fs.statSync(path).size, 'the reader has all when its end is waited for');
});

test('tar unpacks a stream into the directory, and makes a stream of it', (t) => {
  const folder = temporary(t);
  const path = join(folder, 'stream.tar');
  const out = sampleStreamed(path);
  fs.closeSync(out);
  const directory = join(folder, 'image');
  fs.mkdirSync(directory);
  execFileSync('tar', ['x', '-f', path, '-C', directory]);
  assert.deepEqual(verify(openDirectory(directory)), []);
  const order = [...names].sort((a, b) => rank(a) - rank(b)).map((file) => `./${file}`);
  for (const format of ['gnu', 'pax', 'ustar']) {
    execFileSync('tar', ['c', '-f', path, `--format=${format}`, '-C', directory, ...order]);
    const fd = fs.openSync(path, 'r');
    assert.deepEqual(verify(openStream(fd)), [], format);
    fs.closeSync(fd);
  }
});

test('pages of a stream are read in their order, and each once', (t) => {
  const path = join(temporary(t), 'stream.tar');
  const fd = sampleStreamed(path);
  t.after(() => fs.closeSync(fd));
  const store = openStream(fd);
  assert.throws(() => store.open('pages-102.img'), /it stands at byte 0 of pages-1\.img/);
  const shared = store.open('pages-1.img');
  assert.equal(shared.read(new Uint8Array(5000), 0), 4096);
  const first = store.open('pages-100.img');
  const bytes = new Uint8Array(4096);
  assert.throws(() => first.read(bytes, 4096), UnsupportedError);
  for (let at = 0; at < first.size; at += bytes.length) assert.equal(first.read(bytes, at), 4096);
  assert.equal(first.read(bytes, first.size), 0);
  store.open('pages-102.img').read(bytes, 0);
  assert.equal(bytes[0], 202);
  assert.throws(() => first.read(bytes, 0), UnsupportedError);
});

test('a stream that is cut anywhere says so', (t) => {
  const folder = temporary(t);
  const whole = join(folder, 'whole.tar');
  fs.closeSync(
    streamed(whole, (out) => {
      const draft = createStream(out, info);
      writeSample(draft);
      draft.commit();
    }),
  );
  const bytes = fs.readFileSync(whole);
  const cut = join(folder, 'cut.tar');
  for (let length = 0; length < bytes.length - 1024; length += 509) {
    fs.writeFileSync(cut, bytes.subarray(0, length));
    const fd = fs.openSync(cut, 'r');
    assert.throws(() => contents(openStream(fd), names), { name: 'FormatError', message: /the end of the stream/ });
    fs.closeSync(fd);
  }
});

test('a stream has one file of pages at a time, with the size that was said', (t) => {
  const out = fs.openSync(join(temporary(t), 'x'), 'w');
  t.after(() => fs.closeSync(out));
  const draft = createStream(out, info);
  const sink = draft.create('pages-1.img', 10);
  assert.throws(() => draft.create('core-1.img'), /while pages-1\.img is being written/);
  sink.write(new Uint8Array(8));
  assert.throws(() => sink.close(), /lacks 2 of the 10 bytes/);
  assert.throws(() => sink.write(new Uint8Array(3)), /more than the 10 bytes/);
});

test('tar headers have sizes of any length', () => {
  for (const size of [0, 1, 8 ** 11 - 1, 8 ** 11, 2 ** 50]) {
    const bytes = fileHeader('pages-1.img', size);
    let at = 0;
    const read = (count: number) => {
      at += count;
      return bytes.subarray(at - count, at);
    };
    const { name, type, size: found } = readHeader(read, 'x', () => at)!;
    assert.deepEqual({ name, type, size: found }, { name: 'pages-1.img', type: '0', size });
    assert.equal(at, bytes.length);
  }
  const flipped = fileHeader('pages-1.img', 1);
  flipped[3]! ^= 1;
  assert.throws(
    () =>
      readHeader(
        () => flipped,
        'x',
        () => 512,
      ),
    /x at byte 512: tar checksum/,
  );
});

test('tar headers have names, owners and times of any kind', () => {
  const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 200 }).filter((each) => !each.includes('\0'));
  const entry = fc.record({
    name,
    type: fc.constantFrom('0', '1', '2', '3', '5'),
    size: fc.integer({ min: 0, max: 2 ** 40 }),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    gid: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    mtime: fc.record({
      tv_sec: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
      tv_nsec: fc.integer({ min: 0, max: 999_999_999 }),
    }),
    linkname: name,
  });
  fc.assert(
    fc.property(entry, (each) => {
      const given = { ...each, mtime: { ...each.mtime }, major: each.type === '3' ? 240 : 0, minor: 0 };
      const bytes = header(given);
      let at = 0;
      const read = (count: number) => {
        at += count;
        return bytes.subarray(at - count, at);
      };
      assert.deepEqual(
        readHeader(read, 'x', () => at),
        given,
      );
      assert.equal(at, bytes.length);
    }),
  );
});

test('GNU tar reads what we write of files, and we what it writes', (t) => {
  const folder = temporary(t);
  const long = 'n'.repeat(150);
  fs.mkdirSync(join(folder, 'in', long), { recursive: true });
  fs.writeFileSync(join(folder, 'in', long, 'holes'), 'begin');
  fs.truncateSync(join(folder, 'in', long, 'holes'), 300_000);
  for (let i = 0; i < 9; i++) {
    const fd = fs.openSync(join(folder, 'in', long, 'holes'), 'r+');
    fs.writeSync(fd, 'piece', i * 30_000);
    fs.closeSync(fd);
  }
  fs.symlinkSync(long, join(folder, 'in', 'link'));
  const tar = (...args: string[]) => execFileSync('tar', ['-C', folder, ...args], { maxBuffer: 1 << 22 });
  const archive = tar('-c', '--format=gnu', '--sparse', '--numeric-owner', 'in');
  let at = 0;
  const read = (count: number) => {
    at += count;
    return archive.subarray(at - count, at);
  };
  const found = new Map<string, TarHeader>();
  for (let next = readHeader(read, 'x', () => at); next !== undefined; next = readHeader(read, 'x', () => at)) {
    found.set(next.name, next);
    at += next.size + paddingOf(next.size);
  }
  assert.equal(found.get('in/link')!.linkname, long);
  const { sparse } = found.get(`in/${long}/holes`)!;
  assert.equal(sparse!.size, 300_000);
  assert.ok(sparse!.pieces.length > 4 && sparse!.pieces.some(({ offset }) => offset > 200_000));

  const mtime = { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
  const common = { size: 3, mode: 0o640, uid: process.getuid!(), gid: process.getgid!(), mtime, major: 0, minor: 0 };
  const file = { ...common, name: `${long}-ours`, type: '0', linkname: '' };
  const content = Buffer.alloc(512);
  content.write('abc');
  fs.writeFileSync(join(folder, 'ours.tar'), Buffer.concat([header(file), content, Buffer.alloc(1024)]));
  tar('-x', '-p', '-f', join(folder, 'ours.tar'));
  const stat = fs.statSync(join(folder, `${long}-ours`), { bigint: true });
  assert.deepEqual([stat.size, Number(stat.mode) & 0o7777], [3n, 0o640]);
  assert.equal(stat.mtimeNs, 1_000_000_000_123_456_789n);
});

test('what is read is checked, in whatever order and however little of it', () => {
  const buffer = new Uint8Array(1000);
  const orders = {
    forwards: [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10_000, 11_000, 12_000],
    backwards: [11_000, 10_000, 5000, 0],
    overlapping: [0, 500, 100, 1499],
    'not at all': [],
  };
  for (const [name, positions] of Object.entries(orders)) {
    for (const damaged of [false, true]) {
      const store = sample();
      if (damaged) store.files.get('pages-100.img')![9000]! ^= 1;
      const checked = checkedStore(store);
      const source = checked.open('pages-100.img');
      for (const position of positions) source.read(buffer, position);
      if (damaged) assert.throws(() => checked.finish(), /CRC-32 of pages-100\.img: expected/, name);
      else checked.finish();
    }
  }
});

test('files that are closed, cut or not in the sums are checked too, and images of CRIU are taken as they are', () => {
  const closed = sample();
  closed.files.get('core-100.img')![100]! ^= 1;
  const first = checkedStore(closed);
  assert.throws(() => first.open('core-100.img').close(), /CRC-32 of core-100\.img/);
  assert.throws(() => first.finish(), VerifyError);
  const cut = sample();
  cut.files.set('pages-1.img', new Uint8Array(5));
  const second = checkedStore(cut);
  second.open('pages-1.img');
  assert.throws(() => second.finish(), /size of pages-1\.img: expected 4096, found 5/);
  const without = sample();
  without.files.delete('tideover.sums');
  assert.throws(() => checkedStore(without).finish(), /tideover\.sums: expected the file, found none/);
  without.files.delete('tideover.json');
  without.files.get('pages-1.img')![0]! ^= 1;
  const third = checkedStore(without);
  third.open('pages-1.img');
  third.finish();
});

test('a stream is checked while it is read', (t) => {
  const path = join(temporary(t), 'stream.tar');
  for (const damaged of [false, true]) {
    const whole = streamed(path, (out) => {
      const draft = createStream(out, info);
      writeSample(draft);
      draft.commit();
    });
    fs.closeSync(whole);
    const bytes = fs.readFileSync(path);
    if (damaged) bytes[bytes.indexOf(Buffer.alloc(4096, 7)) + 4000]! ^= 1;
    fs.writeFileSync(path, bytes);
    const fd = fs.openSync(path, 'r');
    t.after(() => fs.closeSync(fd));
    const checked = checkedStore(openStream(fd));
    const pages = checked.open('pages-1.img');
    pages.read(new Uint8Array(4096), 0);
    pages.close();
    if (damaged) assert.throws(() => checked.finish(), /CRC-32 of pages-1\.img/);
    else checked.finish();
    const again = fs.openSync(path, 'r');
    t.after(() => fs.closeSync(again));
    assert.deepEqual(
      verify(openStream(again, 'stdin')).map(({ message }) => /CRC-32 of stdin: pages-1\.img/.test(message)),
      damaged ? [true] : [],
    );
  }
});

test('a full disk is said by the call and its errno', () => {
  const full = fs.openSync('/dev/full', 'w');
  try {
    assert.throws(
      () => {
        const draft = createStream(full, info);
        writeSample(draft);
        // Nothing that comes later needs room.
        draft.seal();
      },
      (error: unknown) => error instanceof SyscallError && error.errnoName === 'ENOSPC',
    );
  } finally {
    fs.closeSync(full);
  }
});

test('sums that are damaged anywhere are refused', () => {
  const sums = new Sums([['core-1.img', { size: 5, crc32: 0xabc }]]);
  const text = sums.text();
  assert.deepEqual(Sums.parse(text, 's'), sums);
  for (let at = 0; at < text.length - 1; at++) {
    const flipped = text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + text.slice(at + 1);
    assert.throws(() => Sums.parse(flipped, 's'), { name: 'FormatError', file: 's' }, `byte ${at}`);
    assert.throws(() => Sums.parse(text.slice(0, at), 's'), { name: 'FormatError' });
  }
});

test('the image says who made it, and why it does not fit a machine', () => {
  assert.deepEqual(parseInfo(infoText(info), 'i'), info);
  assert.throws(() => parseInfo(infoText({ ...info, format: 2, tideover: '9.0' }), 'i'), /made by tideover 9\.0/);
  for (const text of [
    '',
    '[]',
    '{}',
    'null',
    JSON.stringify({ ...info, cpu: 1 }),
    JSON.stringify({ ...info, kernel: null }),
  ]) {
    assert.throws(() => parseInfo(text, 'i'), { name: 'FormatError', file: 'i' }, text);
  }
  assert.deepEqual(incompatibilities(info, info), []);
  const other = { ...info, machine: 'aarch64', pageSize: 65536, cpu: { ...info.cpu, features: ['sse2'] } };
  assert.deepEqual(incompatibilities(info, other), [
    'the image is of x86_64, this machine is aarch64',
    'pages of the image have 4096 bytes, those of this machine 65536',
    'this CPU lacks avx, which a CPU has',
  ]);
});
