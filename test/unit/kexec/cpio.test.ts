import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { cpio, initramfsNames } from '../../../src/kexec/cpio.ts';
import { readNewc as read } from './newc.ts';

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

test('names in an initramfs: several archives, of which the last may be compressed', () => {
  const first = cpio([
    { name: 'kernel', mode: 0o40755 },
    { name: 'kernel/x.bin', mode: 0o644, data: 'microcode' },
  ]);
  const second = cpio([{ name: 'lib/virtio_blk.ko', mode: 0o644, data: new Uint8Array(5000).fill(7) }]);
  const names = ['kernel', 'kernel/x.bin', 'lib/virtio_blk.ko'];
  for (const packed of [second, gzipSync(second), zstdCompressSync(second)]) {
    assert.deepEqual(initramfsNames(Buffer.concat([first, packed])), names);
  }
  assert.equal(initramfsNames(Buffer.concat([first, Buffer.from('\xfd7zXZ\0....', 'latin1')])), undefined);
});
