/** Having a process make children and threads with the ids that they had. */
import { opendirSync } from 'node:fs';
import { Errno } from '../abi/errno.ts';
import { CLONE_PTRACE, clone_args } from '../abi/sched.ts';
import { SIGKILL } from '../abi/signal.ts';
import { NR } from '../abi/unistd.ts';
import { type SyscallError, UnsupportedError } from '../errors.ts';
import { sleep } from '../sys/process.ts';
import { readStat, readStatus } from '../sys/stat.ts';
import { childrenOf } from './freeze.ts';
import type { Made } from './made.ts';
import type { Remote } from './remote.ts';

/** What clone3(2) is to make: a child or thread. */
interface Wanted {
  /** 0 for any. */
  readonly id: number;
  readonly flags: number;
  readonly exit_signal: number;
}

/** How many in one batch. */
const CLONES = 200;

/**
 * Has a process make children or threads, many at a time.
 *
 * @param outer gives the ids here of those that were just made, by their ids in the innermost PID namespace
 * @param taken is told the place of each that is there, and its id here; also when others could not be made
 * @throws UnsupportedError (an id is taken), SyscallError
 */
export function cloneAll(
  made: Made,
  wanted: readonly Wanted[],
  outer: (ids: readonly number[]) => readonly number[],
  taken: (place: number, id: number) => void,
): void {
  const { leader, inner } = made;
  for (let first = 0; first < wanted.length; first += CLONES) {
    const part = wanted.slice(first, first + CLONES);
    leader.run();
    const indexes = part.map((each) => addClone(leader, each));
    leader.run();
    const results = indexes.map((index) => leader.result(index));
    const failed = results.flatMap((result, i) =>
      result > 0 ? [] : [{ i, error: leader.error(indexes[i]!, result) }],
    );
    const places = results.flatMap((result, i) => (result > 0 ? [i] : []));
    const ids = places.map((i) => results[i]!);
    const here = inner && ids.length > 0 ? outer(ids) : ids;
    for (const [i, place] of places.entries()) taken(first + place, here[i]!);
    for (const { i, error } of failed) {
      const { id } = part[i]!;
      if (error.errno !== Errno.EEXIST || inner || !mayGo(id, ATTEMPTS)) throw notMade(error, id);
      cloneAs(leader, part[i]!);
      taken(first + i, id);
    }
  }
}

/**
 * Has a process make one.
 *
 * @param parent whose child it will be, with its id here
 * @returns its id here
 */
export function cloneOne(made: Made, wanted: Omit<Wanted, 'exit_signal'>, parent: number): number {
  let pid = 0;
  const all = [{ ...wanted, flags: wanted.flags | CLONE_PTRACE, exit_signal: 0 }];
  cloneAll(
    made,
    all,
    (ids) => childrenByInnerId(parent, ids),
    (_, id) => {
      pid = id;
    },
  );
  return pid;
}

/** Children of a process by their ids in the innermost of their PID namespaces. */
export function childrenByInnerId(parent: number, ids: readonly number[]): number[] {
  const all = childrenOf(parent, [parent]);
  const inner = new Map(all.map((id) => [readStatus(id).NSpid.at(-1)!, id]));
  return ids.map((id) => inner.get(id)!);
}

/**
 * The threads of a process that were made last, in that order, which is the one in which the kernel lists them: copy_process() of
 * kernel/fork.c. readdir() of Node would sort them as text, 10000 before 9999.
 *
 * @param count at least 1
 */
export function newestThreads(pid: number, count: number): number[] {
  const tids: number[] = [];
  const folder = opendirSync(`/proc/${pid}/task`, { bufferSize: LISTED });
  try {
    for (let entry = folder.readSync(); entry !== null; entry = folder.readSync()) tids.push(Number(entry.name));
  } finally {
    folder.closeSync();
  }
  return tids.slice(-count);
}

/** At a time. */
const LISTED = 1024;

/** Adds the call. */
function addClone(remote: Remote, { id, flags, exit_signal }: Wanted): number {
  const ids = new Uint8Array(4);
  new DataView(ids.buffer).setInt32(0, id, true);
  const set = id === 0 ? {} : { set_tid: remote.put(ids), set_tid_size: 1 };
  const args = clone_args.write({ flags, exit_signal, ...set });
  return remote.attempt(NR.clone3, remote.put(args), args.length);
}

/** Of a tree one is killed after the other, and all by somebody who has killed the root: that takes no two seconds. */
function mayGo(id: number, left: number): boolean {
  return isGoing(id) || (ATTEMPTS - left < WHILE_KILLED && mayBeSaved(id));
}

const WHILE_KILLED = 10_000;

/** Waits for an id that is about to become free. */
function cloneAs(remote: Remote, wanted: Wanted): void {
  const { id } = wanted;
  for (let left = ATTEMPTS; ; left--) {
    const index = addClone(remote, wanted);
    remote.run();
    const result = remote.result(index);
    if (result === id) return;
    if (result !== -Errno.EEXIST || left === 0 || !mayGo(id, left)) throw notMade(remote.error(index, result), id);
    waitForId(left);
  }
}

/** Whether what has an id may be what the image is of: that stands still until all of it is written, and is killed then. */
export function mayBeSaved(id: number): boolean {
  try {
    return readStat(id).state === 't';
  } catch {
    // It is gone.
    return true;
  }
}

/** Whether an id will be free in a moment: what has it has ended, or is about to, which on a busy machine it gets to late. */
export function isGoing(id: number): boolean {
  try {
    const { state, flags } = readStat(id);
    if ('ZX'.includes(state) || (flags & PF_EXITING) !== 0) return true;
    const { SigPnd, ShdPnd } = readStatus(id);
    return ((SigPnd | ShdPnd) & (1n << BigInt(SIGKILL - 1))) !== 0n;
  } catch {
    return true;
  }
}

/** include/linux/sched.h */
const PF_EXITING = 4;

/**
 * An id is taken until somebody has waited for the process that had it. What has just been killed goes in a moment, but with an
 * orphan that is a matter of init, and some look only every few seconds.
 */
export const ATTEMPTS = 100_000;

/** Before the next attempt. @param left how many there are */
export function waitForId(left: number): void {
  sleep(ATTEMPTS - left < SOON ? MOMENT : WAIT);
}

/** What is just ending is gone after so many moments at most. In ns. */
const SOON = 200;
const [MOMENT, WAIT] = [20_000, 200_000];

export function notMade(error: SyscallError, id: number): Error {
  if (error.errno !== Errno.EEXIST) return error;
  return new UnsupportedError({
    what: `process id ${id}`,
    why: 'another process or thread has it',
    remedy: `end that one (ps -L -p ${id}; a zombie goes when its parent waits for it), or restore in a new pid namespace`,
  });
}
