/** Programs with sockets, which check themselves after a restore. */
import assert from 'node:assert/strict';
import { rootTest } from '../root.ts';
import { Bench } from './target.ts';

rootTest('sockets of the UNIX domain go on, with bytes and descriptors in flight', async () => {
  const bench = new Bench();
  try {
    const pid = bench.start(bench.compile('unix'));
    await bench.says('ready');
    await bench.moveOn(pid);
    process.kill(pid, 'SIGUSR1');
    assert.match(await bench.says(/PASS|FAIL.*/), /PASS/);
  } finally {
    await bench.dispose();
  }
});
