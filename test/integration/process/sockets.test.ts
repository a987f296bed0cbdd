/** Programs with sockets, which check themselves after a restore. */
import assert from 'node:assert/strict';
import { rootTest } from '../root.ts';
import { Bench } from './target.ts';

for (const [name, program] of [
  ['sockets of the UNIX domain go on, with bytes and descriptors in flight', 'unix'],
  ['sockets that listen, and datagrams with their senders go on', 'inet'],
] as const) {
  rootTest(name, async () => {
    const bench = new Bench();
    try {
      const pid = bench.start(bench.compile(program));
      await bench.says('ready');
      await bench.moveOn(pid);
      process.kill(pid, 'SIGUSR1');
      assert.match(await bench.says(/PASS|FAIL.*/), /PASS/);
    } finally {
      await bench.dispose();
    }
  });
}
