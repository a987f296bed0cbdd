/**
 * Kernel objects that several processes have in common without being threads of one: clone(2) with CLONE_VM, CLONE_FILES,
 * CLONE_FS, CLONE_SIGHAND. Nothing but clone(2) makes them share, so each is made by one that has what it is to share.
 */
import { KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_VM } from '../abi/kcmp.ts';
import { CLONE_FILES, CLONE_FS, CLONE_PARENT, CLONE_SIGHAND, CLONE_VM } from '../abi/sched.ts';
import { UnsupportedError } from '../errors.ts';
import type { IdsEntry } from '../image/tree.ts';
import { kcmp } from '../sys/process.ts';
import { readStat } from '../sys/stat.ts';
import type { Placed } from './sessions.ts';

/** A process of a tree. A zombie shares nothing. */
export interface Member extends Placed {
  readonly ids: IdsEntry | undefined;
  readonly isZombie: boolean;
}

const objects = [
  { id: 'vm_id', type: KCMP_VM, flag: CLONE_VM, name: 'memory' },
  { id: 'files_id', type: KCMP_FILES, flag: CLONE_FILES, name: 'descriptors' },
  { id: 'fs_id', type: KCMP_FS, flag: CLONE_FS, name: 'working directory' },
  { id: 'sighand_id', type: KCMP_SIGHAND, flag: CLONE_SIGHAND, name: 'signal handlers' },
] as const;

type ObjectId = (typeof objects)[number]['id'];

/** By tree, which is complete by then, kind of object, and its id: of a large tree each of them is asked for many times. */
const found = new WeakMap<readonly Member[], Record<ObjectId, Map<number, Member[]>>>();

/** Processes of a tree that share an object with one of them, which is among them, in the order of the tree. */
function sharers<M extends Member>(tree: readonly M[], task: M, id: ObjectId): readonly M[] {
  if (task.isZombie || task.ids === undefined) return [task];
  let all = found.get(tree);
  if (all === undefined) {
    const group = (kind: ObjectId) =>
      Map.groupBy(
        tree.filter(({ isZombie, ids }) => !isZombie && ids !== undefined),
        ({ ids }) => ids![kind],
      );
    all = {
      vm_id: group('vm_id'),
      files_id: group('files_id'),
      fs_id: group('fs_id'),
      sighand_id: group('sighand_id'),
    };
    found.set(tree, all);
  }
  return all[id].get(task.ids[id]) as M[];
}

function same(a: Member, b: Member, id: ObjectId): boolean {
  return !a.isZombie && !b.isZombie && a.ids !== undefined && a.ids[id] === b.ids?.[id];
}

/**
 * Which process of a tree makes another one, so that they share what they are to: its parent, or a sibling by CLONE_PARENT.
 *
 * @param tree parents before children @returns its place in the tree, and flags for clone(2)
 * @throws UnsupportedError where there is none
 */
export function makerOf<M extends Member>(tree: readonly M[], child: M): { maker: M; flags: number } {
  const needed = objects.filter(({ id }) => sharers(tree, child, id)[0] !== child);
  const parent = tree.find(({ pid }) => pid === child.ppid)!;
  const before = needed.length === 0 ? [] : tree.slice(0, tree.indexOf(child));
  const siblings = before.filter(({ ppid }) => ppid === child.ppid);
  for (const maker of [parent, ...siblings]) {
    if (!needed.every(({ id }) => same(maker, child, id))) continue;
    const flags = needed.reduce((all, { flag }) => all | flag, maker === parent ? 0 : CLONE_PARENT);
    return { maker, flags };
  }
  throw new UnsupportedError({
    what: `shared ${needed.map(({ name }) => name).join(', ')}`,
    pid: child.pid,
    why: 'those with whom it shares are neither its parent nor its siblings, and it cannot be made by them again',
    remedy: 'end one of them before',
  });
}

/**
 * @param tree parents before children
 * @throws UnsupportedError where a process shares with one that is not in the tree, or in a way that cannot be made again
 */
export function checkSharing(tree: readonly Member[]): void {
  for (const child of tree.slice(1)) makerOf(tree, child);
  const [root] = tree;
  if (root === undefined || root.isZombie) return;
  const outside = readStat(root.pid).ppid;
  for (const { type, name } of objects) {
    if (outside === 0 || kcmp.attempt({ pid1: root.pid, pid2: outside, type, idx1: 0, idx2: 0 }) !== 0) continue;
    throw new UnsupportedError({
      what: `shared ${name}`,
      pid: root.pid,
      why: `process ${outside}, its parent, has the very same and is not in the tree`,
      remedy: `save the tree from there: -t ${outside}`,
    });
  }
}

/** The first process of a tree with the memory of this one: it itself, if it shares none. */
export function firstWithMemory<M extends Member>(tree: readonly M[], task: M): M {
  return sharers(tree, task, 'vm_id')[0]!;
}

/** All processes with the memory of this one, in the order of the tree. */
export function withMemory<M extends Member>(tree: readonly M[], task: M): readonly M[] {
  return sharers(tree, task, 'vm_id');
}
