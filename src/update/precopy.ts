/**
 * Memory of trees that is written into preserved memory while they run, so that they stand still only for what they have written
 * since: rounds, each of which has what was written during the one before, until that is little or does not get less.
 *
 * rounds.ts says where they lie.
 */
import { NoRoomError } from '../pkram/index.ts';
import { treeOf } from '../process/checkpoint.ts';
import { infoHere } from '../process/info.ts';
import { preDump } from '../process/predump.ts';
import { stopWatching, tellsWrites } from '../process/tracking.ts';
import { draftNode, findMemory, openNode } from './medium.ts';
import type { KeptTree } from './record.ts';
import { dropNodes, type Rounds, roundNode } from './rounds.ts';
import { spillRound } from './spill.ts';

/** What is written in less time than a round takes, in bytes: less memory is not worth one. */
const LITTLE = 16 << 20;
const MOST_ROUNDS = 8;
/** A round that had more of the one before than this has been too slow: the next one would be as well. */
const LESS = 0.7;

/** Bytes that rounds of trees with so much memory may take beside it. */
export function roomForRounds(memory: number): number {
  return memory / 8;
}

/** Why trees stand still for as long as all of their memory takes; undefined where they do not. */
export function whyNoRounds(): string | undefined {
  if (tellsWrites()) return undefined;
  return 'this kernel does not tell what is written: the trees stand still until all of their memory is copied';
}

/**
 * Writes rounds of all trees. Where the kernel does not tell what is written, or there is no room, there are none.
 *
 * @param folder for a copy on the disk; undefined for none
 * @throws what preDump() does of a tree that cannot be stopped
 */
export function precopy(trees: readonly KeptTree[], folder: string | undefined): Rounds {
  try {
    return tellsWrites() ? writeRounds(trees, folder) : new Map();
  } catch (error) {
    if (!(error instanceof NoRoomError)) throw error;
    dropNodes(trees.map(({ node }) => node));
    return new Map();
  }
}

function writeRounds(trees: readonly KeptTree[], folder: string | undefined): Rounds {
  const rounds = new Map<string, number>();
  let open = trees.filter(({ memory = 0 }) => memory > LITTLE);
  const dirty = new Map(open.map(({ node, memory = 0 }) => [node, memory]));
  let room = roomForRounds(open.reduce((sum, { memory = 0 }) => sum + memory, 0));
  for (let round = 1; round <= MOST_ROUNDS && open.length > 0; round++) {
    open = open.filter((tree) => {
      const before = dirty.get(tree.node)!;
      const written = writeRound(tree, round, folder);
      rounds.set(tree.node, round);
      dirty.set(tree.node, written);
      if (round > 1) room -= written;
      return written > LITTLE && (round === 1 || written < LESS * before) && written < room;
    });
  }
  return rounds;
}

/** @returns bytes that it has */
function writeRound({ pid, node, name }: KeptTree, round: number, folder: string | undefined): number {
  const on = round === 1 ? undefined : roundNode(node, round - 1);
  const draft = draftNode(findMemory(), roundNode(node, round), infoHere(), on);
  const { memory } = preDump({ pid, timeout: 10_000, parent: draft.parent }, draft);
  if (folder === undefined) return memory;
  const image = openNode(findMemory(), roundNode(node, round));
  try {
    spillRound(image, { folder, name, round });
  } finally {
    image.close();
  }
  return memory;
}

/** Ends the watching of trees that go on here. */
export function stopRounds(pids: readonly number[]): void {
  for (const pid of pids) stopWatching(treeOf(pid));
}
