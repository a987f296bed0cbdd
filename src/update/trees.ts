/** The process trees that an update keeps: found, looked at, frozen into preserved memory, and made to go on. */
import { UnsupportedError } from '../errors.ts';
import type { ImageStore } from '../image/store.ts';
import { type CheckpointOptions, checkpoint, examine, refuseOneself } from '../process/checkpoint.ts';
import { holdConnections, savedConnections } from '../process/held.ts';
import { infoHere } from '../process/info.ts';
import { type RestoreResult, restore } from '../process/restore.ts';
import { readStat } from '../sys/stat.ts';
import { draftNode, findMemory, openMedium, openNode } from './medium.ts';
import type { KeptTree } from './record.ts';

/** Nodes of trees that have no name: `tree/PID`. */
const TREES = 'tree/';
const WORKLOADS = 'workload/';

/** A tree by the process id of its root. @throws UnsupportedError where there is none, or tideover itself is in it */
export function treeOfPid(pid: number): KeptTree {
  let starttime: number;
  try {
    starttime = readStat(pid).starttime;
  } catch {
    const what = `process ${pid}`;
    throw new UnsupportedError({ what, why: 'there is none', remedy: 'see ps; it is the root of the tree' });
  }
  refuseOneself(pid);
  return { name: `pid-${pid}`, node: `${TREES}${pid}`, pid, starttime };
}

/** Whether the process that was kept is there. */
export function isAlive({ pid, starttime }: KeptTree): boolean {
  try {
    const now = readStat(pid);
    return now.starttime === starttime && now.state !== 'Z';
  } catch {
    return false;
  }
}

/** @returns bytes of memory, more or less @throws UnsupportedError what of it cannot be saved */
export function examineTree({ pid }: KeptTree): number {
  return examine(howToSave(pid));
}

/**
 * Stops trees, writes each into its node, and ends them when all are written and `lastly` is done. If anything fails, all go on.
 *
 * @param frozen called when a tree is written
 */
export function freezeTrees(
  trees: readonly KeptTree[],
  { frozen, lastly }: { frozen(tree: KeptTree, memory: number): void; lastly(): void },
): void {
  const [first, ...rest] = trees;
  if (first === undefined) {
    lastly();
    return;
  }
  const draft = draftNode(findMemory(), first.node, infoHere());
  const beforeEnd = () => {
    frozen(first, 0);
    freezeTrees(rest, { frozen, lastly });
  };
  checkpoint({ ...howToSave(first.pid), beforeEnd }, draft);
}

function howToSave(pid: number): CheckpointOptions {
  return {
    ...{ pid, outcome: 'kill', timeout: 10_000, shellJob: false, fileLocks: true, linkRemap: true },
    ...{ ghostLimit: 1 << 30, connections: 'kept' },
  };
}

/** Makes a tree go on from its node, which stays. */
export function restoreTree(node: string): RestoreResult {
  using image = opened(node);
  return restore(image, { stopped: false, shellJob: false });
}

/** Names of the nodes that hold trees. */
export function preservedTrees(): string[] {
  const place = findMemory();
  if (place === undefined) return [];
  using pkram = openMedium(place, { readOnly: true });
  const names = pkram.nodes().flatMap(({ name, content }) => (content === 'image' && name !== undefined ? [name] : []));
  return names.filter((name) => name.startsWith(TREES) || name.startsWith(WORKLOADS));
}

/** Removes nodes, where they are there. */
export function dropNodes(nodes: readonly string[]): void {
  const place = findMemory();
  if (place === undefined) return;
  using pkram = openMedium(place, {});
  const there = new Set(pkram.nodes().map(({ name }) => name));
  for (const node of nodes) if (there.has(node)) pkram.remove(node);
}

/** Has packets of a tree's connections held back until it is restored. */
export function holdTree(node: string): void {
  using image = opened(node);
  holdConnections(image);
}

/** Addresses of this machine that connections of a tree use, 4 or 16 bytes each. */
export function addressesOf(node: string): Uint8Array[] {
  using image = opened(node);
  return savedConnections(image).map(({ own }) => own.address);
}

function opened(node: string): ImageStore & Disposable {
  const image = openNode(findMemory(), node);
  return { ...image, [Symbol.dispose]: () => image.close() };
}
