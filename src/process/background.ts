/**
 * System calls that another thread of this process performs while this one goes on: what takes long in the kernel, while programs
 * stand still. The calls are a batch (src/asm/batch.ts), and the thread is made for them and ends with them; the kernel clears a word
 * when it has. CLONE_CHILD_CLEARTID of clone(2)
 */
import { FUTEX_WAIT } from '../abi/futex.ts';
import * as sched from '../abi/sched.ts';
import { SIG_SETMASK } from '../abi/signal.ts';
import { Batch, batch_record, localRunner } from '../asm/batch.ts';
import { threadCode } from '../asm/spawn.ts';
import { futex, rt_sigprocmask } from '../sys/process.ts';
import { mapCode, Region } from '../sys/region.ts';

/** Without CLONE_FS: a thread that shares its root with another one cannot enter a mount namespace. */
const THREAD =
  sched.CLONE_VM |
  sched.CLONE_FILES |
  sched.CLONE_SIGHAND |
  sched.CLONE_THREAD |
  sched.CLONE_SYSVSEM |
  sched.CLONE_PARENT_SETTID |
  sched.CLONE_CHILD_CLEARTID;

/** Where the id of the thread stands as long as it is there; what clone3(2) is given; the records. */
const TID = 0;
const ARGUMENTS = 8;
const RECORDS = 128;

const ALL_SIGNALS = new Uint8Array(8).fill(0xff);

let thread: ReturnType<typeof mapCode> | undefined;
let here: ReturnType<typeof mapCode> | undefined;

export class Background {
  readonly #region: Region;
  readonly #batch: Batch;

  /** @param calls how many there can be */
  constructor(calls: number) {
    this.#region = new Region(RECORDS + calls * batch_record.size);
    this.#batch = new Batch(this.#region.bytes.subarray(RECORDS));
    thread ??= mapCode(threadCode(), 4);
    here ??= mapCode(localRunner(), 2);
  }

  /** Adds a call. What its arguments point to must stay until it is done. @returns its place among them */
  add(nr: number, ...args: number[]): number {
    return this.#batch.add(nr, ...args);
  }

  /** Has another thread perform them, in their order. Where none can be made, as many as there may be, they are performed at once. */
  start(): void {
    const { address, bytes } = this.#region;
    const [tid, records] = [address + TID, address + RECORDS];
    sched.clone_args.write({ flags: THREAD, parent_tid: tid, child_tid: tid }, bytes, ARGUMENTS);
    // A handler would run on the stack of this thread.
    const oldset = new Uint8Array(8);
    rt_sigprocmask({ how: SIG_SETMASK, set: ALL_SIGNALS, oldset, sigsetsize: oldset.length });
    const made = thread!.call(address + ARGUMENTS, sched.clone_args.size, records, this.#batch.length);
    rt_sigprocmask({ how: SIG_SETMASK, set: oldset, oldset: ALL_SIGNALS.slice(), sigsetsize: oldset.length });
    if (made < 0) here!.call(records, this.#batch.length);
  }

  /** Waits until all are done. */
  wait(): void {
    const { address, view } = this.#region;
    for (let tid = view.getInt32(TID, true); tid !== 0; tid = view.getInt32(TID, true)) {
      futex.attempt({ uaddr: address + TID, futex_op: FUTEX_WAIT, val: tid, timeout: 0 });
    }
  }

  /** What a call returned, or -errno. */
  result(index: number): number {
    return this.#batch.result(index);
  }

  [Symbol.dispose](): void {
    this.wait();
    this.#region[Symbol.dispose]();
  }
}
