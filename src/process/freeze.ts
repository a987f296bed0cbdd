/**
 * Stops a process and all below it, until nothing new appears: a thread that runs makes threads, a process that runs
 * makes children, so each is stopped before its own are listed, and the lists are read again after the last stop.
 */

import { readdirSync } from 'node:fs';
import { Errno } from '../abi/errno.ts';
import { PTRACE_O_SUSPEND_SECCOMP, PTRACE_O_TRACESYSGOOD } from '../abi/ptrace.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { readTaskText } from '../sys/proc.ts';
import { readStat, readStatus, type Status } from '../sys/stat.ts';
import type { Freezer } from './freezer.ts';
import { isGone } from './gone.ts';
import { inVfork } from './invfork.ts';
import { refuse32Bits } from './refused.ts';
import { setOptions, Tracee, TraceeGone } from './tracee.ts';
import { outsideVdso, vdsoOf } from './vdso.ts';

/** A process with its threads stopped; a zombie has none. */
export interface FrozenProcess {
  readonly pid: number;
  readonly ppid: number;
  readonly zombie: boolean;
  /** The leader first. */
  readonly threads: readonly Tracee[];
  readonly status: Status;
}

export class Frozen {
  /** Parents before their children. */
  readonly processes: readonly FrozenProcess[];
  /** When the first one was told to stop, by performance.now(). */
  readonly since: number;

  constructor(processes: readonly FrozenProcess[], since: number) {
    this.processes = processes;
    this.since = since;
  }

  /** Lets all go on where they were. What is gone already is passed over. */
  release(): void {
    for (const { threads } of this.processes) releaseAll(threads);
  }
}

/**
 * @param timeout in milliseconds, for each thread to stop
 * @param freezer stops all of them until each is stopped by itself
 * @throws UnsupportedError (traced by another, or does not stop), SyscallError ESRCH, EPERM; nothing is left stopped then
 */
export function freezeTree(root: number, timeout: number, freezer?: Freezer): Frozen {
  const found = new Map<number, { pid: number; ppid: number; zombie: boolean; threads: Map<number, Tracee> }>();
  /** Those that have children. No other one can get any: orphans come from below. */
  const parents = new Set<number>();
  let since = freezer === undefined ? undefined : performance.now();
  const visit = (pid: number, ppid: number): boolean => {
    if (found.has(pid)) return false;
    const process = { pid, ppid, zombie: false, threads: new Map<number, Tracee>() };
    found.set(pid, process);
    try {
      const { state, num_threads } = readStat(pid);
      since ??= performance.now();
      if (state !== 'Z') stopThreads(pid, num_threads, process.threads, timeout, freezer);
      // It may have ended before it was stopped, and be gone altogether if nobody waits for it.
      process.zombie = process.threads.size === 0 && readStat(pid).state === 'Z';
    } catch (error) {
      if (pid === root || process.threads.size > 0 || !isGone(error)) throw error;
      found.delete(pid);
      return false;
    }
    if (!process.zombie) visitChildren(pid, [...process.threads.keys()]);
    return true;
  };
  const visitChildren = (pid: number, tids: readonly number[]): boolean => {
    let grew = false;
    for (const child of childrenOf(pid, tids)) {
      parents.add(pid);
      if (visit(child, pid)) grew = true;
    }
    return grew;
  };
  try {
    freezer?.freeze(timeout);
    visit(root, 0);
    for (let grew = parents.size > 0; grew; ) {
      grew = false;
      for (const pid of parents) if (visitChildren(pid, [...found.get(pid)!.threads.keys()])) grew = true;
    }
    freezer?.thaw();
    // What is frozen does not leave the vdso.
    for (const { pid, threads } of freezer === undefined ? [] : found.values()) {
      const vdso = vdsoOf(pid);
      for (const [tid, tracee] of threads) threads.set(tid, outsideVdso(tracee, vdso, timeout));
      for (const tracee of threads.values()) suspendFilters(tracee);
    }
    return new Frozen(
      [...found.values()].map(({ pid, ppid, zombie, threads }) => ({
        pid,
        ppid,
        zombie,
        threads: [...threads.values()],
        status: threads.get(pid)?.status ?? readStatus(pid),
      })),
      since!,
    );
  } catch (error) {
    freezer?.thaw();
    for (const { threads } of found.values()) releaseAll(threads.values());
    throw error;
  }
}

/** Thread ids of a process, the leader's first: a thread may have a smaller one, when ids were used up. */
export function threadsOf(pid: number): number[] {
  const others = readdirSync(`/proc/${pid}/task`)
    .map(Number)
    .filter((tid) => tid !== pid);
  return [pid, ...others.sort((a, b) => a - b)];
}

/** Process ids below a process, in the order they were made. */
export function childrenOf(pid: number, tids: readonly number[] = threadsOf(pid)): number[] {
  return tids.flatMap((tid) =>
    (readTaskText(`/proc/${pid}/task/${tid}/children`, 'many').match(/\d+/g) ?? []).map(Number),
  );
}

/** A process and all below it, of which some may end meanwhile. */
export function treeOf(root: number): number[] {
  const below = (pid: number): number[] => {
    try {
      return [pid, ...(readStat(pid).state === 'Z' ? [] : childrenOf(pid)).flatMap(below)];
    } catch (error) {
      if (pid !== root && isGone(error)) return [];
      throw error;
    }
  };
  return below(root);
}

/**
 * Stops all threads of a process.
 *
 * @param count how many it had a moment ago
 * @param freezer none of them can go on for a moment
 */
function stopThreads(
  pid: number,
  count: number,
  threads: Map<number, Tracee>,
  timeout: number,
  freezer?: Freezer,
): void {
  const vdso = vdsoOf(pid);
  // One that waits in vfork(2) does not stop before its child has executed a program, to which that one must not be frozen.
  const thawVfork = (tid: number) => () => {
    if (freezer !== undefined && inVfork(pid, tid)) freezer.thaw();
  };
  for (let tids = count === 1 ? [pid] : threadsOf(pid); ; tids = threadsOf(pid)) {
    const fresh = tids.filter((tid) => !threads.has(tid) && attach(pid, tid));
    for (const [i, tid] of fresh.entries()) {
      try {
        const tracee = Tracee.stopped(pid, tid, timeout, thawVfork(tid));
        threads.set(tid, tracee);
        if (tracee.registers.areOf32Bits) throw refuse32Bits(pid, `thread ${tid}`);
        if (freezer === undefined) threads.set(tid, outsideVdso(tracee, vdso, timeout));
      } catch (error) {
        if (error instanceof TraceeGone) continue;
        // Those after it are attached, not stopped yet, and let go by a stop that comes.
        for (const other of fresh.slice(i)) abandon(pid, other);
        throw error;
      }
    }
    // One that runs makes others.
    if (fresh.length === 0 || readStat(pid).num_threads === threads.size) break;
  }
  if (freezer === undefined) for (const tracee of threads.values()) suspendFilters(tracee);
}

/** @returns whether the thread is there to be stopped */
function attach(pid: number, tid: number): boolean {
  try {
    Tracee.attach(tid);
    return true;
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    if (error.errno === Errno.ESRCH) return false;
    const { State, TracerPid } = readStatus(`${pid}/task/${tid}`);
    if (State === 'Z' || State === 'X') return false;
    if (TracerPid === 0) throw error;
    throw new UnsupportedError({
      what: `thread ${tid}`,
      pid,
      why: `process ${TracerPid} traces it`,
      remedy: 'end that one (gdb, strace) and try again',
    });
  }
}

/**
 * A filter on system calls would see those that we make in the process, and one thread that runs may set it for all. So it is asked
 * for when all have stopped, and suspended then and not before: a thread that runs without its filter might do what it must not.
 */
function suspendFilters({ tid, status }: Tracee): void {
  if (status.Seccomp !== 0) setOptions(tid, PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP);
}

function abandon(pid: number, tid: number): void {
  try {
    Tracee.stopped(pid, tid, 100).release();
  } catch {
    // It does not stop: the kernel lets go of it when this process ends.
  }
}

function releaseAll(threads: Iterable<Tracee>): void {
  for (const tracee of threads) {
    try {
      tracee.release();
    } catch (error) {
      if (!(error instanceof SyscallError && error.errno === Errno.ESRCH)) throw error;
    }
  }
}
