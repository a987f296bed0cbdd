/** docs/state.md names tests that are there; test/run.ts looks whether they have passed. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { rows, summary, unproved, VERDICTS } from '../../state.ts';

const text = readFileSync(new URL('../../../docs/state.md', import.meta.url), 'utf8');

test('each row of docs/state.md has a verdict, and tests that are there', () => {
  const table = rows();
  assert.ok(table.length > 50);
  assert.deepEqual(
    table.filter(({ verdict }) => !(VERDICTS as readonly string[]).includes(verdict)),
    [],
  );
  assert.deepEqual(unproved(), []);
});

test('its numbers are those of its rows: node scripts/docs.ts', () => {
  assert.ok(text.includes(`\n${summary()}\n`), summary());
});

test('a row whose test is not there, or has not passed, is named', () => {
  const table = rows('| a thing | kept | | R: tree, nothing of this name |');
  assert.deepEqual(unproved(undefined, table), [
    "a thing: no test 'nothing of this name' of test/integration/process/restore.test.ts is there",
  ]);
  const file = 'test/integration/process/restore.test.ts';
  const passed = new Map([[file, new Set(['a tree with threads, a zombie, sessions, groups and what they share'])]]);
  assert.deepEqual(unproved(passed, rows('| a thing | kept | | R: tree |')), []);
  assert.equal(unproved(passed, rows('| a thing | kept | | R: sqlite |')).length, 1);
});
