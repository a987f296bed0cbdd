/**
 * Clocks that count from the system's start: programs measure with them, and they must not jump back after a change of kernel,
 * nor forward by the time that a program was not there. time_namespaces(7)
 */
import { writeFileSync } from 'node:fs';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { CLONE_NEWTIME } from '../abi/sched.ts';
import { CLOCK_BOOTTIME, CLOCK_MONOTONIC, timespec } from '../abi/time.ts';
import { NR } from '../abi/unistd.ts';
import type { timens_entry } from '../image/messages/namespaces.ts';
import type { Value } from '../image/proto.ts';
import type { ImageStore } from '../image/store.ts';
import { entryOf } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { close, openat } from '../sys/files.ts';
import { clock_gettime } from '../sys/poll.ts';
import { readTaskText } from '../sys/proc.ts';
import { enterLent, type Remote } from './remote.ts';

export type Clocks = Value<typeof timens_entry>;

/** In nanoseconds: exact for 104 days only as a number, so as a bigint. */
type Nanoseconds = bigint;

/** What the clocks of a process show now. */
export function clocksOf(pid: number): Clocks {
  const there = offsetsOf(pid);
  const show = (name: ClockName) => parts(systemTime(name) + there[name]);
  return { monotonic: show('monotonic'), boottime: show('boottime') };
}

/**
 * Puts a process that is still alone into a time namespace in which the clocks go on from where they were. On a kernel that has
 * none, they jump.
 */
export function enterTime(remote: Remote, store: ImageStore, keep: number): void {
  if (!store.has(fileName(images.TIMENS, 0))) return;
  const unshared = remote.attempt(NR.unshare, CLONE_NEWTIME);
  remote.run();
  if (remote.result(unshared) < 0) return;
  const then = entryOf(store, images.TIMENS, 0);
  const lines = CLOCKS.map(({ name }) => {
    const { tv_sec, tv_nsec } = parts(whole(then[name]) - systemTime(name));
    return `${name} ${tv_sec} ${tv_nsec}\n`;
  });
  const folder = `/proc/${remote.tracee.pid}`;
  writeFileSync(`${folder}/timens_offsets`, lines.join(''));
  const pathname = `${folder}/ns/time_for_children`;
  const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  enterLent(remote, keep, fd, CLONE_NEWTIME);
  close({ fd });
}

const CLOCKS = [
  { name: 'monotonic', id: CLOCK_MONOTONIC },
  { name: 'boottime', id: CLOCK_BOOTTIME },
] as const;
type ClockName = (typeof CLOCKS)[number]['name'];

/** The clock outside of all time namespaces. */
export function systemTime(name: ClockName): Nanoseconds {
  const tp = new Uint8Array(timespec.size);
  clock_gettime({ clockid: CLOCKS.find((each) => each.name === name)!.id, tp });
  const { tv_sec, tv_nsec } = timespec.read(tp);
  ours ??= offsetsOf('self');
  return BigInt(tv_sec) * SECOND + BigInt(tv_nsec) - ours[name];
}

const SECOND = 1_000_000_000n;
/** Those of a namespace with a process in it do not change, and one with threads, as Node has, cannot leave it. */
let ours: Record<ClockName, Nanoseconds> | undefined;

/** What a time namespace adds to each clock; a kernel without them adds nothing. */
function offsetsOf(pid: number | 'self'): Record<ClockName, Nanoseconds> {
  const offsets = { monotonic: 0n, boottime: 0n };
  let text = '';
  try {
    text = readTaskText(`/proc/${pid}/timens_offsets`);
  } catch {
    return offsets;
  }
  for (const [, name, sec, nsec] of text.matchAll(/^(monotonic|boottime)\s+(-?\d+)\s+(\d+)$/gm)) {
    offsets[name as ClockName] = BigInt(sec!) * SECOND + BigInt(nsec!);
  }
  return offsets;
}

function whole({ tv_sec, tv_nsec }: Clocks['monotonic']): Nanoseconds {
  return BigInt(tv_sec) * SECOND + BigInt(tv_nsec);
}

/** Seconds rounded down, so that nanoseconds are never negative. */
function parts(time: Nanoseconds): Clocks['monotonic'] {
  const tv_nsec = ((time % SECOND) + SECOND) % SECOND;
  return { tv_sec: Number((time - tv_nsec) / SECOND), tv_nsec: Number(tv_nsec) };
}
