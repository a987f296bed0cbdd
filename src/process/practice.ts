/**
 * What is done while programs stand still is done before, to other ones and into nowhere: code that runs for the first time takes
 * ten times as long as it does then, which is 20 ms for a small program.
 */
import { closeSync, openSync } from 'node:fs';
import { SIGKILL, SW_BYTES_AT } from '../abi/signal.ts';
import { SyscallError } from '../errors.ts';
import { writeEntries } from '../image/file.ts';
import type { ImageDraft } from '../image/store.ts';
import { createStream } from '../image/stream.ts';
import { fileName, images, pagesFile } from '../image/types.ts';
import { HEADER, LEGACY_SIZE } from '../image/xsave.ts';
import { type FlaggedVma, readFlaggedMaps } from '../sys/maps.ts';
import { AllOrNone } from './allornone.ts';
import { letCompile, WORTH_COMPILING } from './compiling.ts';
import { Foresight } from './foresight.ts';
import { freezeTree } from './freeze.ts';
import { endIdle, IDLE_MEMORY, startIdle } from './idle.ts';
import { HeldMemory, type Memory, ProcessMemory, writePagemap } from './memory.ts';
import { saveRegisters, writeFrame } from './registers.ts';
import { prepareMirrors, saveLayout } from './scratch.ts';
import { type CheckpointOptions, type SavingOptions, save } from './stopped.ts';
import { enterAll, Guest, leaveAll } from './task.ts';
import { saveThread } from './thread.ts';
import { vdsoOf } from './vdso.ts';

const NOWHERE = { create: () => ({ write() {}, close() {} }) };

/**
 * Lists and reads what was written since an earlier image, which is in many small pieces: what is done to ten thousand pieces for
 * the first time takes four times as long as it does then.
 */
export function practiseReading(memory: readonly Memory[]): void {
  for (const each of memory) {
    if (!(each instanceof ProcessMemory)) continue;
    try {
      for (let round = 0; round < 2; round++) writePagemap(NOWHERE, each, 1);
      each.each(() => {});
    } catch (error) {
      // It runs, and unmaps what is being read.
      if (!(error instanceof SyscallError)) throw error;
    }
  }
}

/** Checkpoints a process of ours that does nothing, into a stream to nowhere and to where the image will be. */
export class Rehearsal implements Disposable {
  readonly #options: CheckpointOptions;
  readonly #nowhere = openSync('/dev/null', 'w');
  readonly #room = new HeldMemory(IDLE_MEMORY, 0);
  /** 0 where there is none. */
  #pid = 0;
  #mappings: readonly FlaggedVma[] = [];

  /**
   * @param into has nothing of it afterwards
   * @param threads how many there will be to be saved
   */
  constructor(options: CheckpointOptions, into: ImageDraft, threads: number) {
    this.#options = options;
    const until = performance.now() + Math.min(MOST_REHEARSING, REHEARSING + 2 * threads);
    let left = false;
    this.#needless(() => {
      this.#pid = startIdle(true);
      this.#mappings = readFlaggedMaps(this.#pid);
      const saveInUse = registersInUse(this.#pid);
      if (threads >= WORTH_COMPILING) practiseThreads(this.#pid);
      for (let round = 0; round < ROUNDS && performance.now() < until; round++) {
        const written = round % WRITTEN === 0 && into.clear !== undefined;
        left = written;
        if (written) {
          into.reserve?.(fileName(images.PSTREE), 0, true);
          into.reserve?.(pagesFile(1), IDLE_MEMORY, false);
          // Without its sums it is no image, whatever happens now.
          this.#save({ ...into, seal() {}, commit() {} });
          into.clear!();
        } else this.#save(this.#stream());
        left = false;
        saveInUse();
        if (round % BREAK === 0) letCompile();
      }
    });
    try {
      if (left) into.clear!();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * For the last time, down to its end, right before the processes are stopped: what was done a tenth of a second ago takes a fifth longer
   * than what the caches of the processor still have.
   */
  last(): void {
    if (this.#pid === 0) return;
    this.#needless(() => {
      for (let round = 0; round < LAST; round++) this.#save(this.#stream());
      if (this.#options.outcome !== 'kill') return;
      using ending = new AllOrNone(this.#pid, SIGKILL);
      this.#save(this.#stream(), { outcome: 'kill', ending });
      this.#pid = 0;
    });
    this.#end();
  }

  #stream(): ImageDraft {
    return createStream(this.#nowhere, undefined);
  }

  #save(draft: ImageDraft, how?: Partial<SavingOptions>): void {
    using foresight = Foresight.byAsking('small');
    foresight.note(this.#pid, this.#mappings);
    foresight.prepare();
    prepareMirrors([1], saveLayout);
    // Of those that end, memory is written while they stand still.
    const outcome = this.#options.outcome === 'run' ? {} : { beforeEnd() {} };
    save({ ...this.#options, ...REHEARSED, pid: this.#pid, ...(how ?? outcome) }, draft, this.#room, foresight);
    this.#room.clear();
  }

  /** Where it cannot be done it is not needed; what goes wrong with the program itself is said then. */
  #needless(rehearsed: () => void): void {
    try {
      rehearsed();
    } catch {
      this.#end();
    }
  }

  #end(): void {
    if (this.#pid > 0) endIdle(this.#pid);
    this.#pid = 0;
  }

  [Symbol.dispose](): void {
    this.#end();
    this.#room[Symbol.dispose]();
    closeSync(this.#nowhere);
  }
}

const [ROUNDS, LAST] = [75, 10];
/** One round of so many is written to where the image will be, if it can be taken away there. */
const WRITTEN = 3;
/** After so many rounds there is time for the thread that compiles: it took half of the time for which a small program stood still. */
export const BREAK = 5;
/**
 * In ms, of which all rounds take 150, and more where others want the processor: what takes 4 ms the first time takes 1.2 the second
 * and 0.6 after 50. What is done to hundreds of threads is worth more of it, though a small program would wait for the processor longer
 * than it gains.
 */
const [REHEARSING, MOST_REHEARSING] = [300, 600];

const REHEARSED = {
  rehearsed: true,
  outcome: 'run',
  beforeEnd: undefined,
  endsMeanwhile: undefined,
  ghostLimit: 1 << 20,
  tracking: undefined,
  serve: undefined,
  lazyPages: false,
} as const;

/** Does to the one thread of a process what is done to each of many, until it takes no less time. */
function practiseThreads(pid: number): void {
  for (let round = 0; round < OFTEN; round++) freezeTree(pid, TIMEOUT).release();
  const frozen = freezeTree(pid, TIMEOUT);
  const guests = frozen.processes.map((process) => new Guest(process, vdsoOf(pid)()));
  try {
    enterAll(guests);
    for (const remote of guests.flatMap(({ remotes }) => remotes)) {
      const { xstate } = remote.tracee;
      const registers = [xstate.slice(), inUse(xstate)];
      for (let round = 0; round < OFTEN; round++) {
        xstate.set(registers[round % 2]!);
        writeFrame(remote);
        const core = saveThread(remote);
        remote.run();
        writeEntries(NOWHERE.create(), images.CORE, [core()]);
      }
    }
    leaveAll(guests);
  } finally {
    frozen.release();
    for (const guest of guests) guest[Symbol.dispose]();
  }
}

/** After 400 calls of a function V8 compiles it: --invocation-count-for-maglev. */
const OFTEN = 450;
/** In ms, for a process that does nothing. */
const TIMEOUT = 1000;

/** @returns saves the registers of a process as if they were in use: code for small integers alone is thrown away at the first large one */
function registersInUse(pid: number): () => void {
  const frozen = freezeTree(pid, TIMEOUT);
  const tracee = frozen.processes[0]!.threads[0]!;
  tracee.xstate.set(inUse(tracee.xstate));
  frozen.release();
  return () => {
    const thread_info = saveRegisters(tracee, tracee.registers, 0);
    writeEntries(NOWHERE.create(), images.CORE, [{ mtype: 'X86_64', thread_info }]);
  };
}

/** Registers as programs have them, zeros and large numbers: nothing has been in most of this one. */
function inUse(found: Uint8Array): Uint8Array {
  const xstate = found.slice();
  xstate[HEADER] = xstate[SW_BYTES_AT]!;
  for (let at = LEGACY_SIZE; at < xstate.length; at += 32) xstate.fill(0xff, at, at + 16);
  for (let at = 160; at < 416; at += 16) xstate.fill(0xff, at, at + 8);
  return xstate;
}
