/** How a medium of preserved memory is named. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../../src/cli/exit.ts';
import { placeOf } from '../../../src/cli/medium.ts';

test('a medium is a file, an address or a range', () => {
  assert.deepEqual(placeOf('/some/file'), { kind: 'file', path: '/some/file' });
  assert.deepEqual(placeOf('./memory'), { kind: 'file', path: './memory' });
  assert.deepEqual(placeOf('memory:0x100000000'), { kind: 'physical', superblock: 2 ** 32 });
  const region = { start: 2 ** 32, end: 2 ** 32 + 2 ** 30 };
  assert.deepEqual(placeOf('memory:0x100000000-0x13fffffff'), { kind: 'physical', superblock: 2 ** 32, region });
  for (const wrong of ['memory:', 'memory:1G', 'memory:0x2000-0x1000', 'memory:4096']) {
    assert.throws(() => placeOf(wrong), UsageError, wrong);
  }
});
