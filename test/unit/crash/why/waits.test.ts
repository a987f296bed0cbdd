import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Task } from '../../../../src/crash/kernel/tasks.ts';
import { chainFrom, type Lock, type Wait, waitGraph } from '../../../../src/crash/why/waits.ts';

function task(pid: number): Task {
  return {
    address: BigInt(pid),
    pid,
    tgid: pid,
    ppid: 1,
    comm: `task${pid}`,
    state: 'D',
    cpu: 0,
    running: false,
    mm: 0n,
  };
}

function lock(address: number, owner: number | undefined): Lock {
  const holders = owner === undefined ? [] : [{ task: task(owner), proof: 'owner' as const }];
  return { address: BigInt(address), kind: 'mutex', symbol: undefined, state: '', holders };
}

function wait(pid: number, lock: number): Wait {
  return {
    task: task(pid),
    lock: BigInt(lock),
    wanted: 'lock',
    waiter: 0n,
    taker: '',
    caller: undefined,
    seconds: undefined,
  };
}

const pids = (waits: readonly Wait[]) => waits.map(({ task: { pid } }) => pid);

test('two tasks that wait for each other are one circle, and who waits for them is not in it', () => {
  const locks = [lock(101, 1), lock(102, 2)];
  const graph = waitGraph(locks, [wait(3, 101), wait(1, 102), wait(2, 101)]);
  assert.deepEqual(graph.cycles.map(pids), [[1, 2]]);
  assert.deepEqual(pids(chainFrom(graph, graph.waits[0]!).chain), [3, 1, 2]);
});

test('a task that waits for its own lock is a circle', () => {
  assert.deepEqual(waitGraph([lock(101, 1)], [wait(1, 101)]).cycles.map(pids), [[1]]);
});

test('a chain ends at a task that does not wait', () => {
  const graph = waitGraph([lock(101, 2), lock(102, 9)], [wait(1, 101), wait(2, 102)]);
  assert.deepEqual(graph.cycles, []);
  const { chain, last } = chainFrom(graph, graph.waits[0]!);
  assert.deepEqual([pids(chain), last?.pid], [[1, 2], 9]);
});

test('whatever holds whatever, each circle is found once and is one', () => {
  const holders = fc.array(fc.option(fc.nat(9), { nil: undefined }), { minLength: 10, maxLength: 10 });
  const wanted = fc.array(fc.nat(9), { minLength: 10, maxLength: 10 });
  fc.assert(
    fc.property(holders, wanted, (owners, wants) => {
      const locks = owners.map((owner, i) => lock(100 + i, owner));
      const waits = wants.map((want, pid) => wait(pid, 100 + want));
      const { cycles } = waitGraph(locks, waits);
      // A task is in a circle if it comes back to itself.
      const next = (pid: number) => owners[wants[pid]!];
      const inCircle = (pid: number) => {
        let at = next(pid);
        for (let i = 0; i < 10 && at !== undefined && at !== pid; i++) at = next(at);
        return at === pid;
      };
      const found = cycles.flatMap(pids);
      assert.deepEqual(
        found.sort((a, b) => a - b),
        wants.map((_, pid) => pid).filter(inCircle),
      );
      for (const cycle of cycles) {
        for (const [i, { task: each }] of cycle.entries()) {
          assert.equal(next(each.pid), cycle[(i + 1) % cycle.length]!.task.pid);
        }
      }
    }),
  );
});
