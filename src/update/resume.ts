/** What the next kernel does: packets held back before the network is up, then the trees, then the memory. */

import { networkInterfaces, uptime } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnsupportedError } from '../errors.ts';
import { holdConnections, savedConnections } from '../process/held.ts';
import { bootId } from '../sys/machine.ts';
import { findMemory, returnMemory } from './medium.ts';
import { concludeRecord, dropRecord, readRecord, type UpdateRecord, writeRecord } from './record.ts';
import { goOn, openTree, unitOf, type Waiting, waitingTrees } from './trees.ts';
import { findWorkload } from './workload.ts';

/**
 * Holds back the packets of all connections of preserved trees. To be called before the network is up.
 *
 * @returns how many trees there are
 */
export function holdAll(): number {
  const trees = waitingTrees();
  for (const tree of trees) {
    using image = openTree(tree);
    holdConnections(image);
  }
  return trees.length;
}

/** What became of the trees. */
export interface Resumed {
  readonly record: UpdateRecord | undefined;
  readonly restored: readonly { readonly name: string; readonly pid: number }[];
  readonly failed: readonly { readonly name: string; readonly error: string }[];
  /** Bytes of preserved memory that are ordinary memory now. */
  readonly returned: number;
}

/**
 * Makes all trees go on that wait. One that cannot stays where it is, with its packets held back, and the others go on. Services
 * are restored by systemd as it starts them; they are waited for.
 *
 * @param patience how long to wait for the addresses of connections, and for services, in ms
 */
export async function resume(patience: number): Promise<Resumed> {
  const trees = waitingTrees();
  let record = readRecord();
  if (trees.length === 0 && record?.state !== 'restoring') {
    return { record, restored: [], failed: [], returned: 0 };
  }
  if (record !== undefined) {
    demandEnded(record);
    const started = { name: 'kernel', at: Date.now() - 1000 * uptime() };
    const steps = [
      ...record.steps,
      ...(record.state === 'jumping' ? [started] : []),
      { name: 'restore', at: Date.now() },
    ];
    record = writeRecord({ ...record, state: 'restoring', steps });
  }
  const restored: Resumed['restored'][number][] = [];
  const failed: Resumed['failed'][number][] = [];
  for (const tree of trees) {
    const { name } = tree;
    try {
      const pid = unitOf(tree) === undefined ? await goOnWhenThere(tree, patience) : await untilStarted(name, patience);
      restored.push({ name, pid });
      record = noted(record, name, { restored: Date.now(), newPid: pid });
    } catch (error) {
      failed.push({ name, error: (error as Error).message });
      record = noted(record, name, { error: (error as Error).message });
    }
  }
  if (failed.length > 0) {
    if (record !== undefined) record = writeRecord({ ...record, state: 'incomplete' });
    return { record, restored, failed, returned: 0 };
  }
  dropRecord();
  const { returned } = await returnMemory(findMemory(), false);
  if (record !== undefined) {
    record = concludeRecord({ ...record, state: 'done', steps: [...record.steps, { name: 'done', at: Date.now() }] });
  }
  return { record, restored, failed, returned };
}

/** @throws UnsupportedError where the trees may still run: their update is under way in this kernel, or was interrupted */
function demandEnded({ state, bootId: written }: UpdateRecord): void {
  if (written !== bootId() || state === 'restoring' || state === 'incomplete') return;
  throw new UnsupportedError({
    what: 'resuming',
    why: 'the next kernel has not been started',
    remedy: 'take the update back: tideover update abort',
  });
}

async function goOnWhenThere(tree: Waiting, patience: number): Promise<number> {
  await untilThere(ownAddresses(tree), patience);
  return goOn(tree)!;
}

function ownAddresses(tree: Waiting): Uint8Array[] {
  using image = openTree(tree);
  return savedConnections(image).map(({ own }) => own.address);
}

/** Waits until a service has been restored by its own start. @returns its process id */
async function untilStarted(name: string, patience: number): Promise<number> {
  const until = performance.now() + patience;
  for (;;) {
    const pid = waitingTrees().some((each) => each.name === name) ? undefined : findWorkload(name)?.pid;
    if (pid !== undefined) return pid;
    if (performance.now() > until) break;
    await sleep(100);
  }
  const unit = findWorkload(name)?.state.unit ?? name;
  const why = 'it has not been restored by its start';
  throw new UnsupportedError({ what: `service ${unit}`, why, remedy: `journalctl -u ${unit}` });
}

function noted(record: UpdateRecord | undefined, name: string, what: Partial<UpdateRecord['trees'][number]>) {
  if (record === undefined) return undefined;
  const trees = record.trees.map(({ error: _, ...each }) => (each.name === name ? { ...each, ...what } : each));
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
