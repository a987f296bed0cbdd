/** What the next kernel does: packets held back before the network is up, then the trees, then the memory. */

import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { findMemory, returnMemory } from './medium.ts';
import { concludeRecord, dropRecord, readRecord, type UpdateRecord, writeRecord } from './record.ts';
import { addressesOf, dropNodes, holdTree, preservedTrees, restoreTree } from './trees.ts';

/**
 * Holds back the packets of all connections of preserved trees. To be called before the network is up.
 *
 * @returns how many trees there are
 */
export function holdAll(): number {
  const nodes = preservedTrees();
  for (const node of nodes) holdTree(node);
  return nodes.length;
}

/** What became of the trees. */
export interface Resumed {
  readonly record: UpdateRecord | undefined;
  readonly restored: readonly { readonly node: string; readonly pid: number }[];
  readonly failed: readonly { readonly node: string; readonly error: string }[];
  /** Bytes of preserved memory that are ordinary memory now. */
  readonly returned: number;
}

/**
 * Makes all trees in preserved memory go on. One that cannot stays there, with its packets held back, and the others go on.
 *
 * @param patience how long to wait for the addresses of connections, in ms
 */
export async function resume(patience: number): Promise<Resumed> {
  const nodes = preservedTrees();
  let record = readRecord();
  if (record !== undefined && nodes.length > 0) {
    record = writeRecord({
      ...record,
      state: 'restoring',
      steps: [...record.steps, { name: 'restore', at: Date.now() }],
    });
  }
  const restored: Resumed['restored'][number][] = [];
  const failed: Resumed['failed'][number][] = [];
  for (const node of nodes) {
    try {
      await untilThere(addressesOf(node), patience);
      const { pid } = restoreTree(node);
      restored.push({ node, pid });
      record = noted(record, node, { restored: Date.now(), newPid: pid });
    } catch (error) {
      failed.push({ node, error: (error as Error).message });
      record = noted(record, node, { error: (error as Error).message });
    }
  }
  dropNodes(restored.map(({ node }) => node));
  if (failed.length > 0) {
    if (record !== undefined) record = writeRecord({ ...record, state: 'incomplete' });
    return { record, restored, failed, returned: 0 };
  }
  dropRecord();
  const { returned } = await returnMemory(findMemory(), false);
  if (record !== undefined && nodes.length > 0) {
    record = concludeRecord({ ...record, state: 'done', steps: [...record.steps, { name: 'done', at: Date.now() }] });
  }
  return { record, restored, failed, returned };
}

function noted(record: UpdateRecord | undefined, node: string, what: Partial<UpdateRecord['trees'][number]>) {
  if (record === undefined) return undefined;
  const trees = record.trees.map(({ error: _, ...each }) => (each.node === node ? { ...each, ...what } : each));
  return { ...record, trees };
}

/** Waits until this machine has addresses again; where one does not come, the restore says which. */
async function untilThere(addresses: readonly Uint8Array[], patience: number): Promise<void> {
  const wanted = new Set(addresses.map(addressText));
  const until = performance.now() + patience;
  for (;;) {
    const there = new Set(
      Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address)),
    );
    if (wanted.isSubsetOf(there) || performance.now() > until) return;
    await sleep(20);
  }
}

/** In the form in which Node lists addresses of interfaces. */
function addressText(address: Uint8Array): string {
  if (address.length === 4) return address.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => ((address[2 * i]! << 8) | address[2 * i + 1]!).toString(16));
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
