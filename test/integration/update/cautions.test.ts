import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { io_uring_params } from '../../../src/abi/io_uring.ts';
import { close } from '../../../src/sys/files.ts';
import { io_uring_setup } from '../../../src/sys/io_uring.ts';
import { cautionsOf } from '../../../src/update/cautions.ts';
import { rootTest as test } from '../root.ts';

test('it is said of a tree that a process in it has an io_uring ring', async () => {
  const child = spawn('sleep', ['60']);
  try {
    await once(child, 'spawn');
    assert.deepEqual(cautionsOf({ name: 'plain', pid: child.pid! }), []);
    const fd = io_uring_setup({ entries: 1, params: new Uint8Array(io_uring_params.size) });
    try {
      assert.match(cautionsOf({ name: 'ring', pid: process.pid })[0]!, /^ring: a process has an io_uring ring: /);
    } finally {
      close({ fd });
    }
  } finally {
    child.kill();
  }
});
