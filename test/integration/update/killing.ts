/**
 * killing FOLDER KILLS: two trees of programs in a folder, and updates that are killed while these stand still, one after the other at so
 * many moments. Each is taken back, now and then by an abort that is killed as well. Says in JSON how it went.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SCHED_NORMAL } from '../../../src/abi/sched.ts';
import { isGoing } from '../../../src/process/cloning.ts';
import { readRecord } from '../../../src/update/record.ts';
import { until } from '../patience.ts';

const [folder, kills] = [process.argv[2]!, Number(process.argv[3])];
/** Of which one is copied while it runs, and one has processes and threads. */
const TREES = ['large 20', 'tree 4 4'];
/** One abort of so many is killed. */
const KILLED_ABORTS = 3;

/** Each the init of a PID namespace. */
function start(command: string): ChildProcess {
  const log = openSync(logOf(command), 'w');
  const args = ['-p', '-f', 'setsid', 'sh', '-c', `"${folder}"/${command}; :`];
  const child = spawn('unshare', args, { cwd: folder, stdio: ['ignore', log, 'ignore'] });
  return child;
}

const logOf = (command: string) => join(folder, `${command.split(' ')[0]}.log`);
const said = (command: string) => readFileSync(logOf(command), 'utf8');

function field(pid: number | string, name: string): string {
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!;
}

/** Processes of a tree that have not ended, the init first; none where it does not run. */
function processesOf(command: string): number[] {
  const inits = pidsOf((pid) => /\t1$/.test(field(pid, 'NSpid')) && cmdline(pid).includes(`"${folder}"/${command};`));
  assert.ok(inits.length < 2, `${command} is there ${inits.length} times`);
  const [init] = inits;
  if (init === undefined) return [];
  const below = (pid: number): number[] => [pid, ...childrenOf(pid).flatMap(below)];
  return below(init).filter((pid) => !isGoing(pid));
}

function pidsOf(wanted: (pid: number) => boolean): number[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      return /^\d+$/.test(name) && !isGoing(Number(name)) && wanted(Number(name)) ? Number(name) : [];
    } catch {
      return [];
    }
  });
}

const cmdline = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, 'utf8');

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function goesOn(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).every((tid) => {
      const at = `${pid}/task/${tid}`;
      return field(at, 'TracerPid') === '0' && /^[SRD]/.test(field(at, 'State'));
    });
  } catch {
    return false;
  }
}

/** @returns what it says, undefined where it was killed */
function interrupted(...args: (string | number)[]) {
  const command = [join(import.meta.dirname, 'interrupted.ts'), ...args.map(String)];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, command, { encoding: 'utf8' });
  if (signal === 'SIGKILL') return undefined;
  assert.equal(status, 0, stdout + stderr);
  return JSON.parse(stdout);
}

const roots = () => TREES.map((command) => processesOf(command)[0]!);

/** Each tree is there once and whole, and all of it runs. */
async function allGoOn(when: string, counts: readonly number[]): Promise<void> {
  let there: number[][] = [];
  const isWhole = () => {
    there = TREES.map(processesOf);
    return there.every((pids, i) => pids.length === counts[i] && pids.every(goesOn));
  };
  await until(isWhole, () => `${when}: ${there.map((pids) => pids.map((pid) => `${pid} ${state(pid)}`))} of ${counts}`);
}

function state(pid: number): string {
  try {
    return `${field(pid, 'State')} traced by ${field(pid, 'TracerPid')}`;
  } catch {
    return 'gone';
  }
}

try {
  for (const command of TREES) start(command);
  for (const command of TREES) await until(() => said(command).includes('ready'), `${command} is not ready`);
  const counts = TREES.map((command) => processesOf(command).length);

  // The kernel refuses to start the next one when all have been ended.
  const refused = interrupted('update', 0, ...roots());
  assert.match(refused.error, /^reboot\(.*EBUSY/);
  assert.equal(refused.state, 'failed');
  // A copy to a disk is long, and needs others.
  assert.equal(refused.policy, SCHED_NORMAL);
  assert.match(refused.undone.join('\n'), /^restored here: pid-\d+, pid-\d+$/m);
  await allGoOn('the start of the next kernel was refused', counts);

  const outcomes: Record<string, number> = {};
  let aborts = 0;
  let last = 0;
  for (let round = 0; round < kills; round++) {
    const moment = 1 + Math.floor((round * (refused.calls - 1)) / Math.max(kills - 1, 1));
    const when = `killed at call ${moment} of ${refused.calls}`;
    const before = roots();
    // One that makes fewer calls than the first is not killed, and was taken back by itself.
    if (interrupted('update', moment, ...before) !== undefined) continue;
    const left = readRecord()!.state;
    if (round % KILLED_ABORTS === 1 && last > 0) {
      // In the middle, or when there is next to nothing left to do.
      const at = round % (2 * KILLED_ABORTS) === 1 ? last - 4 : last >> 1;
      if (interrupted('abort', at) === undefined) aborts++;
    }
    const { state, waiting, memory, undone, calls } = interrupted('abort', 0);
    if (undone.length > 0) last = calls;
    assert.deepEqual([state, waiting, memory], ['failed', [], null], `${when}: ${undone}`);
    await allGoOn(when, counts);
    const restored = roots().filter((pid, i) => pid !== before[i]).length;
    const outcome = `${left}, ${restored} restored`;
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }

  for (const command of TREES) process.kill(processesOf(command)[1]!, 'SIGTERM');
  for (const command of TREES) await until(() => /ok\n|faults\n/.test(said(command)), `${command} does not end`);
  console.log(JSON.stringify({ calls: refused.calls, outcomes, aborts, said: TREES.map(said) }));
} finally {
  for (const command of TREES) for (const pid of processesOf(command).slice(0, 1)) process.kill(pid, 'SIGKILL');
}
