/**
 * System calls that wait for a time which the program gave, and have waited for a part of it when they are stopped. The kernel keeps
 * what is left to itself. From outside it can be told all the same: when a thread fell asleep stands in /proc/PID/sched, and when it
 * is to be woken in /proc/timer_list, where timers have no names but are exact.
 *
 * A restored thread makes the call for what is left, is stopped in it at once, and then has what it had: the arguments of the program
 * in its registers, and in the kernel a call that is to be gone on with (restart_syscall(2)). Nothing of this is in its memory.
 */
import { FUTEX_CMD_MASK, FUTEX_WAIT } from '../abi/futex.ts';
import { timespec } from '../abi/time.ts';
import { NR } from '../abi/unistd.ts';
import { readProcText } from '../sys/proc.ts';
import { maskOf, sched_getaffinity, sched_setaffinity, sleep } from '../sys/process.ts';
import { readMemory } from '../sys/process_vm.ts';
import { interrupt } from '../sys/ptrace.ts';
import { Region } from '../sys/region.ts';
import { readStat } from '../sys/stat.ts';
import { systemTime } from './clocks.ts';
import { threadsOf } from './freeze.ts';
import type { Remote } from './remote.ts';
import {
  goToSyscall,
  type RegisterName,
  type Registers,
  readRegisters,
  SYSCALL_STOP,
  type Tracee,
  writeRegisters,
} from './tracee.ts';

/** A call, where its time stands, and in what. */
interface TimedCall {
  readonly argument: number;
  readonly register: RegisterName;
  readonly unit: 'timespec' | 'milliseconds';
  /** Whether it counts from when it was made, by its arguments. */
  relative?(args: readonly number[]): boolean;
  /** It has EINTR when it is stopped, and is made anew with another number in this register. */
  readonly anew?: true;
}

const TIMER_ABSTIME = 1;

const calls: ReadonlyMap<number, TimedCall> = new Map<number, TimedCall>([
  [NR.nanosleep, { argument: 0, register: 'rdi', unit: 'timespec' }],
  [
    NR.clock_nanosleep,
    { argument: 2, register: 'rdx', unit: 'timespec', relative: (args) => (args[1]! & TIMER_ABSTIME) === 0 },
  ],
  [NR.poll, { argument: 2, register: 'rdx', unit: 'milliseconds' }],
  [
    NR.futex,
    { argument: 3, register: 'r10', unit: 'timespec', relative: (args) => (args[1]! & FUTEX_CMD_MASK) === FUTEX_WAIT },
  ],
  [NR.epoll_wait, { argument: 3, register: 'r10', unit: 'milliseconds', anew: true }],
  [NR.epoll_pwait, { argument: 3, register: 'r10', unit: 'milliseconds', anew: true }],
]);

/** A thread that waits, and until when: CLOCK_MONOTONIC of the system, in nanoseconds. */
export interface Wait {
  readonly call: number;
  readonly args: readonly number[];
  readonly until: number;
}

export type Waits = ReadonlyMap<number, Wait>;

interface Sleeper {
  readonly tid: number;
  readonly call: number;
  readonly args: readonly number[];
  /** Of the whole call, in nanoseconds. */
  readonly time: number;
  /** When it is over at the latest, CLOCK_MONOTONIC of the system in nanoseconds: the call had been made when it was looked at. */
  readonly latest: number;
  readonly processor: number;
  /** When it fell asleep, in nanoseconds of a clock of its processor. */
  readonly since: number;
}

/** Looks at processes that run. What this kernel does not tell is left out: such a call is made anew with all its time. */
export function lookAtWaits(pids: Iterable<number>): Waits {
  const sleepers = [...pids].flatMap((pid) => {
    try {
      return threadsOf(pid).flatMap((tid) => sleeperOf(pid, tid) ?? []);
    } catch {
      // It ended.
      return [];
    }
  });
  const found = new Map<number, Wait>();
  if (sleepers.length === 0) return found;
  const timers = readTimers();
  const clocks = processorClocks(new Set(sleepers.map(({ processor }) => processor)));
  for (const { tid, call, args, time, latest, processor, since } of sleepers) {
    const clock = clocks.get(processor);
    if (clock === undefined) continue;
    const slept = Math.max(0, clock.shows - since);
    const guess = clock.at + time - slept;
    // The clocks of processors leave out what interrupts took, and a thread may have been kept from running before its call.
    const tolerance = Math.max(ALIKE, 0.02 * slept);
    const near = timers.filter((expires) => Math.abs(expires - guess) <= tolerance);
    // Which of several it is cannot be told, and a busy kernel may leave one out of its list. No wait may end too early.
    const until = Math.min(latest, Math.max(...near) + (near.length > 1 ? ALIKE : 0));
    if (near.length > 0) found.set(tid, { call, args, until });
  }
  return found;
}

/** Nanoseconds by which a guess may be wrong on a busy machine. */
const ALIKE = 60e6;

function sleeperOf(pid: number, tid: number): Sleeper | undefined {
  const folder = `/proc/${pid}/task/${tid}`;
  // `35 0x7ffc... 0x0 ...`, or `running`.
  const fields = readProcText(`${folder}/syscall`).trim().split(' ').map(Number);
  const call = fields[0]!;
  const args = fields.slice(1, 7);
  const seen = Number(systemTime('monotonic'));
  const timed = calls.get(call);
  if (timed === undefined || timed.relative?.(args) === false) return undefined;
  const time = timeOf(pid, timed, args[timed.argument]!);
  if (time === undefined) return undefined;
  const start = EXEC_START.exec(readProcText(`${folder}/sched`));
  if (start === null) return undefined;
  const latest = seen + time;
  return {
    tid,
    call,
    args,
    time,
    latest,
    processor: readStat(`${pid}/task/${tid}`).processor,
    since: nanoseconds(start),
  };
}

let scratch: Region | undefined;

function timeOf(pid: number, { unit }: TimedCall, value: number): number | undefined {
  if (unit === 'milliseconds') return (value | 0) < 0 ? undefined : (value | 0) * 1e6;
  scratch ??= new Region(4096);
  if (value === 0 || readMemory(pid, value, scratch.address, timespec.size) !== timespec.size) return undefined;
  const { tv_sec, tv_nsec } = timespec.read(scratch.bytes);
  return tv_sec * 1e9 + tv_nsec;
}

/** Milliseconds with six places behind the point. */
function nanoseconds([, whole, fraction]: RegExpExecArray): number {
  return Number(whole) * 1e6 + Number(fraction);
}

/** When sleeping threads are to be woken. Only root may read this. */
function readTimers(): number[] {
  try {
    const text = readProcText('/proc/timer_list');
    return [...text.matchAll(/, hrtimer_wakeup, .*\n # expires at (\d+)-/g)].map(([, at]) => Number(at));
  } catch {
    return [];
  }
}

/** What the clocks of processors show, in which `since` is told, at a CLOCK_MONOTONIC: seen by falling asleep there. */
function processorClocks(processors: ReadonlySet<number>): Map<number, { shows: number; at: number }> {
  const clocks = new Map<number, { shows: number; at: number }>();
  const before = new Uint8Array(1024);
  const length = sched_getaffinity({ pid: 0, cpusetsize: before.length, mask: before });
  try {
    for (const processor of processors) {
      const mask = maskOf(processor);
      if (sched_setaffinity.attempt({ pid: 0, cpusetsize: mask.length, mask }) < 0) continue;
      // Written down when a thread is switched to, or at the next tick.
      sleep(1);
      const at = Number(systemTime('monotonic'));
      const shown = EXEC_START.exec(readProcText('/proc/thread-self/sched'));
      if (shown !== null) clocks.set(processor, { shows: nanoseconds(shown), at });
    }
  } finally {
    sched_setaffinity({ pid: 0, cpusetsize: length, mask: before.subarray(0, length) });
  }
  return clocks;
}

const EXEC_START = /^se\.exec_start\s*:\s*(\d+)\.(\d+)$/m;

const ARGUMENTS: readonly RegisterName[] = ['rdi', 'rsi', 'rdx', 'r10', 'r8', 'r9'];

/**
 * What is left of the time that a stopped thread waits for, in nanoseconds.
 *
 * @param now CLOCK_MONOTONIC of the system @returns undefined where it does not wait, or nothing is known
 */
export function timeLeft({ tid, registers }: Tracee, waits: Waits, now: number): number | undefined {
  const wait = waits.get(tid);
  if (wait === undefined || registers.number('orig_rax') !== wait.call) return undefined;
  const { argument } = calls.get(wait.call)!;
  const same = wait.args.slice(0, argument + 1).every((value, i) => Number(registers.get(ARGUMENTS[i]!)) === value);
  // If its time was over, it is another call with the same arguments, and has just begun.
  return same && wait.until > now ? wait.until - now : undefined;
}

const SYSCALL = [0x0f, 0x05];
const ERESTART_RESTARTBLOCK = -516;

/**
 * Has a restored thread go on with a call for what is left.
 *
 * @param registers it is to go on with: those of a call that is to be made; they are changed
 * @param left in nanoseconds
 */
export function goOnWaiting(remote: Remote, registers: Registers, left: number): void {
  const call = registers.number('rax');
  const timed = calls.get(call);
  registers.set('orig_rax', -1);
  if (timed === undefined) return;
  const milliseconds = Math.max(1, Math.ceil(left / 1e6));
  if (timed.anew) {
    registers.set(timed.register, milliseconds);
    return;
  }
  const { tracee, scratch: memory } = remote;
  const { tid } = tracee;
  const time = remote.put(timespec.write({ tv_sec: Math.floor(left / 1e9), tv_nsec: Math.floor(left % 1e9) }));
  remote.run();
  const made = registers.clone();
  made.set('rip', memory.address + Buffer.from(memory.mirror.bytes.subarray(0, 4096)).indexOf(Buffer.from(SYSCALL)));
  made.set(timed.register, timed.unit === 'timespec' ? time : milliseconds);
  writeRegisters(tid, made);
  goToSyscall(tid);
  tracee.expect(({ signal }) => signal === SYSCALL_STOP, goToSyscall);
  // It enters the call with this, and cannot fall asleep. The stop at the end of the call stands for the one that is asked for.
  interrupt(tid);
  goToSyscall(tid);
  tracee.expect(({ signal }) => signal === SYSCALL_STOP, goToSyscall);
  const result = readRegisters(tid).number('rax');
  registers.set('rip', registers.number('rip') + SYSCALL.length);
  registers.set('rax', result);
  registers.set('orig_rax', result === ERESTART_RESTARTBLOCK ? call : -1);
}
