/**
 * Processes are looked at while they run: what cannot be saved is said then, and the code that saves is warm when they stand still.
 */
import { UnsupportedError } from '../errors.ts';
import { readForks, readStat, readStatus } from '../sys/stat.ts';
import { cgroupsOf } from './cgroups.ts';
import { checkPidfds } from './files/pidfd.ts';
import { FileTables } from './files/table.ts';
import type { Foresight } from './foresight.ts';
import { threadsOf, treeOf } from './freeze.ts';
import { isGone } from './gone.ts';
import { saveIpc } from './ipc.ts';
import type { Memory } from './memory.ts';
import { Namespaces } from './namespaces.ts';
import { saveNetwork } from './network.ts';
import { refuseLeaderless, refuseRunning } from './refused.ts';
import { Saving } from './saving.ts';
import { checkSessions, hasLeader } from './sessions.ts';
import { checkSharing, type Member } from './sharing.ts';
import type { CheckpointOptions, SavingOptions } from './stopped.ts';
import { finishSysv } from './sysv.ts';
import { SharedObjects, saveOutside } from './task.ts';
import { Tracking } from './tracking.ts';
import { afterVfork } from './vfork.ts';
import { type AddressSpace, memoryOf } from './write.ts';

/**
 * What a checkpoint of a tree would have, and whether it can be made at this moment. Nothing is stopped or changed.
 *
 * @returns bytes of memory, more or less
 * @throws UnsupportedError (something cannot be saved)
 */
export function examine(options: CheckpointOptions): number {
  const { pid, parent } = options;
  const tracking = parent === undefined ? undefined : new Tracking(treeOf(pid), { parent, goOn: false });
  try {
    return lookAt({ ...options, tracking }, undefined).reduce((sum, { runs }) => sum + runs.size, 0);
  } finally {
    tracking?.[Symbol.dispose]();
  }
}

/**
 * Everything but stopping and writing. Processes that are made meanwhile are not seen, and what they share with the others looks as
 * if somebody outside had it: such a refusal counts only if none was made.
 *
 * @returns the memory that the image will have, more or less
 */
export function lookAt(options: SavingOptions, foresight: Foresight | undefined): Memory[] {
  for (let left = LOOKS; ; left--) {
    const before = readForks();
    const isWhole = () => readForks() === before;
    try {
      return lookOnce(options, foresight, isWhole);
    } catch (error) {
      if (!(error instanceof UnsupportedError) || left === 1 || isWhole()) throw error;
    }
  }
}

const LOOKS = 5;

/** @param isWhole whether no process was made meanwhile */
function lookOnce(options: SavingOptions, foresight: Foresight | undefined, isWhole: () => boolean): Memory[] {
  refuseOneself(options.pid);
  afterVfork(() => treeOf(options.pid), options.timeout);
  const root = readStat(options.pid);
  if (root.state === 'Z') {
    refuseLeaderless(options.pid);
    throw hasEnded(options.pid, root.ppid);
  }
  const namespaces = new Namespaces(options.pid);
  const saving = new Saving(options, namespaces, false);
  saving.foresight = foresight;
  const tables = new FileTables(saving);
  const objects = new SharedObjects(namespaces);
  const members: Member[] = [];
  const spaces: AddressSpace[] = [];
  try {
    const pids = new Set(treeOf(options.pid));
    for (const pid of pids) {
      try {
        const status = readStatus(pid);
        if (status.State === 'Z') {
          refuseLeaderless(pid);
          continue;
        }
        namespaces.check(pid);
        options.groups?.of(new Set(cgroupsOf(pid)));
        for (const tid of threadsOf(pid).slice(1)) namespaces.check(`${pid}/task/${tid}`);
        namespaces.within(() => refuseRunning(pid, pids));
        refuseSession(pid, pids, options);
        const { ids, vmas, pages, unchanged } = namespaces.within(() =>
          saveOutside({ pid, umask: status.Umask }, saving, tables, objects),
        );
        members.push({ pid, ppid: status.PPid, sid: readStat(pid).session, ids, isZombie: false });
        spaces.push({ host: pid, pid, ids, zombie: false, vmas, pages, unchanged });
      } catch (error) {
        // It ended, or closed something, while it was looked at.
        if (!isGone(error)) throw error;
        if (pid === options.pid) readStat(pid);
      }
    }
    namespaces.within(() => {
      tables.finish(pids);
      if (namespaces.has('net')) saveNetwork();
      if (namespaces.has('ipc')) saving.ipc = saveIpc(saving);
      finishSysv(saving, pids, isWhole());
    });
    checkPidfds(saving, pids);
    checkSharing(members);
    checkSessions(members);
    return memoryOf(spaces, saving);
  } finally {
    tables[Symbol.dispose]();
    saving[Symbol.dispose]();
  }
}

export function refuseOneself(pid: number): void {
  for (let at = process.pid; at > 0; at = readStat(at).ppid) {
    if (at !== pid) continue;
    throw new UnsupportedError({
      what: 'process tree',
      pid,
      why: 'tideover itself runs in it',
      remedy: 'run tideover from outside of the tree',
    });
  }
}

function hasEnded(pid: number, parent: number): UnsupportedError {
  return new UnsupportedError({
    what: 'process tree',
    pid,
    why: 'its root has ended and only waits for its parent to see that',
    remedy: `save the tree of its parent: -t ${parent}`,
  });
}

function refuseSession(pid: number, tree: ReadonlySet<number>, options: CheckpointOptions): void {
  if (options.shellJob) return;
  const { session } = readStat(pid);
  if (tree.has(session) || !hasLeader(session)) return;
  throw new UnsupportedError({
    what: `session ${session}`,
    pid,
    why: 'its leader is not in the tree',
    remedy: 'give --shell-job, here and at the restore, or start the program with setsid',
  });
}
