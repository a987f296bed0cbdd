import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeFolders, removeEmpty } from '../../../src/sys/folder.ts';

test('folders that were missing are made and go again, but for those that somebody else uses', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-folder-'));
  t.after(() => rmSync(folder, { recursive: true }));
  assert.deepEqual(makeFolders(folder), []);
  const [a, b, c] = ['a', 'a/b', 'a/b/c'].map((name) => join(folder, name)) as [string, string, string];
  const made = makeFolders(`${c}/`);
  assert.deepEqual(made, [c, b, a]);
  removeEmpty(made);
  assert.deepEqual(readdirSync(folder), []);
  mkdirSync(a);
  assert.deepEqual(makeFolders(c), [c, b]);
  writeFileSync(join(b, 'theirs'), '');
  removeEmpty([c, b, a]);
  assert.ok(!existsSync(c));
  assert.deepEqual(readdirSync(b), ['theirs']);
});
