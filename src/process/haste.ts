/**
 * Going before others while programs stand still, and behind them while there is time. sched(7)
 *
 * What stops programs, or makes them go on, sleeps and is woken hundreds of times meanwhile. An ordinary thread then stands behind
 * what has the processor, for 3 to 10 ms now and then, also with nice -20. And a processor that sleeps is late itself.
 */
import { closeSync, openSync, readdirSync, writeSync } from 'node:fs';
import { SCHED_FIFO, SCHED_FLAG_RESET_ON_FORK, SCHED_NORMAL, sched_attr } from '../abi/sched.ts';
import { getcpu, maskOf, sched_getattr, sched_setaffinity, sched_setattr, sleep } from '../sys/process.ts';

type Attr = ReturnType<typeof sched_attr.read>;

/** Memory that is written or filled in a moment, in bytes; it takes 10 ms. */
export const LITTLE = 32 << 20;

/**
 * Has this thread go before others, as far as it may, and processors wake at once, until it is disposed of. A thread with a policy of its
 * own keeps it.
 */
export class Haste implements Disposable {
  readonly #before = attrOf(0);
  #now = this.#before;
  #awake = stayAwake();

  constructor() {
    ordinarySlice();
  }

  /** From now on. */
  begin(): void {
    const first = { sched_policy: SCHED_FIFO, sched_priority: 1, sched_nice: 0, sched_runtime: 0 };
    if (!this.#become({ ...this.#before, ...first, sched_flags: SCHED_FLAG_RESET_ON_FORK })) this.#beNice();
  }

  /** It takes so long that others need their share. */
  forLong(): void {
    this.#letSleep();
    this.#beNice();
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

  /**
   * Leaves the processors, still awake, to what was let go just now: our own end, or whatever else we do, would keep it from them. A
   * program that sleeps 1 ms at a time is away for 9.5 ms instead of 11.
   */
  stepAside(): void {
    if (this.#awake !== undefined) sleep(ASIDE);
  }

  [Symbol.dispose](): void {
    this.#letSleep();
    if (this.#now !== this.#before) this.#become(this.#before);
  }

  #beNice(): void {
    this.#become({ ...this.#before, sched_nice: -20 });
  }

  #letSleep(): void {
    if (this.#awake !== undefined) closeSync(this.#awake);
    this.#awake = undefined;
  }

  #become(attr: Attr): boolean {
    const isDone = this.#before.sched_policy === SCHED_NORMAL && give(0, attr);
    if (isDone) this.#now = attr;
    return isDone;
  }
}

/** In ns. */
const ASIDE = 3_000_000;

/**
 * Keeps processors from sleeping until what is returned is closed, also by our end. Each step of a tracee wakes one, which is late where
 * it sleeps, in a virtual machine most of all: bench/steps.ts. Documentation/power/pm_qos_interface.rst
 */
function stayAwake(): number | undefined {
  try {
    const fd = openSync('/dev/cpu_dma_latency', 'w');
    // How late one may be, in us, as an s32.
    writeSync(fd, new Uint8Array(4));
    return fd;
  } catch {
    return undefined;
  }
}

/**
 * Has threads that have been killed end on the processor of this one, which is about to wait for them: where another one of ours goes
 * before others, they would wait for that.
 */
export function endHere(tids: readonly number[]): void {
  const cpu = new Uint32Array(1);
  getcpu({ cpu: new Uint8Array(cpu.buffer), node: 0, tcache: 0 });
  const mask = maskOf(cpu[0]!);
  for (const pid of tids) sched_setaffinity.attempt({ pid, cpusetsize: mask.length, mask });
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
