/**
 * update MOMENT PID...: an update of these trees up to where the next kernel would start, which this machine refuses. Killed before the
 *   system call of that number since the first tree stands still; 0: not at all. Says in JSON how many there are, and by which
 *   scheduling policy it does what it does when all of them stand still.
 * abort MOMENT: takes back what is left of it; killed before the system call of that number. Says in JSON what was undone, and how many
 *   there are.
 *
 * In preserved memory of this machine, which is to be seen in a mount namespace of its own alone. There need be no kexec.
 */
import { readFileSync } from 'node:fs';
import { Errno } from '../../../src/abi/errno.ts';
import { NR } from '../../../src/abi/unistd.ts';
import { abort } from '../../../src/update/abort.ts';
import { findMemory } from '../../../src/update/medium.ts';
import type { Plan } from '../../../src/update/plan.ts';
import { preservedFor } from '../../../src/update/preserved.ts';
import { readRecord } from '../../../src/update/record.ts';
import { examineTree, treeOfPid, waitingTrees } from '../../../src/update/trees.ts';
import { update } from '../../../src/update/update.ts';
import { beforeEachCall, Countdown } from '../../moments.ts';

const [what, moment, ...pids] = process.argv.slice(2) as [string, string, ...string[]];
const countdown = new Countdown(Number(moment));
let standStill = what === 'abort';
let begun = standStill;

beforeEachCall((nr) => {
  if (begun) standStill ||= /\) t /.test(readFileSync(`/proc/${pids[0]}/stat`, 'latin1'));
  if (standStill) countdown.tick();
  // What is loaded is of no account here: nothing of it is ever started.
  if (nr === NR.kexec_load) return 0;
  // Nothing of this is on a disk, and what others write to theirs may take a minute.
  if (nr === NR.sync) return 0;
  return nr === NR.reboot ? -Errno.EBUSY : undefined;
});

/** As NextKernel is, but for the kernel. */
const next = {
  load: remember,
  settle: remember,
  unload: () => false,
} as unknown as Plan['next'];

function remember(): void {
  preservedFor('reserved', { release: 'this', commandLine: '' }).remember();
}

if (what === 'abort') {
  const undone = await abort(false);
  const { state } = readRecord()!;
  const calls = countdown.count;
  console.log(JSON.stringify({ undone, state, waiting: waitingTrees(), memory: findMemory() ?? null, calls }));
} else {
  const trees = pids.map((pid) => treeOfPid(Number(pid))).map((tree) => ({ ...tree, memory: examineTree(tree) }));
  const memory = trees.reduce((sum, tree) => sum + tree.memory, 64 << 20);
  const record = { state: 'planned', bootId: '', from: 'this', to: 'this', trees, steps: [] } as const;
  const plan: Plan = { next, record, memory, room: { needed: 0, free: 0 }, warnings: [], guarded: false };
  let policy: number | undefined;
  const step = (name: string) => {
    begun ||= name === 'freeze';
    if (name === 'settle') policy = policyNow();
  };
  try {
    await update(plan, { step, standStill: () => ({ [Symbol.dispose]() {} }) });
  } catch (error) {
    const { state, undone } = readRecord()!;
    console.log(JSON.stringify({ error: (error as Error).message, state, undone, policy, calls: countdown.count }));
  }
}

/** Of this thread: proc_pid_stat(5). */
function policyNow(): number {
  const [, fields] = readFileSync('/proc/thread-self/stat', 'latin1').split(') ');
  return Number(fields!.split(' ')[41 - 3]);
}
