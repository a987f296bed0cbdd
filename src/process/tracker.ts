/**
 * The process that holds what watches a tree between two images of it: a userfaultfd for each address space, which ends the
 * watching when nobody has it any more, and a descriptor of each process, to end itself when they have ended.
 *
 * It is another process for each image, and the image names it. So whatever becomes of it or of us in between - it is killed, a
 * pre-dump is killed half-way, somebody else makes an image - an image that builds on one whose tracker is not there any more takes
 * nothing from it.
 *
 *     descriptors   2 i       the process i of the tree (pidfd_open(2))
 *                   2 i + 1   its userfaultfd, or the same once more
 */
import { readdirSync, readFileSync } from 'node:fs';
import { POLLIN, pollfd } from '../abi/poll.ts';
import { PR_SET_NAME, PR_SET_PDEATHSIG } from '../abi/prctl.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../abi/sched.ts';
import { SIGCHLD, SIGKILL, SIGURG } from '../abi/signal.ts';
import { NR } from '../abi/unistd.ts';
import { batch_record } from '../asm/batch.ts';
import { SyscallError } from '../errors.ts';
import type { tracked_entry } from '../image/messages/tracking.ts';
import type { Value } from '../image/proto.ts';
import { clone3 } from '../sys/clone.ts';
import { descriptorLink, listDescriptors, readFdinfo } from '../sys/fdinfo.ts';
import { close } from '../sys/files.ts';
import { kill, pidfd_getfd, pidfd_open } from '../sys/process.ts';
import { readStat, readStatus } from '../sys/stat.ts';
import { makeScratch } from './bare.ts';
import { endIdle } from './idle.ts';
import { Remote } from './remote.ts';
import { Scratch, type SlotLayout, scratchSize, slotSize } from './scratch.ts';

export type Tracked = Value<typeof tracked_entry>;

/** Of the process, as /proc shows it. */
const NAME = 'tideover-track';
const PAGE = 4096;
const ADDRESS = 0x1000_0000;

/** A process by what tells it from any later one. @throws SyscallError ESRCH, ENOENT */
export function identify(pid: number): Tracked {
  return { pid, starttime: readStat(pid).starttime };
}

export interface FoundTracker {
  readonly self: Tracked;
  /** Userfaultfds, as descriptors of ours, by the process in whose memory they watch. The finder closes them. */
  readonly watching: ReadonlyMap<number, number>;
}

/** All that hold something of these processes. */
export function findTrackers(pids: ReadonlySet<number>): FoundTracker[] {
  const ours = readStatus(process.pid).Uid[1];
  const names = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return names.flatMap((name) => {
    try {
      if (readFileSync(`/proc/${name}/comm`, 'utf8').trimEnd() !== NAME) return [];
      const pid = Number(name);
      return readStatus(pid).Uid[1] === ours && trackedBy(pid).some((each) => pids.has(each)) ? [lookInto(pid)] : [];
    } catch {
      // It ended meanwhile.
      return [];
    }
  });
}

function trackedBy(tracker: number): number[] {
  return listDescriptors(tracker).flatMap((fd) =>
    fd % 2 === 0
      ? readFdinfo(tracker, fd).lines.flatMap(([name, value]) => (name === 'Pid' ? [Number(value)] : []))
      : [],
  );
}

function lookInto(tracker: number): FoundTracker {
  const watching = new Map<number, number>();
  const pidfd = pidfd_open({ pid: tracker, flags: 0 });
  try {
    const self = identify(tracker);
    for (const [i, pid] of trackedBy(tracker).entries()) {
      if (descriptorLink(tracker, 2 * i + 1) !== 'anon_inode:[userfaultfd]') continue;
      watching.set(pid, pidfd_getfd({ pidfd, targetfd: 2 * i + 1, flags: 0 }));
    }
    return { self, watching };
  } catch (error) {
    for (const fd of watching.values()) close({ fd });
    throw error;
  } finally {
    close({ fd: pidfd });
  }
}

/** Ends one that was found. */
export function endTracker({ self }: FoundTracker): void {
  try {
    if (identify(self.pid).starttime === self.starttime) kill({ pid: self.pid, sig: SIGKILL });
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
  }
}

/** One that was made. It ends with us until it is let go. */
export interface Tracker {
  readonly self: Tracked;
  letGo(): void;
  end(): void;
}

/** @param watched processes, each with the descriptor here of the userfaultfd in its memory, if there is one */
export function makeTracker(watched: readonly { readonly pid: number; readonly fd: number | undefined }[]): Tracker {
  const pages = (size: number) => Math.ceil(size / PAGE) * PAGE;
  const calls = Math.max(3, 2 * watched.length) + 8;
  const data = pages(watched.length * pollfd.size + PAGE);
  const layout: SlotLayout = { frame: 0, records: pages(calls * batch_record.size), data };
  const flags = CLONE_VM + CLONE_CLEAR_SIGHAND;
  const tracee = makeScratch(() => clone3({ flags, exit_signal: SIGCHLD, pdeath_sig: SIGKILL }).pid, {
    address: ADDRESS,
    size: scratchSize(slotSize(layout)),
  });
  const { pid } = tracee;
  const scratch = new Scratch(pid, ADDRESS, scratchSize(slotSize(layout)), SIGURG);
  const end = () => {
    scratch[Symbol.dispose]();
    endIdle(pid);
  };
  try {
    scratch.install();
    tracee.blockSignals(SIGURG);
    const remote = new Remote(tracee, scratch, layout, 0);
    remote.call(NR.close_range, 0, 0xffff_ffff, 0);
    remote.call(NR.setsid);
    remote.call(NR.prctl, PR_SET_NAME, remote.text(Buffer.from(NAME)), 0, 0, 0);
    // It stands last until the others are there.
    const us = remote.call(NR.pidfd_open, process.pid, 0);
    const last = 2 * watched.length;
    if (last > 0) {
      const moved = remote.call(NR.dup2, 0, last);
      remote.passResult(us, moved, 0);
      remote.call(NR.close, 0);
    }
    for (const each of watched) {
      const opened = remote.call(NR.pidfd_open, each.pid, 0);
      if (each.fd !== undefined) remote.call(NR.pidfd_getfd, last, each.fd, 0);
      else remote.passResult(opened, remote.call(NR.dup, 0), 0);
    }
    remote.call(NR.close, last);
    remote.run();
    return {
      self: identify(pid),
      letGo() {
        // It dies with us as long as it is traced, and is to outlive us then.
        remote.call(NR.prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
        for (const i of watched.keys()) {
          remote.attempt(NR.poll, remote.put(pollfd.write({ fd: 2 * i, events: POLLIN, revents: 0 })), 1, -1);
        }
        remote.call(NR.exit_group, 0);
        remote.sendOff();
        scratch[Symbol.dispose]();
      },
      end,
    };
  } catch (error) {
    end();
    throw error;
  }
}
