/**
 * Going before others while programs stand still, and behind them while there is time. sched(7)
 *
 * What stops programs, or makes them go on, sleeps and is woken hundreds of times meanwhile. An ordinary thread then stands behind
 * what has the processor, for 3 to 10 ms now and then, also with nice -20.
 */
import { readdirSync } from 'node:fs';
import { SCHED_FIFO, SCHED_FLAG_RESET_ON_FORK, SCHED_NORMAL, sched_attr } from '../abi/sched.ts';
import { sched_getattr, sched_setattr } from '../sys/process.ts';

type Attr = ReturnType<typeof sched_attr.read>;

/** Memory that is written or filled in a moment, in bytes; it takes 10 ms. */
export const LITTLE = 32 << 20;

/** Has this thread go before others until it is disposed of, as far as it may. A thread with a policy of its own keeps it. */
export class Haste implements Disposable {
  readonly #before = attrOf(0);
  #now = this.#before;

  constructor() {
    ordinarySlice();
    if (this.#before.sched_policy !== SCHED_NORMAL) return;
    const first = { sched_policy: SCHED_FIFO, sched_priority: 1, sched_nice: 0, sched_runtime: 0 };
    if (!this.#become({ ...this.#before, ...first, sched_flags: SCHED_FLAG_RESET_ON_FORK })) this.forLong();
  }

  /** It takes so long that others need their share. */
  forLong(): void {
    if (this.#before.sched_policy === SCHED_NORMAL) this.#become({ ...this.#before, sched_nice: -20 });
  }

  /** Makes a process that is as those of an ordinary thread: a real-time one has no slack of timers to pass on. prctl(2) */
  calmly<T>(make: () => T): T {
    const now = this.#now;
    if (now === this.#before) return make();
    this.#become({ ...this.#before, sched_flags: 0, sched_runtime: 0 });
    try {
      return make();
    } finally {
      this.#become(now);
    }
  }

  [Symbol.dispose](): void {
    if (this.#now !== this.#before) this.#become(this.#before);
  }

  #become(attr: Attr): boolean {
    const isDone = give(0, attr);
    if (isDone) this.#now = attr;
    return isDone;
  }
}

/** In ns: the longest that there is. */
const SLICE = 100_000_000;

/**
 * Has all threads of this process, and no other one that it makes, go behind those that wake: these have the processor at once, as
 * their slice is shorter (PREEMPT_SHORT of kernel/sched/features.h). Where the processor is full the share stays the same. Before
 * Linux 6.12 no thread has a slice of its own, and nothing changes.
 */
export function stepBehind(): void {
  for (const tid of readdirSync('/proc/self/task').map(Number)) {
    const attr = attrOf(tid);
    if (attr.sched_policy !== SCHED_NORMAL) continue;
    give(tid, { ...attr, sched_flags: SCHED_FLAG_RESET_ON_FORK, sched_runtime: SLICE });
  }
}

let slice: number | undefined;

/**
 * What an ordinary thread has of a processor at a time if it has asked for nothing, in ns; 0 where the kernel does not tell. To be
 * asked for the first time by an ordinary thread.
 */
export function ordinarySlice(): number {
  if (slice !== undefined) return slice;
  const before = attrOf(0);
  give(0, { ...before, sched_runtime: 0 });
  slice = attrOf(0).sched_runtime;
  give(0, before);
  return slice;
}

function attrOf(pid: number): Attr {
  const attr = sched_attr.write({});
  sched_getattr.attempt({ pid, attr, size: attr.length, flags: 0 });
  return sched_attr.read(attr);
}

function give(pid: number, attr: Attr): boolean {
  return sched_setattr.attempt({ pid, attr: sched_attr.write({ ...attr, size: 48 }), flags: 0 }) === 0;
}
