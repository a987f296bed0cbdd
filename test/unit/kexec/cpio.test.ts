import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cpio } from '../../../src/kexec/cpio.ts';

interface Member {
  name: string;
  mode: number;
  data: string;
  rdev: [number, number];
}

/** A reader that follows buffer-format.rst by the letter. */
function read(archive: Uint8Array): Member[] {
  const text = Buffer.from(archive).toString('latin1');
  const members: Member[] = [];
  for (let at = 0; ; ) {
    assert.equal(text.slice(at, at + 6), '070701');
    const field = (i: number) => Number.parseInt(text.slice(at + 6 + 8 * i, at + 14 + 8 * i), 16);
    const nameEnd = at + 110 + field(11);
    assert.equal(text[nameEnd - 1], '\0');
    const name = text.slice(at + 110, nameEnd - 1);
    const start = (nameEnd + 3) & ~3;
    assert.equal(field(4), 1);
    if (name === 'TRAILER!!!') {
      assert.match(text.slice(start), /^\0*$/);
      return members;
    }
    members.push({ name, mode: field(1), data: text.slice(start, start + field(6)), rdev: [field(9), field(10)] });
    at = (start + field(6) + 3) & ~3;
  }
}

test('files, folders, links and devices', () => {
  const archive = cpio([
    { name: 'dev', mode: 0o40755 },
    { name: 'dev/console', mode: 0o20600, device: [5, 1] },
    { name: 'init', mode: 0o755, data: '#!/bin/sh\n' },
    { name: 'bin', mode: 0o120777, data: 'usr/bin' },
  ]);
  assert.equal(archive.length % 512, 0);
  assert.deepEqual(read(archive), [
    { name: 'dev', mode: 0o40755, data: '', rdev: [0, 0] },
    { name: 'dev/console', mode: 0o20600, data: '', rdev: [5, 1] },
    { name: 'init', mode: 0o100755, data: '#!/bin/sh\n', rdev: [0, 0] },
    { name: 'bin', mode: 0o120777, data: 'usr/bin', rdev: [0, 0] },
  ]);
});

test('any names and contents are read back', () => {
  const name = fc.stringMatching(/^[a-z./ -]{1,40}$/);
  const entry = fc.record({ name, data: fc.uint8Array({ maxLength: 100 }) });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 10 }), (entries) => {
      const members = read(cpio(entries.map((each) => ({ ...each, mode: 0o644 }))));
      assert.deepEqual(
        members.map(({ name, data }) => [name, data]),
        entries.map(({ name, data }) => [name, Buffer.from(data).toString('latin1')]),
      );
    }),
  );
});
