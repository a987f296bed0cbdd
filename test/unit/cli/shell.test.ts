import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { History, historyPath } from '../../../src/cli/shell/history.ts';
import { parseLine } from '../../../src/cli/shell/line.ts';

test('a line is words, and where the result goes', () => {
  const words = (text: string) => parseLine(text).words;
  assert.deepEqual(words('  bt   -a  '), ['bt', '-a']);
  assert.deepEqual(words(`search -c "two words" 'a"b' x'y z'w ""`), ['search', '-c', 'two words', 'a"b', 'xy zw', '']);
  assert.deepEqual(words(''), []);
  assert.deepEqual(words('# ps'), []);
  assert.deepEqual(words('sym a#b'), ['sym', 'a#b']);
  assert.deepEqual(parseLine("ps | grep 'a|b' > x"), {
    words: ['ps'],
    to: { kind: 'pipe', command: "grep 'a|b' > x" },
  });
  assert.deepEqual(parseLine('log>"a file"'), { words: ['log'], to: { kind: 'file', path: 'a file', append: false } });
  assert.deepEqual(parseLine('log >> f'), { words: ['log'], to: { kind: 'file', path: 'f', append: true } });
  assert.deepEqual(words(`search -c '|' ">"`), ['search', '-c', '|', '>']);
  for (const wrong of ['ps |', 'ps >', 'ps > a b', 'ps > a | b', 'ps "x', "ps 'x"]) {
    assert.throws(() => parseLine(wrong), { code: 'usage' }, wrong);
  }
});

test('what is in quotes is one word, whatever it is', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary' }).filter((each) => !each.includes("'"))), (words) => {
      assert.deepEqual(parseLine(`x ${words.map((word) => `'${word}'`).join(' ')}`).words, ['x', ...words]);
    }),
  );
});

test('the history is its owner’s, is kept, and does not grow for ever', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-history-'));
  try {
    const env = { XDG_STATE_HOME: join(folder, 'state') };
    const path = historyPath(env);
    assert.equal(path, join(folder, 'state/tideover/crash_history'));
    const first = new History(env);
    assert.deepEqual(first.lines, []);
    for (const line of ['ps', 'bt -a']) first.add(line);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(statSync(dirname(path)).mode & 0o777, 0o700);
    assert.deepEqual(new History(env).lines, ['ps', 'bt -a']);
    writeFileSync(path, Array.from({ length: 5000 }, (_, i) => `rd ${i}\n`).join(''));
    assert.equal(new History(env).lines.length, 1000);
    assert.match(readFileSync(path, 'utf8'), /^rd 4000\n[\s\S]*rd 4999\n$/);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    // One that cannot be written is no reason not to run.
    rmSync(path);
    writeFileSync(`${folder}/file`, '');
    const none = new History({ XDG_STATE_HOME: `${folder}/file` });
    none.add('ps');
    assert.deepEqual(none.lines, []);
  } finally {
    chmodSync(folder, 0o700);
    rmSync(folder, { recursive: true });
  }
  assert.equal(
    historyPath({ HOME: '/home/x', XDG_STATE_HOME: 'not/absolute' }),
    '/home/x/.local/state/tideover/crash_history',
  );
});
