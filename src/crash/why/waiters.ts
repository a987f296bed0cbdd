/**
 * Locks that tasks wait for. A task that waits has a struct on its own stack that stands in the lock's queue; the lock's address
 * is on that stack too, as the function that waits needs it again.
 *
 *   task's stack                                      the lock
 *   ┌──────────────────────────┐                      ┌────────────────────────────┐
 *   │ mutex_waiter: list ──────┼──── other waiters ───│ wait_list, or first_waiter │
 *   │               task       │                      │ owner ──► task that has it │
 *   │ ...  address of the lock ┼─────────────────────►└────────────────────────────┘
 *   └──────────────────────────┘
 *
 * The queue is a list with its head in the lock, and since 7.1 a ring that the lock has a pointer into (first_waiter).
 */
import { isGap } from '../kernel/gaps.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { isGone, sleepingRegisters, type Task } from '../kernel/tasks.ts';
import { frozenFileSystem } from './frozen.ts';
import { plainName, type Scene, variableText } from './scene.ts';
import { type Holder, type Lock, type LockKind, type Wait, type WaitGraph, waitGraph } from './waits.ts';

/** How each kind of lock is waited for: kernel/locking/{mutex,rwsem,semaphore,percpu-rwsem}.c */
const kinds: readonly {
  readonly kind: LockKind;
  /** Functions that wait. */
  readonly takers: RegExp;
  /** What is on the stack, with its member of the queue and that of the task. */
  readonly waiter: string;
  readonly link: string;
  readonly task: string;
  /** Members of the lock by which it leads to its waiters: a list_head, or a pointer to the first. */
  readonly heads: readonly string[];
}[] = [
  {
    kind: 'mutex',
    takers: /^(?:__)?(?:ww_)?mutex_lock/,
    waiter: 'mutex_waiter',
    link: 'list',
    task: 'task',
    heads: ['wait_list', 'first_waiter'],
  },
  {
    kind: 'percpu_rw_semaphore',
    takers: /^(?:percpu_rwsem_wait|__percpu_down_read|percpu_down_(?:read|write))/,
    waiter: 'wait_queue_entry',
    link: 'entry',
    task: 'private',
    heads: ['waiters.head'],
  },
  {
    kind: 'rw_semaphore',
    takers: /^(?:__)?(?:rwsem_down_|down_read|down_write)/,
    waiter: 'rwsem_waiter',
    link: 'list',
    task: 'task',
    heads: ['wait_list', 'first_waiter'],
  },
  {
    kind: 'semaphore',
    takers: /^(?:__down(?:_\w+)?|___down_common|down(?:_interruptible|_killable|_timeout)?)$/,
    waiter: 'semaphore_waiter',
    link: 'list',
    task: 'task',
    heads: ['wait_list', 'first_waiter'],
  },
];

/** The scheduler, which is above the function that waits. */
export const SCHEDULER =
  /^(?:__schedule|schedule|schedule_preempt_disabled|schedule_timeout\w*|schedule_hrtimeout\w*|io_schedule\w*|__switch_to\w*|preempt_schedule\w*|__cond_resched|schedule_rtlock)$/;

/** THREAD_SIZE, without KASAN. */
const MAX_STACK = 16384;
/** More tasks than any lock has waiting. */
const MAX_RING = 2 ** 16;
/** mutex.owner and rw_semaphore.owner keep flags in the low bits of the pointer. */
const OWNER_FLAGS = 7n;
/** kernel/locking/rwsem.c */
const RWSEM_WRITER_LOCKED = 1n;
const RWSEM_READER_SHIFT = 8n;
const RWSEM_READ_FAILED = 1n << 63n;
/** enum rwsem_waiter_type */
const RWSEM_WAITING_FOR_WRITE = 0;
/** task_struct.blocker keeps the kind of the lock there: include/linux/hung_task.h */
const BLOCKER_TYPE = 3n;
const MAX_GUESSES = 4;

/** Who waits for which lock, and who holds it. What is missing goes to the kernel's gaps. */
export function findWaits(scene: Scene): WaitGraph {
  const { kernel } = scene;
  const waits: Wait[] = [];
  const locks = new Map<bigint, Omit<Lock, 'holders'> & { holders: Holder[] }>();
  for (const task of scene.tasks) {
    if (task.running || task.state === 'R' || isGone(task)) continue;
    const found = kernel.gaps.try(`what task ${task.pid} waits for`, () => waitOf(scene, task));
    if (found === undefined) continue;
    const { kind, wait } = found;
    const lock =
      locks.get(wait.lock) ?? kernel.gaps.try(`lock at 0x${wait.lock.toString(16)}`, () => readLock(scene, kind, wait));
    if (lock === undefined) continue;
    locks.set(wait.lock, lock);
    waits.push(wait);
  }
  guessHolders(scene, [...locks.values()], waits);
  return waitGraph([...locks.values()], waits);
}

function waitOf(scene: Scene, task: Task): { kind: LockKind; wait: Wait } | undefined {
  const frames = scene.frames(task).map(({ symbol }) => plainName(symbol));
  const first = frames.findIndex((name) => !SCHEDULER.test(name));
  const taker = frames[first];
  const how = taker === undefined ? undefined : kinds.find(({ takers }) => takers.test(taker));
  if (how === undefined || taker === undefined || !scene.kernel.types.has(how.waiter)) return undefined;
  const { kind, takers } = how;
  const stack = readStack(scene, task);
  if (stack === undefined) return undefined;
  const found = findWaiter(scene.kernel, task, how, stack);
  if (found === undefined) return undefined;
  const lock = findLock(scene, task, how, stack, found.ring);
  if (lock === undefined) return undefined;
  const caller = frames.slice(first).find((name) => !takers.test(name));
  const wait: Wait = {
    task,
    lock,
    wanted: wanted(scene.kernel, kind, found.waiter, frames),
    waiter: found.waiter,
    taker,
    caller,
    seconds: scene.idleSeconds(task),
  };
  return { kind, wait };
}

interface StackWords {
  readonly start: bigint;
  readonly words: BigUint64Array;
}

/** From where the task sleeps up to its outermost frame. */
function readStack(scene: Scene, task: Task): StackWords | undefined {
  const { memory, types } = scene.kernel;
  const start = memory.u64(task.address + types.offset('task_struct', 'thread.sp'));
  const { ip, sp } = sleepingRegisters(memory, types, task);
  const end = scene.stack(task).frames.at(-1)?.sp ?? sp;
  const length = Number(end - start) & ~7;
  if (ip === 0n || (start & 7n) !== 0n || length <= 0 || length > MAX_STACK) return undefined;
  return { start, words: new BigUint64Array(memory.read(start, length).buffer) };
}

type Kind = (typeof kinds)[number];

/** The struct that names the task and stands in a list, and all that stands there: addresses of list_heads. */
function findWaiter(
  kernel: Kernel,
  task: Task,
  { waiter: struct, link, task: member }: Kind,
  { start, words }: StackWords,
): { waiter: bigint; ring: ReadonlySet<bigint> } | undefined {
  const { types } = kernel;
  const [ofTask, ofLink] = [types.offset(struct, member), types.offset(struct, link)];
  for (let i = words.indexOf(task.address); i >= 0; i = words.indexOf(task.address, i + 1)) {
    const waiter = start + BigInt(i * 8) - ofTask;
    const ring = waiter < start ? undefined : readRing(kernel, waiter + ofLink);
    if (ring !== undefined) return { waiter, ring };
  }
  return undefined;
}

/** All list_heads of a list that is whole, or undefined. */
function readRing({ memory }: Kernel, first: bigint): Set<bigint> | undefined {
  const seen = new Set<bigint>();
  try {
    for (let at = first; !seen.has(at); ) {
      seen.add(at);
      const next = memory.u64(at);
      if (seen.size > MAX_RING || memory.u64(next + 8n) !== at) return undefined;
      at = next;
    }
  } catch (error) {
    if (isGap(error)) return undefined;
    throw error;
  }
  return seen;
}

/** The lock whose queue the ring is: among what is on the task's stack, and what the task says that it waits for (6.15). */
function findLock(
  scene: Scene,
  task: Task,
  how: Kind,
  { start, words }: StackWords,
  ring: ReadonlySet<bigint>,
): bigint | undefined {
  const { types, memory } = scene.kernel;
  const { kind, heads } = how;
  const end = start + BigInt(words.length * 8);
  const isOwnStack = (address: bigint) => address >= start && address < end;
  const head = heads.find((path) => types.has(kind, path));
  if (head === undefined) return undefined;
  const offset = types.offset(kind, head);
  const isPointer = head === 'first_waiter';
  const isLock = (address: bigint): boolean => {
    const at = address + offset;
    if (!isPointer) return ring.has(at) && !isOwnStack(at) && !isWaiter(scene, how, at);
    // Most words of a stack are no addresses of memory.
    const to = memory.space.u64(at);
    return typeof to === 'bigint' && ring.has(to + types.offset(how.waiter, how.link)) && !isOwnStack(at);
  };
  const blocker = types.has('task_struct', 'blocker')
    ? memory.u64(task.address + types.offset('task_struct', 'blocker')) & ~BLOCKER_TYPE
    : 0n;
  if (blocker !== 0n && isLock(blocker)) return blocker;
  const found = words.find((word) => word >> 63n === 1n && (word & 7n) === 0n && isLock(word));
  if (found !== undefined || isPointer) return found;
  const entry = [...ring].find((at) => isLock(at - offset));
  return entry === undefined ? undefined : entry - offset;
}

/** Whether an entry of a queue belongs to a task, so that it is not the lock's own. */
function isWaiter(scene: Scene, { waiter, link, task }: Kind, entry: bigint): boolean {
  const { types, memory } = scene.kernel;
  const named = memory.space.u64(entry - types.offset(waiter, link) + types.offset(waiter, task));
  const of = typeof named === 'bigint' ? scene.task(named) : undefined;
  if (of === undefined) return false;
  const sp = memory.space.u64(of.address + types.offset('task_struct', 'thread.sp'));
  return typeof sp === 'bigint' && entry >= sp && entry < sp + BigInt(MAX_STACK);
}

function wanted({ types, memory }: Kernel, kind: LockKind, waiter: bigint, frames: readonly string[]): Wait['wanted'] {
  if (kind === 'rw_semaphore') {
    const type = memory.u32(waiter + types.offset('rwsem_waiter', 'type'));
    return type === RWSEM_WAITING_FOR_WRITE ? 'write' : 'read';
  }
  if (kind === 'percpu_rw_semaphore') return frames.includes('percpu_down_write') ? 'write' : 'read';
  return 'lock';
}

function readLock(scene: Scene, kind: LockKind, wait: Wait): Omit<Lock, 'holders'> & { holders: Holder[] } {
  const { kernel } = scene;
  const { types, memory, symbols } = kernel;
  const { lock: address } = wait;
  const field = (member: string) => memory.u64(address + types.offset(kind, member));
  const holderOf = (value: bigint, proof: Holder['proof']): Holder[] => {
    const task = scene.task(value & ~OWNER_FLAGS);
    return task === undefined ? [] : [{ task, proof }];
  };
  const own = variableText(symbols.lookup(address));
  const lock = (state: string, holders: Holder[], symbol = own) => ({ address, kind, symbol, state, holders });
  switch (kind) {
    case 'mutex': {
      const owner = field('owner');
      return lock(owner < 8n ? 'free, or being handed over' : 'held', holderOf(owner, 'owner'));
    }
    case 'rw_semaphore': {
      const [count, owner] = [field('count'), field('owner')];
      if ((count & RWSEM_WRITER_LOCKED) !== 0n) return lock('held for writing', holderOf(owner, 'owner'));
      const readers = (count & ~RWSEM_READ_FAILED) >> RWSEM_READER_SHIFT;
      if (readers === 0n) return lock('free, or being handed over', []);
      return lock(`held by ${readers} ${readers === 1n ? 'reader' : 'readers'}`, holderOf(owner, 'last-reader'));
    }
    case 'semaphore': {
      const count = memory.u32(address + types.offset(kind, 'count'));
      const last = types.has(kind, 'last_holder') ? field('last_holder') : 0n;
      return lock(count === 0 ? 'used up (count 0)' : `at count ${count}`, holderOf(last, 'last-holder'));
    }
    case 'percpu_rw_semaphore': {
      const block = memory.u32(address + types.offset(kind, 'block'));
      const system = kernel.gaps.try('file systems', () => frozenFileSystem(kernel, address));
      const state = block === 0 ? 'being taken for writing' : 'held for writing';
      if (system === undefined) return lock(state, []);
      return lock(`${state}: the file system is ${system.state}`, [], own ?? `of the file system on ${system.name}`);
    }
  }
}

/** Where a lock does not say who holds it: tasks that have its address on their stack, and do not wait for it. */
function guessHolders(
  scene: Scene,
  locks: readonly { readonly address: bigint; readonly holders: Holder[] }[],
  waits: readonly Wait[],
): void {
  const open = new Map(locks.filter(({ holders }) => holders.length === 0).map((lock) => [lock.address, lock]));
  if (open.size === 0) return;
  const waiting = new Set(waits.map(({ task, lock }) => `${task.address} ${lock}`));
  for (const task of scene.tasks) {
    if (task.running || isGone(task)) continue;
    const stack = scene.kernel.gaps.try(`stack of task ${task.pid}`, () => readStack(scene, task));
    if (stack === undefined) continue;
    for (const address of new Set(stack.words)) {
      const lock = open.get(address);
      if (lock === undefined || waiting.has(`${task.address} ${address}`)) continue;
      if (lock.holders.length < MAX_GUESSES) lock.holders.push({ task, proof: 'stack' });
    }
  }
}
