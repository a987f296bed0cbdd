import assert from 'node:assert/strict';
import { test } from 'node:test';
import { saveLocks } from '../../../src/process/files/locks.ts';
import { parseFdinfo } from '../../../src/sys/fdinfo.ts';

const info = (lock: string) => parseFdinfo(`pos:\t0\nflags:\t0100002\nmnt_id:\t9\nlock:\t${lock}\n`, 'fdinfo');

test('locks as fdinfo shows them', () => {
  assert.deepEqual(saveLocks(7, 3, info('1: POSIX  ADVISORY  WRITE 7 fe:00:123 10 19'), true), [
    { flag: 1, type: 1, pid: 7, fd: 3, start: 10, len: 10 },
  ]);
  assert.deepEqual(saveLocks(7, 3, info('2: FLOCK  ADVISORY  READ 9 fe:00:123 0 EOF'), true), [
    { flag: 2, type: 0, pid: 7, fd: 3, start: 0, len: 0 },
  ]);
});

test('locks and leases are refused unless they are to be kept, and kinds that are not known always', () => {
  assert.throws(() => saveLocks(7, 3, info('1: POSIX  ADVISORY  WRITE 7 fe:00:123 0 EOF'), false), /--file-locks/);
  const lease = '1: LEASE  ACTIVE  READ 7 fe:00:123 0 EOF';
  assert.throws(() => saveLocks(7, 3, info(lease), false), /--file-locks/);
  assert.deepEqual(saveLocks(7, 3, info(lease), true), [{ flag: 8, type: 0, pid: 7, fd: 3, start: 0, len: 0 }]);
  assert.throws(() => saveLocks(7, 3, info(lease.replace('LEASE', 'DELEG')), true), /process 7, descriptor 3/);
});
