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
 */
import { closeSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { LOCK_EX } from '../abi/fcntl.ts';
import { fileName, images } from '../image/types.ts';
import { isGone } from '../process/gone.ts';
import type { GoingNote } from '../process/guard.ts';
import { flock } from '../sys/files.ts';
import { isAbsent, openMedium, type Place } from './medium.ts';
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
  readonly from: readonly string[];
}

export interface Turn extends Disposable {
  /** For restore(): from when it is written all checkpoints of the tree are spent. */
  readonly note: GoingNote;
}

/** Waits until nobody else makes the tree go on, and removes what it has gone on from already. To be closed with `using`. */
export function takeTurn(tree: Kept): Turn {
  mkdirSync(TURNS, { recursive: true, mode: 0o700 });
  const fd = openSync(noteFile(tree.name), 'a+', 0o600);
  try {
    flock({ fd, operation: LOCK_EX });
    removeSpent(tree);
    const text = (pid: number) => JSON.stringify({ pid, from: Object.values(checkpointsOf(tree)) } satisfies Note);
    return { note: { fd, text }, [Symbol.dispose]: () => closeSync(fd) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Whether a tree has gone on from a checkpoint that is still there, which is removed then. */
export function isSpent(tree: Kept): boolean {
  if (spentOf(tree).length === 0) return false;
  // Decided as soon as the lock is free.
  using _ = takeTurn(tree);
  return Object.keys(checkpointsOf(tree)).length === 0;
}

/** The process that a tree of this name has gone on as in this kernel, be it there still or not; undefined where none has. */
export function wentOnAs(name: string): number | undefined {
  return readNote(name)?.pid;
}

const noteFile = (name: string) => join(TURNS, name);

function readNote(name: string): Note | undefined {
  try {
    const text = readFileSync(noteFile(name), 'utf8');
    return text === '' ? undefined : JSON.parse(text);
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
