/** Who waits for whom: tasks, the locks that they wait for, the tasks that hold these, and the circles in it. */
import type { Task } from '../kernel/tasks.ts';

export type LockKind = 'mutex' | 'rw_semaphore' | 'semaphore' | 'percpu_rw_semaphore';

/**
 * How a holder is known:
 * - `owner`: the lock says so
 * - `last-reader`: it is held by readers, of which it names the last that took it
 * - `last-holder`: it was the last that took a semaphore, and anyone may give it back
 * - `stack`: the lock's address is on its stack, and it does not wait for it
 */
export type HolderProof = 'owner' | 'last-reader' | 'last-holder' | 'stack';

export interface Holder {
  readonly task: Task;
  readonly proof: HolderProof;
}

export interface Lock {
  readonly address: bigint;
  readonly kind: LockKind;
  /** `name+0x10 [module]` of a lock that is a variable. */
  readonly symbol: string | undefined;
  /** `held for writing`, `held by 3 readers`, `count 0`: what its fields say. */
  readonly state: string;
  /** The first is the most certain; none where nothing is known. */
  readonly holders: readonly Holder[];
}

/** A task that waits for a lock. */
export interface Wait {
  readonly task: Task;
  /** Address of the lock. */
  readonly lock: bigint;
  readonly wanted: 'lock' | 'read' | 'write';
  /** The struct on the task's stack that stands in the lock's queue. */
  readonly waiter: bigint;
  /** Of the function that takes the lock and of the one that called it. */
  readonly taker: string;
  readonly caller: string | undefined;
  /** Seconds since the task last ran; undefined where the kernel does not keep that. */
  readonly seconds: number | undefined;
}

export interface WaitGraph {
  readonly locks: readonly Lock[];
  readonly waits: readonly Wait[];
  /** Each is a circle of waits: the task of each holds the lock that the one before it wants, and the first that of the last. */
  readonly cycles: readonly (readonly Wait[])[];
}

export const noWaits: WaitGraph = { locks: [], waits: [], cycles: [] };

/** The task that must go on before a lock is free, where one is known for sure. */
function ownerOf({ holders }: Lock): Task | undefined {
  return holders.find(({ proof }) => proof === 'owner')?.task;
}

/** A task waits for one lock at a time, so that a walk from each finds every circle. */
export function waitGraph(locks: readonly Lock[], waits: readonly Wait[]): WaitGraph {
  const owners = new Map(locks.map((lock) => [lock.address, ownerOf(lock)?.address]));
  const waitOf = new Map(waits.map((wait) => [wait.task.address, wait]));
  const visited = new Set<Wait>();
  const cycles: Wait[][] = [];
  for (const start of waits) {
    const path: Wait[] = [];
    let wait: Wait | undefined = start;
    while (wait !== undefined && !visited.has(wait)) {
      visited.add(wait);
      path.push(wait);
      const owner: bigint | undefined = owners.get(wait.lock);
      wait = owner === undefined ? undefined : waitOf.get(owner);
    }
    const from = wait === undefined ? -1 : path.indexOf(wait);
    if (from >= 0) cycles.push(path.slice(from));
  }
  return { locks, waits, cycles };
}

/** The waits that end at a task which is not waiting itself, or in a circle: from a wait on. */
export function chainFrom({ locks, waits }: WaitGraph, start: Wait): { chain: Wait[]; last: Task | undefined } {
  const chain: Wait[] = [];
  let [wait, last]: [Wait | undefined, Task | undefined] = [start, undefined];
  while (wait !== undefined && !chain.includes(wait)) {
    chain.push(wait);
    const at: bigint = wait.lock;
    const lock = locks.find(({ address }) => address === at);
    const owner = lock === undefined ? undefined : ownerOf(lock);
    last = owner;
    wait = owner === undefined ? undefined : waits.find(({ task }) => task.address === owner.address);
  }
  return { chain, last };
}
