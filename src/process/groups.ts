/** Sessions and process groups made anew where it is not the parent that gives them, or their leaders are gone. */
import { PR_SET_CHILD_SUBREAPER } from '../abi/prctl.ts';
import { CLONE_PARENT } from '../abi/sched.ts';
import { NR } from '../abi/unistd.ts';
import { __WALL } from '../abi/wait.ts';
import { UnsupportedError } from '../errors.ts';
import type { ImageTask, ImageTree } from '../image/tree.ts';
import { getpgid, getsid } from '../sys/process.ts';
import { cont } from '../sys/ptrace.ts';
import { readStat, readStatus } from '../sys/stat.ts';
import { cloneOne } from './cloning.ts';
import { dropChildSignal } from './ending.ts';
import { type Hole, LEADER, type Made } from './made.ts';
import { Remote } from './remote.ts';
import { Scratch, scratchSize, slotSize } from './scratch.ts';
import { bornIn, makerOfStray } from './sessions.ts';
import { makerOf } from './sharing.ts';
import { expectEnd, Tracee } from './tracee.ts';
import { justMade } from './tree.ts';

/** A process that is there for a moment. */
class Passing {
  readonly made: Made;
  readonly #parent: Made;

  /** @param id of it, or 0 for any */
  constructor(parent: Made, id: number) {
    this.#parent = parent;
    const { address, endSignal } = parent.scratch;
    const pid = cloneOne(parent, { id, flags: 0 }, parent.pid);
    const tracee = Tracee.stoppedChild(pid, pid);
    const scratch = new Scratch(pid, address, scratchSize(slotSize(LEADER)), endSignal);
    this.made = { ...parent, pid, scratch, leader: new Remote(tracee, scratch, LEADER, 0) };
    tracee.blockSignals(endSignal);
  }

  end(): void {
    const { leader, pid, scratch } = this.made;
    leader.call(NR.exit_group, 0);
    leader.start();
    expectEnd(pid, () => cont(pid));
    scratch[Symbol.dispose]();
    // It has ended, and no other child has.
    const parent = this.#parent.leader;
    parent.call(NR.wait4, -1, 0, __WALL, 0);
    parent.run();
  }
}

/** Makes a process that its parent cannot make, when all that stand before it in the tree are there. */
export function makeStray(task: ImageTask, tree: ImageTree, hole: Hole, made: Made[]): Made {
  if (makerOf(tree.tasks, task).flags !== 0) {
    throw new UnsupportedError({
      pid: task.pid,
      what: `session ${task.sid}`,
      why: 'its parent is of another one, and it shares memory, descriptors or the like with others',
      remedy: 'restore it with CRIU',
    });
  }
  const of = (wanted: ImageTask) => made.find((each) => each.task === wanted)!;
  const parent = of(tree.tasks.find(({ pid }) => pid === task.ppid)!);
  const maker = makerOfStray(tree.tasks, task);
  const sibling = { id: task.pid, flags: CLONE_PARENT };
  let pid: number;
  if (maker?.ppid === task.ppid) pid = cloneOne(of(maker), sibling, parent.pid);
  else if (maker === undefined) {
    const passing = new Passing(parent, bornIn(tree.tasks, task)!);
    passing.made.leader.call(NR.setsid);
    passing.made.leader.run();
    pid = cloneOne(passing.made, sibling, parent.pid);
    passing.end();
  } else {
    // An orphan goes to the next above that takes such; see PR_SET_CHILD_SUBREAPER(2const).
    const passing = new Passing(of(maker), 0);
    pid = cloneOne(passing.made, { id: task.pid, flags: 0 }, passing.made.pid);
    takeOrphans(parent, true);
    passing.end();
    takeOrphans(parent, false);
  }
  const stray = justMade(task, pid, parent.inner, tree, hole);
  made.push(stray);
  dropChildSignal(parent.leader);
  return stray;
}

function takeOrphans({ leader }: Made, on: boolean): void {
  leader.call(NR.prctl, PR_SET_CHILD_SUBREAPER, on ? 1 : 0, 0, 0, 0);
  leader.run();
}

/** Process groups: leaders first, then their members. A leader that is gone is made for as long as it takes. */
export function makeGroups(made: readonly Made[]): void {
  const here = new Set(made.map(({ task }) => task.pid));
  const inTree = ({ task }: Made) => here.has(task.sid) || task.threads[0]!.core.tc!.session_left === true;
  const members = made.filter((each) => each.task.pgid !== each.task.sid && inTree(each));
  const join = ({ task, leader }: Made): void => {
    leader.call(NR.setpgid, 0, task.pgid);
    leader.run();
  };
  for (const one of members) if (one.task.pgid === one.task.pid) join(one);
  const passing = new Map<number, Passing>();
  for (const { task } of members) {
    if (here.has(task.pgid) || passing.has(task.pgid)) continue;
    const leader = new Passing(made.find((each) => each.task.sid === task.sid)!, task.pgid);
    leader.made.leader.call(NR.setpgid, 0, 0);
    leader.made.leader.run();
    passing.set(task.pgid, leader);
  }
  for (const one of members) if (one.task.pgid !== one.task.pid) join(one);
  for (const leader of passing.values()) leader.end();
  for (const one of made) if (inTree(one)) check(one);
}

/** Nothing goes on that is not where it was. */
function check({ task, pid, inner }: Made): void {
  const { ppid, pgid, sid } = task;
  const [group, session] = inner ? innerGroups(pid) : [getpgid({ pid }), getsid({ pid })];
  const parent = inner || ppid === 0 ? ppid : readStat(pid).ppid;
  if (group === pgid && session === sid && parent === ppid) return;
  throw new UnsupportedError({
    pid,
    what: `session ${sid}, process group ${pgid}, parent ${ppid}`,
    why: `it came to be of session ${session}, group ${group}, parent ${parent}`,
    remedy: 'report it, with `tideover image show`',
  });
}

function innerGroups(pid: number): [group: number, session: number] {
  const { NSpgid, NSsid } = readStatus(pid);
  return [NSpgid.at(-1)!, NSsid.at(-1)!];
}
