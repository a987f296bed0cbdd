/** Files that go into preserved memory and come out as they were: names, modes, owners, times, attributes, holes, links. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { FileMedium, openPkram, type Pkram, preserveFiles, restoreFiles } from '../../../src/pkram/index.ts';
import { extendedAttributes, lsetxattr, setTimes } from '../../../src/sys/inode.ts';
import { asRoot } from '../root.ts';

let folder: string;
let pkram: Pkram;

before(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'pkram-files-'));
  pkram = openPkram(FileMedium.open(join(folder, 'medium'), { create: true }));
});
after(() => {
  pkram.close();
  fs.rmSync(folder, { recursive: true });
});

function preserve(name: string, source: string | string[]): void {
  const save = pkram.prepareSave(name);
  try {
    const object = save.prepareSaveObject();
    preserveFiles(object, source);
    object.finishSaveObject();
    save.finishSave();
  } finally {
    save[Symbol.dispose]();
  }
}

function restore(name: string, to: string): void {
  const load = pkram.prepareLoad(name);
  const object = load.prepareLoadObject()!;
  restoreFiles(object, to, name);
  object.finishLoadObject();
  load.finishLoad();
}

/** What is to be the same, by path. Times of access are not: to compare is to read. */
function describeTree(root: string): Record<string, unknown> {
  const list = execFileSync('find', ['.', '-print0'], { cwd: root, encoding: 'latin1' });
  const paths = list.split('\0').slice(0, -1).sort();
  const inodes = new Map<bigint, string>();
  const entries = paths.map((key) => {
    const path = Buffer.from(`${root}/${key}`, 'latin1');
    const stat = fs.lstatSync(path, { bigint: true });
    const first = inodes.get(stat.ino);
    inodes.set(stat.ino, first ?? key);
    const { mode, uid, gid, mtimeNs, rdev, nlink } = stat;
    const size = stat.isFile() ? stat.size : 0n;
    const content = stat.isFile() ? fs.readFileSync(path).toString('latin1') : '';
    const target = stat.isSymbolicLink() ? fs.readlinkSync(path) : '';
    return [key, { mode, uid, gid, mtimeNs, rdev, nlink, size, content, target, first }];
  });
  return Object.fromEntries(entries);
}

describe('a directory', asRoot, () => {
  it('comes back with everything that is said of its files', () => {
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
    fs.mkdirSync(join(from, 'deep/er'), { recursive: true, mode: 0o750 });
    fs.writeFileSync(join(from, 'plain'), 'contents');
    fs.writeFileSync(join(from, 'empty'), '');
    fs.writeFileSync(join(from, 'deep/er/large'), Buffer.alloc(5_000_001, 'abcdefg'));
    fs.writeFileSync(Buffer.concat([Buffer.from(`${from}/no utf-8 `), Buffer.from([0xff, 0xfe])]), 'bytes');
    fs.writeFileSync(join(from, 'new\nline'), 'x');
    fs.chmodSync(join(from, 'plain'), 0o4751);
    fs.lchownSync(join(from, 'plain'), 1234, 5678);
    fs.chmodSync(join(from, 'plain'), 0o4751);
    fs.linkSync(join(from, 'plain'), join(from, 'deep/again'));
    fs.symlinkSync('../nowhere', join(from, 'deep/link'));
    fs.lchownSync(join(from, 'deep/link'), 7, 8);
    execFileSync('mkfifo', ['-m', '640', join(from, 'fifo')]);
    const socket = net.createServer().listen(join(from, 'socket'));
    execFileSync('mknod', [join(from, 'device'), 'c', '1', '3']);
    execFileSync('mknod', [join(from, 'block'), 'b', '259', '70000']);
    for (const [i, path] of ['plain', 'deep/link', 'fifo', 'deep/er', 'deep', '.'].entries()) {
      setTimes(join(from, path), { atime: 1_000_000_001n, mtime: BigInt(i) * 1_000_000_007n - 5n });
    }
    const before = describeTree(from);
    preserve('tree', from);
    socket.close();
    restore('tree', to);
    assert.deepEqual(describeTree(to), before);
    assert.equal((before['./deep/again'] as { nlink: bigint }).nlink, 2n);
    assert.equal(Object.keys(before).length, 14);
  });

  it('comes back with the times of access that files had before they were read', () => {
    const [from, to] = [join(folder, 'times'), join(folder, 'times-to')];
    fs.mkdirSync(join(from, 'sub'), { recursive: true });
    fs.writeFileSync(join(from, 'sub/file'), 'contents');
    fs.symlinkSync('nowhere', join(from, 'link'));
    const paths = ['sub/file', 'link', 'sub', '.'];
    for (const [i, path] of paths.entries())
      setTimes(join(from, path), { atime: BigInt(i) * 1_000_000_007n, mtime: 5n });
    preserve('times', from);
    restore('times', to);
    const times = paths.map((path) => fs.lstatSync(join(to, path), { bigint: true }).atimeNs);
    assert.deepEqual(times, [0n, 1_000_000_007n, 2_000_000_014n, 3_000_000_021n]);
  });

  it('keeps holes as holes', () => {
    const [from, to] = [join(folder, 'sparse'), join(folder, 'sparse-to')];
    fs.mkdirSync(from);
    const fd = fs.openSync(join(from, 'file'), 'w');
    fs.writeSync(fd, Buffer.alloc(100_000, 'a'), 0, 100_000, 1 << 20);
    fs.writeSync(fd, Buffer.from('end'), 0, 3, 2 ** 33);
    fs.ftruncateSync(fd, 2 ** 33 + 2 ** 30);
    fs.closeSync(fd);
    preserve('sparse', from);
    assert.ok(pkram.nodes()[0]!.held < 1 << 20);
    restore('sparse', to);
    const stat = fs.statSync(join(to, 'file'));
    assert.equal(stat.size, 2 ** 33 + 2 ** 30);
    assert.ok(stat.blocks * 512 < 1 << 20, `${stat.blocks} blocks`);
    const back = fs.openSync(join(to, 'file'), 'r');
    const bytes = Buffer.alloc(100_002);
    fs.readSync(back, bytes, 0, bytes.length, (1 << 20) - 1);
    assert.deepEqual(bytes, Buffer.concat([Buffer.alloc(1), Buffer.alloc(100_000, 'a'), Buffer.alloc(1)]));
    fs.readSync(back, bytes, 0, 4, 2 ** 33);
    assert.equal(bytes.toString('latin1', 0, 4), 'end\0');
    fs.closeSync(back);
  });

  it('keeps extended attributes of files, directories and links', () => {
    const [from, to] = [join(folder, 'xattrs'), join(folder, 'xattrs-to')];
    fs.mkdirSync(from);
    fs.writeFileSync(join(from, 'file'), '');
    fs.symlinkSync('file', join(from, 'link'));
    const value = Uint8Array.of(0, 255, 10, 13);
    // Symbolic links have none in the user namespace.
    for (const [path, name] of [
      ['.', 'user.a'],
      ['file', 'user.b'],
      ['link', 'trusted.c'],
    ] as const) {
      lsetxattr({ pathname: join(from, path), name, value, size: value.length, flags: 0 });
    }
    preserve('xattrs', from);
    restore('xattrs', to);
    for (const [path, name] of [
      ['.', 'user.a'],
      ['file', 'user.b'],
      ['link', 'trusted.c'],
    ] as const) {
      assert.deepEqual(extendedAttributes(join(to, path)).get(name), value);
    }
  });

  it('is not saved over a mount point', () => {
    const save = pkram.prepareSave('proc');
    assert.throws(() => preserveFiles(save.prepareSaveObject(), '/dev'), UnsupportedError);
    save.discardSave();
  });
});

describe('a list of paths', () => {
  it('comes back by the last names', () => {
    const [from, to] = [join(folder, 'list'), join(folder, 'list-to')];
    fs.mkdirSync(join(from, 'a/b'), { recursive: true });
    fs.writeFileSync(join(from, 'a/b/c'), '1');
    fs.writeFileSync(join(from, 'd'), '2');
    preserve('list', [join(from, 'a/b'), join(from, 'd')]);
    restore('list', to);
    assert.deepEqual((fs.readdirSync(to, { recursive: true }) as string[]).sort(), ['b', 'b/c', 'd']);
    assert.throws(() => preserve('twice', [join(from, 'd'), join(from, 'a/../d')]), UnsupportedError);
  });
});

describe('a catalogue that lies', asRoot, () => {
  const base = { type: 'file', mode: 0o644, uid: 0, gid: 0, atime: '0', mtime: '0', size: 0, data: [] };
  const lies: Record<string, unknown[]> = {
    'leads out of the directory': [{ ...base, path: '../out' }],
    'leads over a symbolic link': [
      { ...base, path: 'link', type: 'symlink', target: '/tmp' },
      { ...base, path: 'link/out' },
    ],
    'links to what is not in it': [{ ...base, path: 'x', link: '/etc/passwd' }],
    'has an absolute path': [{ ...base, path: '/etc/x' }],
    'promises contents that are not there': [{ ...base, path: 'x', size: 10, data: [[0, 10]] }],
    'has parts out of order': [
      {
        ...base,
        path: 'x',
        size: 10,
        data: [
          [5, 2],
          [0, 2],
        ],
      },
    ],
    'is not JSON': ['{'],
    'is of a type that is none': [{ ...base, path: 'x', type: 'door' }],
  };
  for (const [name, records] of Object.entries(lies)) {
    it(`and ${name} is refused`, () => {
      const save = pkram.prepareSave('lie');
      const object = save.prepareSaveObject();
      for (const record of records) {
        object.write(Buffer.from(`${typeof record === 'string' ? record : JSON.stringify(record)}\n`));
      }
      object.finishSaveObject();
      save.finishSave();
      const to = fs.mkdtempSync(join(folder, 'lie-'));
      const load = pkram.prepareLoad('lie');
      assert.throws(() => restoreFiles(load.prepareLoadObject()!, to, 'lie'), FormatError);
      load[Symbol.dispose]();
      pkram.remove('lie');
    });
  }
});
