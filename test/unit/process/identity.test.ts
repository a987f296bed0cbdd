import assert from 'node:assert/strict';
import { test } from 'node:test';
import { statx } from '../../../src/abi/stat.ts';
import { whyOther } from '../../../src/process/files/identity.ts';

const of = (ino: bigint, tv_sec: number, tv_nsec: number) => ({
  ...statx.read(new Uint8Array(statx.size)),
  stx_ino: ino,
  stx_mtime: { tv_sec, tv_nsec, __reserved: 0 },
});
const left = { mtime_sec: 1_700_000_000, mtime_nsec: 5, ino: 7n };

test('a file is the same with the same inode and time of writing', () => {
  assert.equal(whyOther(left, of(7n, 1_700_000_000, 5)), undefined);
  assert.match(whyOther(left, of(8n, 1_700_000_000, 5))!, /^it was inode 7, and another file, inode 8, is there now$/);
  const said = /^it was written to since: last at 2023-11-14T22:13:20.000Z, and at 2023-11-14T22:13:21.000Z now$/;
  assert.match(whyOther(left, of(7n, 1_700_000_001, 5))!, said);
  assert.match(whyOther(left, of(7n, 1_700_000_000, 6))!, /^it was written to since/);
});

test('where inodes are numbered anew with each mount the time alone counts', () => {
  const { ino: _, ...time } = left;
  assert.equal(whyOther(time, of(8n, 1_700_000_000, 5)), undefined);
  assert.match(whyOther(time, of(7n, 1, 5))!, /^it was written to since/);
});
