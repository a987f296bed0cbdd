/** What goes before others does so for as long as it is to, and nothing of it stays. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { SCHED_FIFO } from '../../../src/abi/sched.ts';
import { createStream } from '../../../src/image/stream.ts';
import { endHere, Haste } from '../../../src/process/haste.ts';
import { infoHere } from '../../../src/process/info.ts';
import { sleep } from '../../../src/sys/process.ts';
import { readStat, readStatus } from '../../../src/sys/stat.ts';
import { PATIENCE } from '../patience.ts';
import { Bench } from './target.ts';

const LATENCY = '/dev/cpu_dma_latency';

function isAwake(pid: number | string = 'self'): boolean {
  return readdirSync(`/proc/${pid}/fd`).some((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === LATENCY;
    } catch {
      // That of the folder itself.
      return false;
    }
  });
}

/** Nice and policy of a thread: proc_pid_stat(5), fields 19 and 41. */
function schedulingOf(task: string): readonly [nice: number, policy: number] {
  const fields = readFileSync(`/proc/${task}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return [Number(fields[19 - 3]), Number(fields[41 - 3])];
}

test('a thread goes first and processors are awake, as long as it is said', () => {
  const there = existsSync(LATENCY);
  const before = schedulingOf('thread-self');
  assert.equal(isAwake(), false);
  {
    using haste = new Haste();
    assert.deepEqual([isAwake(), schedulingOf('thread-self')], [there, before], 'only the processors at first');
    haste.begin();
    const [nice, policy] = schedulingOf('thread-self');
    assert.ok(policy === SCHED_FIFO || nice === -20, `policy ${policy}, nice ${nice}`);
    assert.equal(isAwake(), there);
    haste.forLong();
    assert.deepEqual([isAwake(), schedulingOf('thread-self')], [false, [-20, before[1]]]);
    haste.begin();
  }
  assert.deepEqual([isAwake(), schedulingOf('thread-self')], [false, before]);
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

test('a restore that waits for its stream practises and waits behind others, and goes first when the stream begins', async (t) => {
  const bench = Bench.of(t);
  bench.shell('mkfifo stream');
  const stream = openSync(join(bench.folder, 'stream'), 'r+');
  const child = spawn(bench.node, [bench.main, 'restore', '-D', '-'], { stdio: [stream, 'ignore', 'ignore'] });
  const ended = once(child, 'exit');
  const seen = new Set<string>();
  const look = (): void => {
    assert.notEqual(readStat(child.pid!).state, 'Z', 'it has ended');
    seen.add(`${schedulingOf(`${child.pid}`)} ${isAwake(child.pid)}`);
    sleep(500_000);
  };
  const ordinary = `${schedulingOf('thread-self')} false`;
  try {
    const until = performance.now() + PATIENCE;
    // It waits in read or in poll: proc_pid_syscall(5).
    while (!/^(0 0x0|7) /.test(readFileSync(`/proc/${child.pid}/syscall`, 'latin1'))) {
      assert.ok(performance.now() < until, 'it does not read');
      look();
    }
    look();
    assert.deepEqual([...seen], [ordinary]);
    createStream(stream, infoHere()).announce!();
    const first = [`0,${SCHED_FIFO}`, '-20,0'].map((scheduling) => `${scheduling} ${existsSync(LATENCY)}`);
    while (!first.some((each) => seen.has(each))) {
      assert.ok(performance.now() < until, `it stays as it is: ${[...seen].join(', ')}`);
      look();
    }
  } finally {
    child.kill('SIGKILL');
    await ended;
    closeSync(stream);
  }
});
