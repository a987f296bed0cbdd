/** Files that no disk has, made again under the next kernel. */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SyscallError } from '../../../src/errors.ts';
import { FileMedium, openPkram, preserveFiles } from '../../../src/pkram/index.ts';
import { restoreVolatile } from '../../../src/update/volatile.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-volatile-'));
after(() => rmSync(folder, { recursive: true }));

/** A copy of a tree that has the files. */
function saved(name: string, paths: readonly string[]) {
  const path = join(folder, name);
  using pkram = openPkram(FileMedium.open(join(path, 'volatile'), { create: true }));
  using node = pkram.prepareSave('volatile', { content: 'volatile', checksums: true });
  const list = node.prepareSaveObject();
  list.write(Buffer.from(JSON.stringify(paths)));
  list.finishSaveObject();
  for (const each of paths) {
    const object = node.prepareSaveObject();
    preserveFiles(object, [each]);
    object.finishSaveObject();
  }
  node.finishSave();
  return { kind: 'directory', path } as const;
}

test('files are made again where they were, in folders too that are gone', () => {
  const [own, other] = [join(folder, 'shm', 'own'), join(folder, 'shm', 'below', 'other')];
  mkdirSync(join(folder, 'shm', 'below'), { recursive: true });
  writeFileSync(own, 'own');
  writeFileSync(other, 'other');
  const where = saved('copy', [own, other]);
  rmSync(join(folder, 'shm'), { recursive: true });
  restoreVolatile(undefined, where);
  assert.deepEqual(
    [own, other].map((path) => readFileSync(path, 'utf8')),
    ['own', 'other'],
  );
});

test('a folder that somebody has put a link in the place of is not followed', () => {
  const [open, target] = [join(folder, 'open'), join(folder, 'target')];
  for (const each of [join(open, 'mine'), target]) mkdirSync(each, { recursive: true });
  writeFileSync(join(open, 'mine', 'file'), 'content');
  const where = saved('other', [join(open, 'mine', 'file')]);
  rmSync(join(open, 'mine'), { recursive: true });
  symlinkSync(target, join(open, 'mine'));
  assert.throws(() => restoreVolatile(undefined, where), SyscallError);
  assert.deepEqual(readdirSync(target), []);
  assert.ok(!existsSync(join(open, 'mine', 'file')));
});
