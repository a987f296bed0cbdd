import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { displayWidth, printable, printableLine, truncate, wrap } from '../../../src/cli/text.ts';

test('escape sequences vanish, other controls become visible', () => {
  assert.equal(printable('\x1b[31mred\x1b[0m'), 'red');
  assert.equal(printable('\x1b]0;new title\x07name'), 'name');
  assert.equal(printable('\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\'), 'link');
  assert.equal(printable('\x9b2Jgone\x90q\x9cgone'), 'gonegone');
  assert.equal(printable('\x1bc\x1b(Breset'), 'reset');
  assert.equal(printable('bell\x07 back\b return\r'), 'bell\\x07 back\\x08 return\\x0d');
  assert.equal(printable('a\u202egpj.exe'), 'a\\u202egpj.exe');
  assert.equal(printable('tab\tnew\nline ü 漢 🙂'), 'tab\tnew\nline ü 漢 🙂');
  assert.equal(printableLine('one \n two\tthree'), 'one two three');
});

test('whatever is made printable steers no terminal', () => {
  const hostile = fc.array(
    fc.oneof(
      fc.constantFrom('\x1b', '[', ']', '\x07', '\x9b', '31m', '\\', '\x90', 'P'),
      fc.string({ unit: 'binary' }),
    ),
  );
  fc.assert(
    fc.property(hostile, (parts) => {
      assert.doesNotMatch(printable(parts.join('')), /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/);
    }),
  );
});

test('printable text is left alone', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom(...'abc XYZ019.,:;/[]()äß漢\n') }),
      (text) => printable(text) === text,
    ),
  );
});

test('columns of a text', () => {
  assert.equal(displayWidth('plain'), 5);
  assert.equal(displayWidth('漢字'), 4);
  assert.equal(displayWidth('e\u0301'), 1);
  assert.equal(displayWidth('🙂'), 2);
});

test('wrapped lines fit and lose nothing but spaces', () => {
  const text = fc.string({ unit: fc.constantFrom(...'ab c 漢') });
  fc.assert(
    fc.property(text, fc.integer({ min: 2, max: 20 }), (text, width) => {
      const lines = wrap(text, width);
      for (const line of lines) assert.ok(displayWidth(line) <= width, JSON.stringify(line));
      assert.equal(lines.join('').replaceAll(' ', ''), text.replaceAll(' ', ''));
    }),
  );
});

test('wrapping goes between words', () => {
  assert.deepEqual(wrap('the quick brown fox', 10), ['the quick', 'brown fox']);
  assert.deepEqual(wrap('incomprehensible', 6), ['incomp', 'rehens', 'ible']);
  assert.deepEqual(wrap('one\ntwo', 10), ['one', 'two']);
});

test('truncation shows that something is cut', () => {
  assert.equal(truncate('abcdef', 6), 'abcdef');
  assert.equal(truncate('abcdefg', 6), 'abcde…');
  assert.equal(truncate('漢字漢字', 6), '漢字…');
});
