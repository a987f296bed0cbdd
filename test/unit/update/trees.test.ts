import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { UnsupportedError } from '../../../src/errors.ts';
import { demandApart, treeOfPid } from '../../../src/update/trees.ts';

test('no process is kept with two trees', async () => {
  const parent = spawn('sh', ['-c', 'sleep 60 & echo $!; wait'], { stdio: ['ignore', 'pipe', 'ignore'] });
  const other = spawn('sleep', ['60']);
  let child: number | undefined;
  try {
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    child = Number(line);
    const [whole, below, apart] = [parent.pid!, child, other.pid!].map(treeOfPid) as [never, never, never];
    demandApart([whole, apart]);
    demandApart([below, apart]);
    for (const trees of [
      [whole, below],
      [below, whole],
      [apart, whole, apart],
    ]) {
      assert.throws(() => demandApart(trees), UnsupportedError);
    }
  } finally {
    if (child !== undefined) process.kill(child);
    parent.kill();
    other.kill();
  }
});
