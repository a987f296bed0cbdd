/**
 * System calls inside a stopped process, in batches (src/asm/batch.ts), by code and data in a scratch mapping of it (scratch.ts).
 * Records and data are written into its mirror here and copied over when a batch starts, and come back when it is done.
 */

import { SIGTRAP } from '../abi/signal.ts';
import { NR, syscallName } from '../abi/unistd.ts';
import { Batch, batch_record } from '../asm/batch.ts';
import { SyscallError } from '../errors.ts';
import { type Mirrored, readRanges } from '../sys/process_vm.ts';
import { cont } from '../sys/ptrace.ts';
import { copyAll, FIRST_SLOT, notCopied, type Scratch, type SlotLayout } from './scratch.ts';
import { readRegister, registersLike, type Tracee, writeRegisters } from './tracee.ts';

/** eflags of a program that has set none: interrupts on, and bit 1, which is always set. */
const INTERRUPTS = 0x202;

/** One thread and its slot. */
export class Remote {
  readonly tracee: Tracee;
  readonly scratch: Scratch;
  readonly #batch: Batch;
  readonly #records: number;
  readonly #data: number;
  readonly #end: number;
  readonly #frame: number;
  #top: number;
  /** From where on the data part is as the mirror was when it was made: zeros. */
  #used: number;
  #ran = false;
  #running = false;
  /** Whether signals are still to be blocked. */
  #open = false;
  readonly #must = new Set<number>();

  /** @param slot where it begins among all of the scratch memory, in bytes */
  constructor(tracee: Tracee, scratch: Scratch, layout: SlotLayout, slot: number) {
    const { mirror } = scratch;
    const at = FIRST_SLOT + slot;
    this.tracee = tracee;
    this.scratch = scratch;
    this.#frame = at;
    this.#records = at + layout.frame;
    this.#data = this.#records + layout.records;
    this.#end = this.#data + layout.data;
    this.#top = this.#data;
    this.#used = this.#data;
    this.#batch = new Batch(mirror.bytes.subarray(this.#records, this.#data));
  }

  /** Where the frame of `endBySignal` is to be written, in the process and here. */
  get frame(): { address: number; bytes: Uint8Array } {
    return {
      address: this.scratch.address + this.#frame,
      bytes: this.scratch.mirror.bytes.subarray(this.#frame, this.#records),
    };
  }

  /** The frame, to be copied over. @param size of what is used of it */
  frameRange(size: number): Mirrored {
    return this.#range(this.#frame, size);
  }

  /** Has the thread stay where it was found until it is given something to do, and block signals then: its frame is there. */
  enter(): void {
    this.#open = true;
  }

  /** Free bytes of the data part. */
  get free(): number {
    this.#renew();
    return this.#end - this.#top;
  }

  /** How many more calls fit. */
  get freeRecords(): number {
    this.#renew();
    return (this.#data - this.#records) / batch_record.size - this.#batch.length;
  }

  /** Makes sure that so many calls and bytes fit into one batch, by running what there is. */
  reserve(calls: number, bytes: number): void {
    if (this.freeRecords < calls || this.free < bytes) this.run();
  }

  /** Room in the data part: its address in the process, and its bytes here, which are the result after run(). */
  room(size: number, align = 8): { address: number; bytes: Uint8Array } {
    this.#renew();
    const at = Math.ceil(this.#top / align) * align;
    if (at + size > this.#end) throw new RangeError(`${size} bytes do not fit the scratch memory of a batch`);
    this.#top = at + size;
    const bytes = this.scratch.mirror.bytes.subarray(at, at + size);
    if (at < this.#used) bytes.fill(0);
    return { address: this.scratch.address + at, bytes };
  }

  /** Puts bytes into the data part. @returns their address in the process */
  put(bytes: Uint8Array, align = 8): number {
    const { address, bytes: there } = this.room(bytes.length, align);
    there.set(bytes);
    return address;
  }

  /** Puts text and a NUL. */
  text(value: Uint8Array): number {
    const { address, bytes } = this.room(value.length + 1, 1);
    bytes.set(value);
    return address;
  }

  /** Adds a call that must succeed: run() throws what it answers otherwise. @returns its index */
  call(nr: number, ...args: number[]): number {
    this.#renew();
    const index = this.#batch.addOrStop(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
    this.#must.add(index);
    return index;
  }

  /** Adds a call whose failure is an answer. @returns its index */
  attempt(nr: number, ...args: number[]): number {
    this.#renew();
    return this.#batch.add(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
  }

  /** Makes the result of an earlier call an argument of a later one. */
  passResult(from: number, to: number, argument: number): void {
    this.#batch.passResult(from, to, argument);
  }

  /** What a call of the last batch returned, or -errno. */
  result(index: number): number {
    this.finish();
    return this.#batch.result(index);
  }

  /** Performs what was added since the last batch, if anything was, and brings over what was put. @throws SyscallError of the first call() that failed */
  run(): void {
    this.start();
    this.finish();
  }

  /**
   * Begins what run() does. Whatever is done next with this thread waits for its end, so that other ones can be given their
   * batches meanwhile.
   */
  start(): void {
    Remote.startAll([this]);
  }

  /** As start(), of threads of one process: a copy for each of them would take longer than what they do. */
  static startAll(remotes: readonly Remote[]): void {
    Remote.finishAll(remotes);
    const begun = remotes.filter((remote) => !remote.#ran && remote.#hasWork);
    copyAll(
      begun[0]?.scratch,
      begun.flatMap((remote) => remote.#ranges),
    );
    for (const remote of begun) {
      remote.#standAtBatch();
      remote.#go();
    }
  }

  get #hasWork(): boolean {
    return this.#batch.length > 0 || this.#top > this.#data;
  }

  /**
   * Performs what was added, and does something here when the first call is done and the next one not yet begun. If this process
   * ends then, the thread goes on with the rest by itself.
   */
  runWithPause(action: (result: number) => void): void {
    const { tracee } = this;
    this.#load();
    tracee.beginSyscall();
    tracee.crossSyscall();
    tracee.endSyscall();
    try {
      action(readRegister(tracee.tid, 'rax'));
    } finally {
      this.#go();
      this.finish();
    }
  }

  /** Starts the batch and lets go of the thread: nobody waits for its end. */
  sendOff(): void {
    this.#load();
    this.tracee.letGo();
  }

  /**
   * Runs code of its own that was put() into the data part, with what else was added there. It ends by endBySignal().
   *
   * @param rbx @param r12 what it finds in these registers
   */
  execute(code: number, rbx: number, r12: number): void {
    this.#copyOver();
    this.#setRegisters(code, rbx, r12);
    this.#go();
    this.finish();
  }

  #go(): void {
    cont(this.tracee.tid);
    this.#running = true;
  }

  #load(): void {
    this.#copyOver();
    this.#standAtBatch();
  }

  #standAtBatch(): void {
    const { address } = this.scratch;
    this.#setRegisters(address, address + this.#records, this.#batch.length);
  }

  #copyOver(): void {
    this.#renew();
    copyAll(this.scratch, this.#ranges);
  }

  #range(at: number, length: number): Mirrored {
    const { mirror, address } = this.scratch;
    return { there: address + at, here: mirror.address + at, length };
  }

  /** What there is of records and data. */
  get #ranges(): Mirrored[] {
    const records = this.#range(this.#records, this.#batch.length * batch_record.size);
    return [records, this.#range(this.#data, this.#top - this.#data)];
  }

  /** Waits for the batch that was started, if there is one. Its results can be read until the next one is begun. */
  finish(): void {
    if (this.#running) Remote.finishAll([this]);
  }

  /** As finish(), of threads of one process. */
  static finishAll(remotes: readonly Remote[]): void {
    const running = remotes.filter((remote) => remote.#running);
    if (running.length === 0) return;
    for (const remote of running) remote.#wait();
    const { pid } = running[0]!.scratch;
    const ranges = running.flatMap((remote) => remote.#ranges);
    if (!readRanges(pid, ranges)) throw notCopied('process_vm_readv', pid, ranges[0]!);
    for (const remote of running) {
      remote.#ran = true;
      remote.#check();
    }
  }

  #wait(): void {
    const { scratch, tracee } = this;
    tracee.expect(({ signal, event }) => event === 0 && signal === scratch.endSignal && this.#isOurs());
    this.#running = false;
  }

  /** Whether the signal at which the thread has stopped is what ends its batch, and not the like of it from somebody else. */
  #isOurs(): boolean {
    return this.scratch.endSignal === SIGTRAP || readRegister(this.tracee.tid, 'orig_rax') === NR.tgkill;
  }

  #setRegisters(rip: number, rbx: number, r12: number): void {
    const { scratch, tracee } = this;
    const registers = registersLike(tracee.registers);
    registers.set('rip', rip);
    registers.set('rbx', rbx);
    registers.set('r12', r12);
    registers.set('r14', scratch.endSignal);
    registers.set('r15', scratch.address + this.#frame);
    registers.set('orig_rax', -1);
    // Direction and trap flags of the program are not those of the runner.
    registers.set('eflags', INTERRUPTS);
    writeRegisters(tracee.tid, registers);
    // In this order: from there it goes back by itself, and has its mask again.
    if (this.#open) tracee.blockSignals(scratch.endSignal);
    this.#open = false;
  }

  #check(): void {
    for (const index of this.#must) {
      const result = this.#batch.done(index) ? this.#batch.result(index) : undefined;
      if (result === undefined || (result < 0 && result >= -4095)) throw this.error(index, result ?? 0);
    }
  }

  /** The error of a call of the batch that ran last. */
  error(index: number, result: number): SyscallError {
    const record = batch_record.read(this.scratch.mirror.bytes, this.#records + index * batch_record.size);
    const name = syscallName(record.nr);
    const shown = record.arg.map((value) => (value > 0xffff ? `0x${value.toString(16)}` : `${value}`)).join(', ');
    return new SyscallError(name, `${name}(${shown}) in process ${this.scratch.pid}`, -result);
  }

  /** Begins a new batch after one that ran: its results could be read until now. */
  #renew(): void {
    this.finish();
    if (!this.#ran) return;
    this.#ran = false;
    this.#batch.clear();
    this.#must.clear();
    this.#used = Math.max(this.#used, this.#top);
    this.#top = this.#data;
  }
}

/**
 * Adds the call that brings a descriptor of ours into the process.
 *
 * @param keep descriptor in it that stands for this process
 * @returns its index, for passResult()
 */
export function lend(remote: Remote, keep: number, fd: number): number {
  return remote.call(NR.pidfd_getfd, keep, fd, 0);
}

/** Has a process enter a namespace of which this one has a descriptor. @param keep see lend() @param nstype CLONE_NEW* */
export function enterLent(remote: Remote, keep: number, fd: number, nstype: number): void {
  const lent = lend(remote, keep, fd);
  const entered = remote.call(NR.setns, 0, nstype);
  const closed = remote.call(NR.close, 0);
  remote.passResult(lent, entered, 0);
  remote.passResult(lent, closed, 0);
  remote.run();
}
