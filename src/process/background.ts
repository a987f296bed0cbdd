/**
 * System calls that another thread of this process performs while this one goes on: what takes long in the kernel, while programs
 * stand still. The thread is one of those that Node has for itself, the calls are a batch (src/asm/batch.ts), and its last one
 * tells by an eventfd(2) that all are done.
 */
import { Errno } from '../abi/errno.ts';
import { O_CLOEXEC } from '../abi/fcntl.ts';
import { NR } from '../abi/unistd.ts';
import { Batch, batch_record, localRunner } from '../asm/batch.ts';
import { close, read } from '../sys/files.ts';
import { eventfd2 } from '../sys/poll.ts';
import { mapCode, Region } from '../sys/region.ts';

let runner: ReturnType<typeof mapCode> | undefined;

/** Of an eventfd's counter. */
const COUNTER = 8;

export class Background {
  readonly #fd = eventfd2({ initval: 0, flags: O_CLOEXEC });
  readonly #region: Region;
  readonly #batch: Batch;
  #running = false;

  /** @param calls how many there can be */
  constructor(calls: number) {
    this.#region = new Region(2 * COUNTER + (calls + 1) * batch_record.size);
    this.#batch = new Batch(this.#region.bytes.subarray(2 * COUNTER));
  }

  /** Adds a call. What its arguments point to must stay until it is done. @returns its place among them */
  add(nr: number, ...args: number[]): number {
    return this.#batch.add(nr, ...args);
  }

  /** Has another thread perform them, in their order. */
  start(): void {
    const { address, view } = this.#region;
    view.setBigUint64(0, 1n, true);
    this.#batch.add(NR.write, this.#fd, address, COUNTER);
    runner ??= mapCode(localRunner(), 2);
    this.#running = true;
    // Nothing is left to be done when this comes back to the event loop.
    runner.call.async(address + 2 * COUNTER, this.#batch.length, () => {});
  }

  /** Waits until all are done. */
  wait(): void {
    if (!this.#running) return;
    const args = { fd: this.#fd, buf: this.#region.address + COUNTER, count: COUNTER };
    while (read.attempt(args) === -Errno.EINTR);
    this.#running = false;
  }

  /** What a call returned, or -errno. */
  result(index: number): number {
    return this.#batch.result(index);
  }

  [Symbol.dispose](): void {
    this.wait();
    close({ fd: this.#fd });
    this.#region[Symbol.dispose]();
  }
}
