import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno, errnoMessage, errnoName } from '../../src/abi/errno.ts';
import { FormatError, SyscallError, TideoverError, UnsupportedError, VerifyError } from '../../src/errors.ts';

test('errors say what, where and what to do, and have one base and a code', () => {
  const errors: [TideoverError, string, string][] = [
    [new SyscallError('close', 'close(fd=7)', Errno.EBADF), 'syscall', 'close(fd=7): EBADF (Bad file descriptor)'],
    [
      new FormatError({ file: 'core-1.img', offset: 8, field: 'size', expected: 'at most 12', found: '4294967295' }),
      'format',
      'core-1.img at byte 8: size: expected at most 12, found 4294967295',
    ],
    [
      new FormatError({ file: 'core-1.img', field: 'magic', expected: '0x1', found: 'nothing' }),
      'format',
      'core-1.img: magic: expected 0x1, found nothing',
    ],
    [
      new UnsupportedError({ what: 'perf event', pid: 7, fd: 3, why: 'it has no state to save', remedy: 'close it' }),
      'unsupported',
      'process 7, descriptor 3: perf event: it has no state to save; close it',
    ],
    [
      new VerifyError('pages-1.img', 'sha256 aa', 'sha256 bb'),
      'verify',
      'pages-1.img: expected sha256 aa, found sha256 bb',
    ],
  ];
  for (const [error, code, message] of errors) {
    assert.ok(error instanceof TideoverError);
    assert.equal(error.code, code);
    assert.equal(error.message, message);
    assert.equal(error.name, error.constructor.name);
  }
});

test('errno', () => {
  assert.equal(Errno.ENOSYS, 38);
  assert.equal(errnoName(1), 'EPERM');
  assert.equal(errnoName(524), 'ENOTSUPP');
  assert.equal(errnoName(4000), 'E4000');
  assert.equal(errnoMessage(28), 'No space left on device');
});
