/** Tasks and kernel stacks of a dump against what the kernel said of itself a moment before (lab/guest/truth). */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Kernel } from '../../src/crash/kernel/kernel.ts';
import { placeText } from '../../src/crash/kernel/symbols.ts';
import type { Task } from '../../src/crash/kernel/tasks.ts';

/** What is there only while the kernel is asked, and workers, which come and go. */
export const passing = /^(?:busybox|sh|cat|grep|tr|readlink|dmesg|uname|mkdir|kworker\/.*)$/;

interface Stat {
  readonly pid: number;
  readonly comm: string;
  readonly state: string;
  readonly ppid: number;
  readonly tgid: number;
}

/** PATH:LINE of the truth, by PATH's pid and tid. */
function truthLines(folder: string, name: string): [pid: number, tid: number, line: string][] {
  const text = readFileSync(join(folder, name), 'utf8');
  return [...text.matchAll(/^\/proc\/(\d+)\/task\/(\d+)\/\w+:(.*)$/gm)].map(([, pid, tid, line]) => {
    return [Number(pid), Number(tid), line!];
  });
}

function stats(folder: string): Map<number, Stat> {
  return new Map(
    truthLines(folder, 'stat').map(([tgid, pid, line]) => {
      const [, comm, state, ppid] = /^\d+ \((.*)\) (\S) (\d+)/.exec(line)!;
      return [pid, { pid, comm: comm!, state: state!, ppid: Number(ppid), tgid }];
    }),
  );
}

/**
 * @param folder of the truth
 * @param states that tasks were in at least
 * @param since names of tasks that were started after it
 */
export function compareTasks(
  kernel: Kernel,
  folder: string,
  states: readonly string[],
  since: readonly string[] = [],
): void {
  const truth = stats(folder);
  const switches = switchesThen(folder);
  const found = new Map(kernel.tasks.map((task) => [task.pid, task]));
  for (const { pid, comm, ppid, tgid, state } of truth.values()) {
    if (passing.test(comm) && !found.has(pid)) continue;
    const task = found.get(pid);
    assert.ok(task !== undefined, `${pid} ${comm} is not in the dump`);
    if (passing.test(comm)) continue;
    // Before 6.9 a rescuer's name is cut where its task_struct cuts it.
    const name = task.comm.length > comm.length ? task.comm.slice(0, 15) : task.comm;
    assert.deepEqual([name, task.ppid, task.tgid], [comm, ppid, tgid]);
    const isAsThen = task.pid !== task.tgid || switches.get(task.pid) === switchesOf(kernel, task);
    if (state !== 'R' && !task.running && isAsThen) assert.equal(task.state, state, `${pid} ${comm}`);
  }
  for (const { pid, comm } of kernel.tasks) {
    assert.ok(
      pid === 0 || truth.has(pid) || passing.test(comm) || since.includes(comm),
      `${pid} ${comm} was not there`,
    );
  }
  for (const state of states) assert.ok([...truth.values()].some((each) => each.state === state));
}

/** @param path for messages */
export function compareStacks(kernel: Kernel, folder: string, path: string): void {
  const truth = new Map<number, string[]>();
  for (const [, tid, line] of truthLines(folder, 'stack')) {
    truth.set(tid, [...(truth.get(tid) ?? []), line.replace(/^\[<0>\] /, '')]);
  }
  const switches = switchesThen(folder);
  let compared = 0;
  for (const task of kernel.tasks) {
    const stack = kernel.stack(task);
    assert.notEqual(stack.end, 'unknown', `${path}: ${task.pid} ${task.comm}: ${stack.why}`);
    const expected = truth.get(task.pid);
    // What has run since then may stand elsewhere.
    if (expected === undefined || switches.get(task.pid) !== switchesOf(kernel, task)) continue;
    assert.deepEqual(frames(kernel, task), expected, `${path}: ${task.pid} ${task.comm}`);
    compared++;
  }
  assert.ok(compared > 30, `${compared} stacks`);
}

/** How often each process had given its CPU away. */
function switchesThen(folder: string): Map<number, number> {
  const found = new Map<number, number>();
  const text = readFileSync(join(folder, 'status'), 'utf8');
  for (const [, pid, count] of text.matchAll(/^\/proc\/(\d+)\/status:(?:non)?voluntary_ctxt_switches:\s*(\d+)$/gm)) {
    found.set(Number(pid), (found.get(Number(pid)) ?? 0) + Number(count));
  }
  return found;
}

function switchesOf({ memory, types }: Kernel, { address }: Task): number {
  const field = (name: string) => memory.long(address + types.offset('task_struct', name));
  return field('nvcsw') + field('nivcsw');
}

/** As /proc/PID/stack has it: without functions of the scheduler (stack_trace_consume_entry_nosched()). */
function frames(kernel: Kernel, task: Task): string[] {
  const [start, end] = ['__sched_text_start', '__sched_text_end'].map((name) => kernel.symbols.find(name)!);
  return kernel
    .stack(task)
    .frames.filter(({ pc }) => pc < start! || pc >= end!)
    .map(({ pc }) => {
      const place = kernel.symbols.lookup(pc - 1n)!;
      return placeText({ ...place, offset: place.offset + 1 });
    });
}
