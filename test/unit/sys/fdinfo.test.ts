import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { O_CLOEXEC, O_RDWR } from '../../../src/abi/fcntl.ts';
import { FormatError } from '../../../src/errors.ts';
import { descriptorLink, listDescriptors, parseFdinfo, readFdinfo } from '../../../src/sys/fdinfo.ts';

test('what all descriptors have, and the lines of one kind as they stand there', () => {
  const text =
    'pos:\t4294967296\nflags:\t02000002\nmnt_id:\t16\nino:\t77\n' +
    'tfd:        5 events:       19 data:                5  pos:0 ino:61af sdev:7\n' +
    'tfd:        7 events:       1d data: ffffffffffffffff  pos:0 ino:61b0 sdev:7\n';
  const { lines, ...rest } = parseFdinfo(text, 'sample');
  assert.deepEqual(rest, { pos: 2 ** 32, flags: O_RDWR | O_CLOEXEC, mnt_id: 16 });
  assert.deepEqual(lines, [
    ['ino', '77'],
    ['tfd', '5 events:       19 data:                5  pos:0 ino:61af sdev:7'],
    ['tfd', '7 events:       1d data: ffffffffffffffff  pos:0 ino:61b0 sdev:7'],
  ]);
});

test('a field that is missing is named', () => {
  assert.throws(() => parseFdinfo('pos:\t0\nmnt_id:\t16\n', 'sample'), {
    constructor: FormatError,
    message: 'sample: flags: expected a line, found none',
  });
});

test('a descriptor of this process', () => {
  const fd = openSync('/proc/self/status', 'r');
  try {
    assert.ok(listDescriptors(process.pid).includes(fd));
    assert.equal(descriptorLink(process.pid, fd), `/proc/${process.pid}/status`);
    // Node opens with O_CLOEXEC.
    const { pos, flags } = readFdinfo(process.pid, fd);
    assert.deepEqual([pos, flags & O_CLOEXEC], [0, O_CLOEXEC]);
  } finally {
    closeSync(fd);
  }
});
