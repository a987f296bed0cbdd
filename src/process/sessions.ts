/**
 * Which session a process is of (setsid(2)), and who can make it there: a process is born in the session of whoever makes it, and
 * leaves that only for one of its own. Mostly its parent does, before or after it made a session itself. But a process may have
 * another parent than the one it was born of, and its session may have lost its leader.
 */
import { existsSync } from 'node:fs';
import { UnsupportedError } from '../errors.ts';

/** A process of a tree; parents before their children. */
export interface Placed {
  readonly pid: number;
  readonly ppid: number;
  readonly sid: number;
}

type Tree = readonly Placed[];

/** The session in which a process was made, where that can be told: it, or what it made before it had its own, is still there. */
export function bornIn(tree: Tree, process: Placed): number | undefined {
  if (process.sid !== process.pid) return process.sid;
  const possible = sessionsFor(tree, process);
  return childrenOf(tree, process)
    .map((child) => bornIn(tree, child))
    .find((session) => session !== undefined && session !== process.pid && possible.has(session));
}

/** Sessions in which its parent could have made a process. Those outside of the tree are that of whoever makes the root. */
function sessionsFor(tree: Tree, process: Placed): ReadonlySet<number> {
  const parent = parentOf(tree, process);
  if (parent === undefined) {
    const led = new Set(tree.map(({ pid }) => pid));
    return new Set(tree.map(({ sid }) => sid).filter((sid) => !led.has(sid)));
  }
  const before = parent.sid === parent.pid ? sessionsFor(tree, parent) : [];
  return new Set([parent.sid, ...before]);
}

/** Whether a parent is to make a child before it has a session of its own. */
export function isEarly(tree: Tree, child: Placed): boolean {
  const parent = parentOf(tree, child)!;
  const session = bornIn(tree, child);
  return parent.sid === parent.pid && session !== undefined && session !== parent.pid && !isStray(tree, child);
}

/** Whether a process cannot be made by its parent, as it is of a session that its parent is not of at any time. */
export function isStray(tree: Tree, process: Placed): boolean {
  const parent = parentOf(tree, process);
  const session = bornIn(tree, process);
  if (parent === undefined || session === undefined || session === parent.sid) return false;
  return parent.sid !== parent.pid || bornIn(tree, parent) !== session;
}

/**
 * Who makes a stray.
 *
 * @returns one that is of its session; undefined where that has to be made for it, since its leader is gone
 * @throws UnsupportedError where that comes too late
 */
export function makerOfStray<P extends Placed>(tree: readonly P[], stray: P): P | undefined {
  const session = bornIn(tree, stray)!;
  const before = tree.slice(0, tree.indexOf(stray)).filter(({ sid }) => sid === session);
  // A sibling makes it without further ado.
  const maker = before.find(({ ppid }) => ppid === stray.ppid) ?? before[0];
  if (maker !== undefined || !tree.some(({ pid }) => pid === session)) return maker;
  throw new UnsupportedError({
    pid: stray.pid,
    what: `session ${session}`,
    why: 'its leader is below a younger process than this one, and it cannot be made there again',
    remedy: 'end one of them before',
  });
}

/** @throws UnsupportedError where a tree has a session that cannot be made again */
export function checkSessions(tree: Tree): void {
  for (const process of tree) if (isStray(tree, process)) makerOfStray(tree, process);
}

/** Whether a session has its leader yet, if only as a zombie. */
export function hasLeader(session: number): boolean {
  // It is 0 where the leader is outside of our PID namespace.
  return session === 0 || existsSync(`/proc/${session}`);
}

function parentOf(tree: Tree, { ppid }: Placed): Placed | undefined {
  return tree.find(({ pid }) => pid === ppid);
}

function childrenOf(tree: Tree, { pid }: Placed): Placed[] {
  return tree.filter(({ ppid }) => ppid === pid);
}
