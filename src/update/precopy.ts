/**
 * Memory of trees that is written into preserved memory while they run, so that they stand still only for what they have written
 * since: rounds, each of which has what was written during the one before, until that is little or does not get less.
 *
 * rounds.ts says where they lie.
 */
import { NoRoomError } from '../pkram/index.ts';
import { treeOf } from '../process/freeze.ts';
import { infoHere } from '../process/info.ts';
import { examine } from '../process/look.ts';
import { preDump } from '../process/predump.ts';
import type { CheckpointOptions } from '../process/stopped.ts';
import { stopWatching, tellsWrites } from '../process/tracking.ts';
import { draftNode, findMemory, openMedium, openNode } from './medium.ts';
import type { KeptTree } from './record.ts';
import { dropNodes, type Rounds, roundNode } from './rounds.ts';
import { spillRound } from './spill.ts';

/** What is written in less time than a round takes, in bytes: less is not worth one. */
const LITTLE = 16 << 20;
const MOST_ROUNDS = 8;
/** Where more than this of a round was written again by its end, the next one would be no better. */
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
  const large = trees.filter(({ memory = 0 }) => memory > LITTLE);
  const left = new Map(trees.map(({ node, memory = 0 }) => [node, memory]));
  let room = roomForRounds(large.reduce((sum, { memory = 0 }) => sum + memory, 0));
  let open = large;
  for (let round = 1; round <= MOST_ROUNDS && open.length > 0; round++) {
    for (const tree of open) {
      writeRound(tree, round, folder);
      rounds.set(tree.node, round);
    }
    open = open.filter((tree) => {
      const before = left.get(tree.node)!;
      const written = writtenSince(tree, round);
      left.set(tree.node, written);
      if (written <= LITTLE || written >= LESS * before || written >= room) return false;
      room -= written;
      return true;
    });
  }
  // Now, and not while they stand still: the kernel is loaded for the pages that there are.
  using pkram = openMedium(findMemory(), {});
  pkram.reserve(([...left.values()].reduce((sum, size) => sum + size, 0) * 5) / 4 + ROOM);
  return rounds;
}

/** Beside memory, and for what they write meanwhile, in bytes. */
const ROOM = 16 << 20;

/** Bytes that would be written now. */
function writtenSince({ pid, node }: KeptTree, round: number): number {
  const parent = openNode(findMemory(), roundNode(node, round));
  try {
    return examine({ ...howToSave(pid), parent });
  } finally {
    parent.close();
  }
}

function writeRound({ pid, node, name }: KeptTree, round: number, folder: string | undefined): void {
  const on = round === 1 ? undefined : roundNode(node, round - 1);
  const draft = draftNode(findMemory(), roundNode(node, round), infoHere(), on);
  preDump({ pid, timeout: 10_000, parent: draft.parent }, draft);
  if (folder === undefined) return;
  const image = openNode(findMemory(), roundNode(node, round));
  try {
    spillRound(image, { folder, name, round });
  } finally {
    image.close();
  }
}

/** How trees are checkpointed by an update. */
export function howToSave(pid: number): CheckpointOptions {
  return {
    ...{ pid, outcome: 'kill', timeout: 10_000, shellJob: false, fileLocks: true, linkRemap: true },
    ...{ ghostLimit: 1 << 30, connections: 'kept' },
  };
}

/** Ends the watching of trees that go on here. */
export function stopRounds(pids: readonly number[]): void {
  for (const pid of pids) stopWatching(treeOf(pid));
}
