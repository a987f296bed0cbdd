/**
 * Scratch memory: a mapping in a stopped process for code and data of ours, see remote.ts for what is done there:
 *
 *     scratch   +--------+-----------------+-----------------+---
 *               | runner | slot of thread 0| slot of thread 1| ...
 *               +--------+-----------------+-----------------+---
 *     slot      +-------+---------+------+
 *               | frame | records | data |
 *               +-------+---------+------+
 *
 * A mirror of the same layout lies here. Each thread has its own slot, so that batches of many threads run at the same time.
 */

import { Errno } from '../abi/errno.ts';
import { SIGCHLD, SIGTRAP, SIGURG, SIGWINCH } from '../abi/signal.ts';
import { endBySignal, endByTrap, remoteRunner } from '../asm/batch.ts';
import { SyscallError } from '../errors.ts';
import { type Mirrored, writeRanges } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import type { Status } from '../sys/stat.ts';

const PAGE = 4096;

/** Where the first slot begins in scratch memory, in bytes: behind the runner. */
export const FIRST_SLOT = PAGE;

/** Sizes of the parts of a slot, in bytes; whole pages. */
export interface SlotLayout {
  /** For the frame that takes a thread back, with its xsave area; 0 where it has nowhere to go back to. */
  readonly frame: number;
  readonly records: number;
  readonly data: number;
}

/** The slots of a process, one behind the other: most of what is done in it its first thread does. */
export interface ProcessLayout {
  readonly leader: SlotLayout;
  readonly thread: SlotLayout;
}

/** Of a checkpoint: 500 calls and their answers, all that is asked of a process with 200 timers; of other threads 20. */
export const saveLayout: ProcessLayout = {
  leader: { frame: 4 * PAGE, records: 8 * PAGE, data: 8 * PAGE },
  thread: { frame: 4 * PAGE, records: PAGE, data: 2 * PAGE },
};

/** @param slots of all of them, in bytes */
export function scratchSize(slots: number): number {
  return FIRST_SLOT + slots;
}

export function slotSize(layout: SlotLayout): number {
  return layout.frame + layout.records + layout.data;
}

/** Where the slot of a thread begins among those of its process; behind them all for one more than there are. */
export function slotOf({ leader, thread }: ProcessLayout, index: number): number {
  return index === 0 ? 0 : slotSize(leader) + (index - 1) * slotSize(thread);
}

/** The scratch mapping of one process, and what lies in it. */
export class Scratch {
  readonly pid: number;
  readonly address: number;
  readonly size: number;
  readonly mirror: Region;
  /** With which signal a batch ends; SIGTRAP stands for a breakpoint. */
  readonly endSignal: number;

  /**
   * @param address of a mapping, readable, writable and executable @param size of it, see scratchSize()
   * @param endSignal SIGTRAP, or one that does nothing to the process; see quietSignal()
   */
  constructor(pid: number, address: number, size: number, endSignal: number) {
    this.pid = pid;
    this.address = address;
    this.size = size;
    this.endSignal = endSignal;
    const fitting = ready.findIndex(({ size }) => size >= this.size);
    this.mirror = fitting < 0 ? new Region(this.size) : ready.splice(fitting, 1)[0]!;
    this.mirror.bytes.set(endSignal === SIGTRAP ? trapRunner() : signalRunner());
  }

  /** Copies the runner over; a child has that of its parent. */
  install(): void {
    copyAll(this, [{ there: this.address, here: this.mirror.address, length: PAGE }]);
  }

  [Symbol.dispose](): void {
    this.mirror[Symbol.dispose]();
  }
}

/** Mirrors that nobody uses yet. */
const ready: Region[] = [];

/**
 * Makes the mirrors of processes that will be given scratch memory, before anything is stopped: the first touch of a page here takes
 * longer than what is done to it. 200 threads: 1.5 ms.
 *
 * @param threads how many each of them has
 */
export function prepareMirrors(threads: readonly number[], layout: ProcessLayout): void {
  let left = MOST_READY;
  for (const count of threads) {
    const size = scratchSize(slotOf(layout, count));
    left -= size;
    if (left < 0) return;
    const region = new Region(size);
    for (let at = 0; at < size; at += PAGE) region.bytes[at] = 0;
    ready.push(region);
  }
}

/** In bytes. */
const MOST_READY = 64 << 20;

export function forgetMirrors(): void {
  for (const region of ready.splice(0)) region[Symbol.dispose]();
}

let runnerWithTrap: Uint8Array | undefined;
let runnerWithSignal: Uint8Array | undefined;

function trapRunner(): Uint8Array {
  runnerWithTrap ??= remoteRunner(endByTrap());
  return runnerWithTrap;
}

function signalRunner(): Uint8Array {
  runnerWithSignal ??= remoteRunner(endBySignal());
  return runnerWithSignal;
}

/**
 * A signal that does nothing to a process if nobody traces it: one of three that are ignored unless handled. One that is blocked is
 * awaited by other means (signalfd(2)), and one that waits would end a batch before it has begun.
 */
export function quietSignal(threads: readonly Pick<Status, 'SigCgt' | 'SigBlk' | 'SigPnd' | 'ShdPnd'>[]): number {
  const quiet = [SIGURG, SIGWINCH, SIGCHLD];
  const none = (masks: readonly bigint[]) => (signal: number) =>
    masks.every((mask) => (mask & (1n << BigInt(signal - 1))) === 0n);
  const caught = threads.map(({ SigCgt }) => SigCgt);
  const used = threads.flatMap(({ SigBlk, SigPnd, ShdPnd }) => [SigBlk, SigPnd, ShdPnd]);
  return quiet.find(none([...caught, ...used])) ?? quiet.find(none(caught)) ?? SIGURG;
}

/** Copies ranges of scratch memory over, all of them. @throws SyscallError */
export function copyAll(scratch: Scratch | undefined, ranges: readonly Mirrored[]): void {
  if (scratch === undefined || writeRanges(scratch.pid, ranges)) return;
  throw notCopied('process_vm_writev', scratch.pid, ranges[0]!);
}

export function notCopied(name: string, pid: number, { there, length }: Mirrored): SyscallError {
  return new SyscallError(name, `${name}(${pid}, 0x${there.toString(16)}, ${length}, ...)`, Errno.EFAULT);
}
