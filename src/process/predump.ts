/**
 * Writes the memory of a process and all below it while they run, for a checkpoint that has then only what they have written since.
 *
 *     look -> stop -> get hold of each address space -> let go -> have it told from now on what is written -> write
 *
 * A page that is written while it is read here may be torn, and is in the next image then.
 */
import type { VmaEntry } from '../image/pages.ts';
import type { ImageDraft, ImageStore } from '../image/store.ts';
import { readStat } from '../sys/stat.ts';
import { clocksOf } from './clocks.ts';
import { freezeTree, treeOf } from './freeze.ts';
import { isGone } from './gone.ts';
import { refuseOneself } from './look.ts';
import { writePagemap, writeRunning } from './memory.ts';
import { saveVmas } from './mm.ts';
import { Namespaces } from './namespaces.ts';
import { findPages } from './pages.ts';
import { common, NO_RUNS, type Runs, without } from './runs.ts';
import { Saving } from './saving.ts';
import { enterAll, Guest, isVdso, leaveAll, SharedObjects } from './task.ts';
import { Tracking } from './tracking.ts';
import { afterVfork } from './vfork.ts';
import { writeInventory, writeStatistics } from './write.ts';

export interface PreDumpOptions {
  /** Root of the tree. */
  readonly pid: number;
  /** For each thread to stop, in milliseconds. */
  readonly timeout: number;
  /** The pre-dump before this one. */
  readonly parent?: ImageStore | undefined;
}

/** Sizes in bytes, times in milliseconds. */
export interface PreDumpResult {
  readonly processes: number;
  readonly memory: number;
  /** What stands in the pre-dump before this one. */
  readonly unchanged: number;
  /** Whether nobody has watched what was written since that one. */
  readonly unwatched: boolean;
  readonly frozen: number;
}

/**
 * @param draft gets the image and is committed; it is aborted when something fails
 * @throws UnsupportedError (the kernel does not tell what is written), SyscallError; the processes go on
 */
export function preDump({ pid, timeout, parent }: PreDumpOptions, draft: ImageDraft): PreDumpResult {
  let tracking: Tracking | undefined;
  try {
    refuseOneself(pid);
    afterVfork(() => treeOf(pid), timeout);
    tracking = new Tracking(treeOf(pid), { parent, goOn: true });
    const clocks = clocksOf(pid);
    const namespaces = new Namespaces(pid);
    const { spaces, ids, processes, freezing, frozen } = enter(pid, timeout, tracking, namespaces);
    const before = spaces.map(({ pid, vmas }) => ifThere(NO_RUNS, () => tracking!.restart(pid, vmas)));
    const barrier = passBarrier(pid, timeout);
    writeInventory(draft, clocks);
    const memory = spaces.map(({ pid, name, vmas }, i) => {
      const all = ifThere(NO_RUNS, () => findPages(pid, vmas).pages);
      const unchanged = common(before[i]!, all);
      const planned = without(all, unchanged);
      const first = draft.sendsMemory === true;
      if (first) writePagemap(draft, { name, runs: planned, unchanged }, i + 1);
      const runs = first
        ? writeRunning(draft, pid, planned, i + 1, true)
        : ifThere(NO_RUNS, () => writeRunning(draft, pid, planned, i + 1, false));
      if (!first) writePagemap(draft, { name, runs, unchanged }, i + 1);
      return { name, runs, unchanged };
    });
    tracking.write(draft, (pid) => ids.inside(pid), memory);
    writeStatistics(draft, memory, { freezing, frozen: frozen + barrier });
    draft.commit();
    tracking.committed();
    const sum = (of: (each: (typeof memory)[number]) => Runs) => memory.reduce((all, each) => all + of(each).size, 0);
    return {
      processes,
      memory: sum(({ runs }) => runs),
      unchanged: sum(({ unchanged }) => unchanged),
      unwatched: tracking.isLost,
      frozen: frozen + barrier,
    };
  } catch (error) {
    draft.abort();
    throw error;
  } finally {
    tracking?.[Symbol.dispose]();
  }
}

/** Gets hold of all address spaces of a tree, for which it stands still. */
function enter(root: number, timeout: number, tracking: Tracking, namespaces: Namespaces) {
  const saving = new Saving({ ghostLimit: 0, fileLocks: true, shellJob: true, tracking }, namespaces, false);
  const look = (pid: number) => ({ of: readStat(pid), vmas: saveVmas(pid, saving, false) });
  const looked = new Map(treeOf(root).map((pid) => [pid, ifThere(undefined, () => look(pid))]));
  /** As they were a moment ago, unless it is another program now: one that was made or executed since. */
  const vmasOf = (pid: number): readonly VmaEntry[] => {
    const [before, { starttime, startstack }] = [looked.get(pid), readStat(pid)];
    const isSame = before?.of.starttime === starttime && before.of.startstack === startstack;
    return isSame ? before.vmas : saveVmas(pid, saving, false);
  };
  const mapped = new Map<number, readonly VmaEntry[]>();
  const objects = new SharedObjects(namespaces);
  const guests: Guest[] = [];
  const frozen = freezeTree(root, timeout);
  const { since: started } = frozen;
  const freezing = performance.now() - started;
  try {
    const seen = new Set<number>();
    for (const process of frozen.processes) {
      const space = process.zombie ? undefined : objects.of(process.pid).vm_id;
      if (space === undefined || seen.has(space)) continue;
      seen.add(space);
      const vmas = vmasOf(process.pid);
      mapped.set(process.pid, vmas);
      guests.push(new Guest(process, vmas.find(isVdso)));
    }
    enterAll(guests);
    for (const { process, remotes } of guests) tracking.enter(remotes[0]!, mapped.get(process.pid)!);
    leaveAll(guests);
    const spaces = guests.map(({ process: { pid } }) => ({
      pid,
      name: saving.ids.inside(pid),
      vmas: mapped.get(pid)!,
    }));
    return {
      spaces,
      ids: saving.ids,
      processes: frozen.processes.length,
      freezing,
      frozen: performance.now() - started,
    };
  } finally {
    for (const guest of guests) {
      guest.settle();
      leaveAll([guest]);
      guest[Symbol.dispose]();
    }
    frozen.release();
    saving[Symbol.dispose]();
  }
}

/**
 * Stops all for a moment: what the kernel was writing into memory for them, past the protection of its pages (a read(2) with
 * O_DIRECT), is done then.
 *
 * @returns how long that took, in milliseconds
 */
function passBarrier(root: number, timeout: number): number {
  const started = performance.now();
  freezeTree(root, timeout).release();
  return performance.now() - started;
}

/** Processes may end meanwhile. */
function ifThere<T>(otherwise: T, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (isGone(error)) return otherwise;
    throw error;
  }
}
