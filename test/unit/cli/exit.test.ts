import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { exitCodes, failure, UsageError } from '../../../src/cli/exit.ts';
import { FormatError, PartialError, SyscallError, UnsupportedError, VerifyError } from '../../../src/errors.ts';
import { NoRoomError } from '../../../src/pkram/errors.ts';

function systemError(act: () => void): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}

const noPages = new UnsupportedError({ what: 'huge pages', why: '7 are missing', remedy: 'reserve them' });
const cases: [name: string, error: unknown, exit: number][] = [
  ['usage', new UsageError('no such thing'), 2],
  ['call not permitted', new SyscallError('ptrace', 'ptrace(pid=1)', 1), 3],
  ['call not there', new SyscallError('kexec_load', 'kexec_load()', 38), 3],
  ['call failed', new SyscallError('write', 'write(fd=3)', 28), 1],
  ['cannot be saved', new UnsupportedError({ what: 'io_uring', why: 'busy', remedy: 'wait' }), 3],
  ['no room', new NoRoomError('the limit is reached'), 1],
  ['no room for lack of huge pages', new NoRoomError('there is no room', { cause: noPages }), 3],
  ['partial change', new PartialError('restore', '2 of 3 processes are restored and stopped'), 4],
  ['damaged', new FormatError({ file: 'x', field: 'magic', expected: 'a', found: 'b' }), 5],
  ['differs', new VerifyError('checksum', 'a', 'b'), 5],
  ['no such file', systemError(() => readFileSync('/nonexistent')), 1],
  ['a folder', systemError(() => readFileSync('/')), 1],
  ['interrupted', AbortSignal.abort().reason, 130],
  ['bug', new TypeError('x is not a function'), 1],
  ['thrown text', 'oops', 1],
];

for (const [name, error, exit] of cases) {
  test(`exit code of: ${name}`, () => {
    const failed = failure(error);
    assert.equal(failed.exit, exit);
    assert.ok(failed.exit in exitCodes);
    assert.equal(failed.json.exit, exit);
    assert.equal(failed.json.message, failed.message);
    assert.equal(typeof failed.json.code, 'string');
  });
}

test('a missing right on a file is exit 3', () => {
  const error = Object.assign(new Error('EACCES: permission denied, open x'), {
    code: 'EACCES',
    syscall: 'open',
    errno: -13,
  });
  assert.equal(failure(error).exit, 3);
});

test('an error that nobody foresaw says that it is a bug', () => {
  assert.match(
    failure(new TypeError('x is not a function')).message,
    /^this is a bug in tideover: x is not a function/,
  );
  assert.equal(failure(new TypeError('x')).json.code, 'bug');
});

test('JSON has what the error knows', () => {
  const { json } = failure(
    new FormatError({ file: 'core-1.img', offset: 12, field: 'magic', expected: 'a', found: 'b' }),
  );
  assert.deepEqual(JSON.parse(JSON.stringify(json)), {
    code: 'format',
    exit: 5,
    message: 'core-1.img at byte 12: magic: expected a, found b',
    file: 'core-1.img',
    offset: 12,
    field: 'magic',
  });
});
