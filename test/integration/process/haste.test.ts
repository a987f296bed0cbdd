/** What goes before others does so for as long as it is to, and nothing of it stays. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { SCHED_FIFO } from '../../../src/abi/sched.ts';
import { endHere, Haste } from '../../../src/process/haste.ts';
import { readStatus } from '../../../src/sys/stat.ts';

const LATENCY = '/dev/cpu_dma_latency';

function isAwake(): boolean {
  return readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === LATENCY;
    } catch {
      // That of the folder itself.
      return false;
    }
  });
}

/** Nice and policy of this thread: proc_pid_stat(5), fields 19 and 41. */
function schedulingOfThis(): readonly [nice: number, policy: number] {
  const fields = readFileSync('/proc/thread-self/stat', 'latin1').split(') ')[1]!.split(' ');
  return [Number(fields[19 - 3]), Number(fields[41 - 3])];
}

test('a thread goes first and processors are awake, as long as it is said', () => {
  const there = existsSync(LATENCY);
  const before = schedulingOfThis();
  assert.equal(isAwake(), false);
  {
    using haste = new Haste();
    assert.deepEqual([isAwake(), schedulingOfThis()], [there, before], 'only the processors at first');
    haste.begin();
    const [nice, policy] = schedulingOfThis();
    assert.ok(policy === SCHED_FIFO || nice === -20, `policy ${policy}, nice ${nice}`);
    assert.equal(isAwake(), there);
    haste.forLong();
    assert.deepEqual([isAwake(), schedulingOfThis()], [false, [-20, before[1]]]);
    haste.begin();
  }
  assert.deepEqual([isAwake(), schedulingOfThis()], [false, before]);
});

test('what is to end here may run on this processor alone, and what is gone already is passed over', async () => {
  const child = spawn('sleep', ['infinity'], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  try {
    endHere([child.pid!]);
    assert.match(readFileSync(`/proc/${child.pid}/status`, 'latin1'), /^Cpus_allowed_list:\t\d+$/m);
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
  assert.throws(() => readStatus(child.pid!));
  endHere([child.pid!]);
});
