/** Who waits for what, as nodes and arrows. */

import type { Task } from '../kernel/tasks.ts';
import type { Wait, WaitGraph as Waits } from '../why/waits.ts';
import type { WaitEdge, WaitGraph, WaitNode } from './report.ts';

/** Tasks that wait for the same lock, and for which nobody waits, are one node from this many on. */
const MANY = 4;
/** Nodes of a picture that can still be looked at. */
const MAX_NODES = 80;

const kinds = {
  mutex: 'mutex',
  rw_semaphore: 'rw_semaphore',
  semaphore: 'semaphore',
  percpu_rw_semaphore: 'percpu rw_semaphore',
} as const;
const proofs = {
  owner: 'held by',
  'last-reader': 'last read by',
  'last-holder': 'last taken by',
  stack: 'perhaps held by',
} as const;

/** Deadlocks come first; what is more than can be shown is left out, and said to be. */
export function waitPictureOf({ locks, waits, cycles }: Waits): WaitGraph {
  const circular = new Set(cycles.flat());
  const holders = new Set(locks.flatMap((lock) => lock.holders.map(({ task }) => task.address)));
  const nodes = new Map<string, WaitNode>();
  const edges: WaitEdge[] = [];
  let left = 0;
  const add = (node: WaitNode): boolean => {
    if (nodes.has(node.id)) return true;
    if (nodes.size >= MAX_NODES) return false;
    nodes.set(node.id, node);
    return true;
  };
  const connect = (from: WaitNode, to: WaitNode, label: string, deadlock: boolean) => {
    if (add(from) && add(to)) edges.push({ from: from.id, to: to.id, label, deadlock });
    else left++;
  };
  const seconds = new Map(waits.map((wait) => [wait.task.address, wait.seconds]));
  const nodeOf = (task: Task) => taskNode(task, seconds.get(task.address));
  const inDeadlock = (address: bigint) => cycles.some((cycle) => cycle.some(({ lock }) => lock === address));
  for (const lock of locks.toSorted((a, b) => Number(inDeadlock(b.address)) - Number(inDeadlock(a.address)))) {
    const node = {
      id: `l${lock.address}`,
      kind: 'lock',
      title: lock.symbol ?? kinds[lock.kind],
      detail: lock.symbol === undefined ? `0x${lock.address.toString(16)}` : `${kinds[lock.kind]}, ${lock.state}`,
    } as const;
    const here = waits.filter((wait) => wait.lock === lock.address);
    const plain = here.filter((wait) => !circular.has(wait) && !holders.has(wait.task.address));
    const single = plain.length >= MANY ? here.filter((wait) => !plain.includes(wait)) : here;
    for (const wait of single) connect(nodeOf(wait.task), node, waitLabel(wait), circular.has(wait));
    if (plain.length >= MANY) {
      const comms = [...new Set(plain.map(({ task }) => task.comm))].join(', ');
      connect(
        { id: `w${lock.address}`, kind: 'task', title: `${plain.length} tasks`, detail: comms },
        node,
        'wait for',
        false,
      );
    }
    for (const { task, proof } of lock.holders) {
      const next = cycles.find((cycle) => cycle.some((wait) => wait.lock === lock.address));
      const deadlock = proof === 'owner' && next?.some((wait) => wait.task.address === task.address) === true;
      connect(node, nodeOf(task), proofs[proof], deadlock);
    }
  }
  return { nodes: [...nodes.values()], edges, left };
}

function waitLabel({ wanted }: Wait): string {
  return wanted === 'lock' ? 'waits for' : `waits to ${wanted}`;
}

function taskNode({ address, comm, pid, state, cpu }: Task, seconds?: number): WaitNode {
  const since = seconds === undefined ? '' : ` for ${Math.round(seconds)} s`;
  return { id: `t${address}`, kind: 'task', title: `${comm} ${pid}`, detail: `state ${state}${since}, CPU ${cpu}` };
}
