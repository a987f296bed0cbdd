/** Trees that an update has stopped, or ended, go on here. */

import { stopRounds } from './precopy.ts';
import type { UpdateRecord } from './record.ts';
import { dropNodes, dropStrayRounds } from './rounds.ts';
import { dropSpilled } from './spill.ts';
import { goOn, isAlive, releaseWorkloads, untilEnded, waitingTrees } from './trees.ts';
import { checkpointName } from './workload.ts';

/**
 * Has trees go on that were stopped: those that were ended are restored here.
 *
 * @param ends each waits until a tree has ended that was killed
 * @returns which these are
 * @throws Error naming those that could not be, which stay where they are; all others go on
 */
export function putBack(record: UpdateRecord, ends: readonly (() => void)[] = []): string | undefined {
  const { trees } = record;
  for (const ended of ends) {
    try {
      ended();
    } catch {
      // One that does not end keeps nobody else from going on, and is named below.
    }
  }
  releaseWorkloads(trees);
  const ended = trees.filter((tree) => !isAlive(tree));
  const restored: string[] = [];
  const faults: string[] = [];
  for (const each of waitingTrees()) {
    const tree = ended.find(({ name }) => name === each.name);
    if (tree === undefined) continue;
    try {
      // What it has, another cannot have: process ids, addresses.
      untilEnded(tree);
      goOn(each);
      restored.push(each.name);
    } catch (error) {
      faults.push(`${each.name} waits in ${checkpointName(each.where)}: ${(error as Error).message}`);
    }
  }
  dropCopies(record);
  if (faults.length > 0) throw new Error(faults.join('; '));
  return restored.length === 0 ? undefined : `restored here: ${restored.join(', ')}`;
}

/** Removes what was written of trees that go on here, or have ended. */
export function dropCopies({ trees, spill: folder }: UpdateRecord): void {
  const running = trees.filter(isAlive);
  stopRounds(running.map(({ pid }) => pid));
  dropNodes(running.map(({ node }) => node));
  const waiting = new Set(waitingTrees().map(({ name }) => name));
  for (const { name } of folder === undefined ? [] : trees) if (!waiting.has(name)) dropSpilled(name, folder);
  dropStrayRounds();
}
