/**
 * Whose turn it is to make a tree go on, and what it has gone on from: never twice from one checkpoint.
 *
 *     /run/tideover/turns/NAME     locked by who restores the tree, or starts it; its content names the checkpoints that it has
 *                                  gone on from
 *
 *     restore: ready, stopped | guard  note written  they go on  guard ends | checkpoints removed
 *     killed here: -> found   |        none of them goes on, the note is   | -> found no more: the next one to look
 *                             |        emptied by the guard; -> found      |    removes them
 *
 * The guard has the lock too, so whoever waits for the lock reads a note that is final. It lies in /run, as the processes that it
 * speaks of end with this kernel as well.
 *
 * Where memory comes later (later.ts) who brings it has the lock until all of it is there, and the tree must not be restored meanwhile.
 * A second line of the note says how that ended: `brought`, or why the tree was killed. Then the checkpoint stays, for a person
 * to decide.
 */
import { closeSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Errno } from '../abi/errno.ts';
import { LOCK_EX, LOCK_NB } from '../abi/fcntl.ts';
import { fileName, images } from '../image/types.ts';
import { isGone } from '../process/gone.ts';
import type { GoingNote } from '../process/guard.ts';
import { flock } from '../sys/files.ts';
import { bootId } from '../sys/machine.ts';
import { readStat } from '../sys/stat.ts';
import { isAbsent, openMedium, type Place } from './medium.ts';
import { readRecord, type UpdateState } from './record.ts';
import { removeWithRounds } from './rounds.ts';
import { dropSpilled } from './spill.ts';
import { spillOf } from './workload.ts';

const TURNS = '/run/tideover/turns';

/** A tree, and where its checkpoints would be; the one on a disk by its name. */
export interface Kept {
  readonly name: string;
  readonly node: string;
  readonly place: Place | undefined;
}

interface Note {
  /** Of the root. */
  readonly pid: number;
  readonly starttime: number;
  readonly from: readonly string[];
  /** Its memory comes when it goes on already. */
  readonly later: boolean;
  /** How that ended. */
  readonly end?: string | undefined;
}

export interface Turn extends Disposable {
  /** For restore(): from when it is written all checkpoints of the tree are spent. */
  readonly note: GoingNote;
  /** The same where memory comes later. */
  readonly noteOfLater: GoingNote;
  /** Why the tree was killed when it had gone on, and its memory was not there yet. */
  readonly killed: string | undefined;
}

/** The second line of a note, where all memory is there. */
export const BROUGHT = 'brought\n';

/** Waits until nobody else makes the tree go on, and removes what it has gone on from already. To be closed with `using`. */
export function takeTurn(tree: Kept): Turn {
  mkdirSync(TURNS, { recursive: true, mode: 0o700 });
  const fd = openSync(noteFile(tree.name), 'a+', 0o600);
  try {
    flock({ fd, operation: LOCK_EX });
    const killed = whyKilled(tree);
    if (killed === undefined) removeSpent(tree);
    const textOf = (later: boolean) => (pid: number) => {
      const { starttime } = readStat(pid);
      return `${JSON.stringify({ pid, starttime, from: Object.values(checkpointsOf(tree)), later } satisfies Note)}\n`;
    };
    return {
      note: { fd, text: textOf(false) },
      noteOfLater: { fd, text: textOf(true) },
      killed,
      [Symbol.dispose]: () => closeSync(fd),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Whether a tree has gone on from a checkpoint that was found, which is removed then. */
export function isSpent(tree: Kept): boolean {
  // As long as none has gone on, nothing is looked at: to open preserved memory takes its time.
  if (readNote(tree.name) === undefined) return false;
  // Who brought its memory may have removed it since it was found.
  if (Object.keys(checkpointsOf(tree)).length === 0) return true;
  if (spentOf(tree).length === 0) return false;
  if (isBeingBrought(tree.name)) return true;
  // Decided as soon as the lock is free.
  using _ = takeTurn(tree);
  return Object.keys(checkpointsOf(tree)).length === 0;
}

/** Whether a tree goes on, and somebody brings its memory. */
export function isBeingBrought(name: string): boolean {
  const note = readNote(name);
  return note?.later === true && note.end === undefined && isLocked(noteFile(name));
}

function isLocked(file: string): boolean {
  const fd = openSync(file, 'r');
  try {
    return flock.attempt({ fd, operation: LOCK_EX | LOCK_NB }) === -Errno.EAGAIN;
  } finally {
    closeSync(fd);
  }
}

/** Waits until nobody makes a tree go on, or brings its memory. */
export function untilDone(name: string): void {
  let fd: number;
  try {
    fd = openSync(noteFile(name), 'r');
  } catch (error) {
    if (isGone(error)) return;
    throw error;
  }
  try {
    flock({ fd, operation: LOCK_EX });
  } finally {
    closeSync(fd);
  }
}

/** Of a tree that nobody brings memory to any more. */
function whyKilled(tree: Kept): string | undefined {
  const before = Object.keys(checkpointsOf(tree)).length > 0 ? wentOnBefore(tree.name) : undefined;
  if (before !== undefined) return before;
  const note = readNote(tree.name);
  if (note === undefined || !note.later || spentOf(tree).length === 0 || `${note.end}\n` === BROUGHT) return undefined;
  if (note.end !== undefined) return note.end;
  // Who brought it ends the tree as well, unless all is there.
  return isRunning(note) ? undefined : 'it ended before all of its memory was there';
}

/** Why a tree is not to be restored by itself: a kernel before this one had done so, and died. */
export function wentOnBefore(name: string): string | undefined {
  const record = readRecord();
  if (record === undefined || !RESTORING.includes(record.state)) return undefined;
  const { restoredIn } = record.trees.find((tree) => tree.name === name) ?? {};
  if (restoredIn === undefined || restoredIn === bootId()) return undefined;
  return 'it had gone on already, in a kernel that died before all of its memory was there';
}

const RESTORING: readonly UpdateState[] = ['restoring', 'incomplete'];

function isRunning({ pid, starttime }: Note): boolean {
  try {
    const now = readStat(pid);
    return now.starttime === starttime && now.state !== 'Z';
  } catch {
    return false;
  }
}

/** The process that a tree of this name has gone on as in this kernel, be it there still or not; undefined where none has. */
export function wentOnAs(name: string): number | undefined {
  return readNote(name)?.pid;
}

/** Why a tree was killed to which memory was brought; undefined where nobody could say. */
export function whyNotBrought(name: string): string | undefined {
  return readNote(name)?.end;
}

const noteFile = (name: string) => join(TURNS, name);

function readNote(name: string): Note | undefined {
  try {
    const [going, end] = readFileSync(noteFile(name), 'utf8').split('\n');
    // What is said of its end alone is of a tree that has not gone on.
    return going?.startsWith('{') ? { ...JSON.parse(going), end: end === '' ? undefined : end } : undefined;
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

type Where = 'node' | 'copy';

/** What is there, by what tells it from another one that is at the same place later. */
function checkpointsOf({ name, node, place }: Kept): Partial<Record<Where, string>> {
  const found = nodeAt(place, node);
  const file = statSync(join(spillOf(name), fileName(images.INVENTORY)), { bigint: true, throwIfNoEntry: false });
  return {
    ...(found !== undefined && { node: found }),
    ...(file !== undefined && { copy: `${file.dev} ${file.ino} ${file.mtimeNs}` }),
  };
}

function nodeAt(place: Place | undefined, node: string): string | undefined {
  if (place === undefined) return undefined;
  try {
    using pkram = openMedium(place, { readOnly: true });
    const found = pkram.nodes().find(({ name }) => name === node);
    return found && `${pkram.status().uuid} ${found.id} ${found.created?.getTime()}`;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

function spentOf(tree: Kept): Where[] {
  const note = readNote(tree.name);
  if (note === undefined) return [];
  const there = Object.entries(checkpointsOf(tree)) as [Where, string][];
  return there.flatMap(([where, which]) => (note.from.includes(which) ? [where] : []));
}

function removeSpent(tree: Kept): void {
  const spent = spentOf(tree);
  if (spent.includes('node')) {
    using pkram = openMedium(tree.place, {});
    removeWithRounds(pkram, tree.node);
  }
  if (spent.includes('copy')) dropSpilled(tree.name);
}
