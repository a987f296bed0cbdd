/**
 * What must not be left half done if tideover is killed: a process of ours, untraced and in a session of its own, waits for our
 * end meanwhile and does what is needed then. To take it away is the moment from which all is done.
 */

import { AT_FDCWD, O_CLOEXEC, O_WRONLY } from '../abi/fcntl.ts';
import { FITHAW } from '../abi/fs.ts';
import { POLLIN, POLLOUT, pollfd } from '../abi/poll.ts';
import { PR_SET_PDEATHSIG } from '../abi/prctl.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../abi/sched.ts';
import { SIGCHLD, SIGKILL, SIGURG } from '../abi/signal.ts';
import { IPPROTO_TCP } from '../abi/socket.ts';
import { TCP_REPAIR } from '../abi/tcp.ts';
import { bytesOf } from '../abi/text.ts';
import { NR } from '../abi/unistd.ts';
import { batch_record } from '../asm/batch.ts';
import { clone3 } from '../sys/clone.ts';
import { close, write } from '../sys/files.ts';
import { eventfd2 } from '../sys/poll.ts';
import { makeScratch } from './bare.ts';
import { endIdle } from './idle.ts';
import { Remote } from './remote.ts';
import { Scratch, type SlotLayout, scratchSize, slotSize } from './scratch.ts';

const PAGE = 4096;
const ADDRESS = 0x1000_0000;

/** What is written when processes go on, into a file that is empty where they do not. */
export interface GoingNote {
  /** Open for appending. Whoever waits for its lock, by flock(2), waits for the guard too. */
  readonly fd: number;
  /** @param pid of the root */
  text(pid: number): string;
}

/**
 * Letting go of a tree takes as many calls as it has threads. If we end between the first and the last of them, those that were
 * let go of would go on without the others: they are killed.
 *
 * @param pids of processes that are stopped now, and are to go on all or none; the root is the first
 * @param note descriptor of ours for a file that is emptied if they do not go on, when the root has ended: the init of a PID
 *   namespace does so after all others in it
 * @returns takes the guard away
 */
export function guardOver(pids: readonly number[], note?: number): () => void {
  const notes = note === undefined ? [] : [note];
  const { end } = standBy(pids.length + 2, {
    open: (remote, us) => [...copies(notes)(remote, us), ...pids.map((each) => remote.call(NR.pidfd_open, each, 0))],
    act(remote, opened) {
      const pidfds = opened.slice(notes.length);
      for (const pidfd of pidfds) remote.attempt(NR.pidfd_send_signal, pidfd, SIGKILL, 0, 0);
      if (note === undefined) return;
      remote.attempt(NR.poll, remote.put(pollfd.write({ fd: pidfds[0]!, events: POLLIN, revents: 0 })), 1, -1);
      remote.attempt(NR.ftruncate, opened[0]!, 0);
    },
  });
  return end;
}

/**
 * Who waits for memory that comes later would find zeros in its place when nobody is there any more to bring it, or to say what
 * it is. If we end, all of them are killed, and their memory is held on to until then.
 *
 * @param pids who waits, or may
 * @param userfaultfds descriptors of ours
 * @param note what is written, and into which descriptor of ours
 */
export function guardWaiting(
  pids: readonly number[],
  userfaultfds: readonly number[],
  note: { readonly fd: number; readonly text: string },
): { readonly pid: number; end(): void } {
  const shared = [note.fd, ...userfaultfds];
  return standBy(pids.length + shared.length + 1, {
    open: (remote, us) => [
      ...copies(shared)(remote, us),
      ...pids.map((each) => remote.attempt(NR.pidfd_open, each, 0)),
    ],
    act(remote, [log, ...opened]) {
      const text = Buffer.from(note.text);
      for (const pidfd of opened.slice(userfaultfds.length)) {
        if (pidfd >= 0) remote.attempt(NR.pidfd_send_signal, pidfd, SIGKILL, 0, 0);
      }
      remote.attempt(NR.write, log!, remote.put(text), text.length);
    },
  });
}

/** A guard that is told when its duty becomes another. */
export interface TurningGuard {
  /** From now on the processes are to end, if we do. */
  turn(): void;
  end(): void;
}

/**
 * Connections that are in repair neither send nor say that they end, and packets that are held back for them are so until a restore.
 * If we end, they are to go on. When the image is written it is the other way round: then none of the processes is to go on.
 * 9 times the eventfd of polled() is SIGKILL, and a flag that netlink refuses (MSG_OOB); 6 times it is the level of TCP_REPAIR, or
 * none that has it.
 *
 * @param sockets descriptors of ours
 * @param pids of processes that have them
 * @param orders what lets packets through, for a netlink socket of ours
 */
export function guardConnections(
  sockets: readonly number[],
  pids: readonly number[],
  orders: { readonly fd: number; readonly messages: readonly Uint8Array[] },
): TurningGuard {
  const calls = 2 + 2 * sockets.length + pids.length + orders.messages.length + 2;
  return turning((turned) => {
    const shared = [turned, orders.fd, ...sockets];
    return standBy(calls, {
      open: (remote, us) => [...copies(shared)(remote, us), ...pids.map((each) => remote.call(NR.pidfd_open, each, 0))],
      act(remote, [event, netlink, ...opened]) {
        const toEnd = polled(remote, event!, SIGKILL, POLLIN);
        for (const pidfd of opened.slice(sockets.length)) {
          remote.passResult(toEnd, remote.attempt(NR.pidfd_send_signal, pidfd, 0, 0, 0), 1);
        }
        const toGoOn = polled(remote, event!, IPPROTO_TCP, POLLOUT);
        const off = remote.put(new Uint8Array(4));
        for (const fd of opened.slice(0, sockets.length)) {
          remote.passResult(toGoOn, remote.attempt(NR.setsockopt, fd, 0, TCP_REPAIR, off, 4), 1);
        }
        for (const message of orders.messages) {
          const sent = remote.attempt(NR.sendto, netlink!, remote.put(message), message.length, 0, 0, 0);
          remote.passResult(toEnd, sent, 3);
        }
      },
    });
  });
}

/** @param make gets a descriptor of ours for an eventfd, to which one write is made when the duty becomes another */
export function turning(make: (turned: number) => { end(): void }): TurningGuard {
  const turned = eventfd2({ initval: 0, flags: O_CLOEXEC });
  try {
    const guard = make(turned);
    return {
      turn: () => write({ fd: turned, buf: FULL, count: FULL.length }),
      end() {
        guard.end();
        close({ fd: turned });
      },
    };
  } catch (error) {
    close({ fd: turned });
    throw error;
  }
}

/** The most that an eventfd takes: it can be read then, and not be written to (eventfd(2)). */
const FULL = Uint8Array.of(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);

/**
 * A call whose result is a number if an eventfd has been written to (POLLIN), or has not (POLLOUT), and 0 otherwise. It is the
 * argument by which a later call does what it is for, or nothing: so all is decided by that one write.
 */
export function polled(remote: Remote, eventfd: number, number: number, events: number): number {
  const each = pollfd.write({ fd: eventfd, events, revents: 0 });
  return remote.attempt(NR.poll, remote.put(Buffer.concat(Array(number).fill(each))), number, 0);
}

/**
 * Whoever writes to a file system that is frozen waits. If we end, all are thawed.
 *
 * @param roots descriptors of ours, of a file or directory in each
 * @returns takes the guard away
 */
export function guardThaw(roots: readonly number[]): () => void {
  const { end } = standBy(roots.length, {
    open: copies(roots),
    act(remote, theirs) {
      for (const fd of theirs) remote.attempt(NR.ioctl, fd, FITHAW, 0);
    },
  });
  return end;
}

/** The guard has descriptors of its own for ours. */
export const copies =
  (fds: readonly number[]): Duty['open'] =>
  (remote, us) =>
    fds.map((fd) => {
      const index = remote.call(NR.pidfd_getfd, 0, fd, 0);
      remote.passResult(us, index, 0);
      return index;
    });

/**
 * A control group that is frozen stays so. If we end, it is to be let go of.
 *
 * @param file its cgroup.freeze
 * @returns takes the guard away
 */
export function guardFreezer(file: string): () => void {
  const { end } = standBy(1, {
    open: (remote) => [remote.call(NR.openat, AT_FDCWD, remote.text(bytesOf(file)), O_WRONLY | O_CLOEXEC, 0)],
    act(remote, [fd]) {
      remote.attempt(NR.write, fd!, remote.put(Uint8Array.of(0x30)), 1);
    },
  });
  return end;
}

export interface Duty {
  /** Adds the calls that open what is needed. @param us index of one that opens a pidfd of ours @returns their indexes */
  open(remote: Remote, us: number): number[];
  /** Adds the calls to be made when we have ended. @param opened descriptors, in the order of open() */
  act(remote: Remote, opened: readonly number[]): void;
}

/** @param calls how many of either kind there are @returns takes the process away */
export function standBy(calls: number, duty: Duty): { readonly pid: number; end(): void } {
  const records = Math.ceil(((calls + 8) * batch_record.size) / PAGE) * PAGE;
  const layout: SlotLayout = { frame: 0, records, data: PAGE };
  const flags = CLONE_VM + CLONE_CLEAR_SIGHAND;
  const tracee = makeScratch(() => clone3({ flags, exit_signal: SIGCHLD, pdeath_sig: SIGKILL }).pid, {
    address: ADDRESS,
    size: scratchSize(slotSize(layout)),
  });
  const { pid } = tracee;
  try {
    using scratch = new Scratch(pid, ADDRESS, scratchSize(slotSize(layout)), SIGURG);
    scratch.install();
    tracee.blockSignals(SIGURG);
    const remote = new Remote(tracee, scratch, layout, 0);
    remote.call(NR.close_range, 0, 0xffff_ffff, 0);
    remote.call(NR.setsid);
    const us = remote.call(NR.pidfd_open, process.pid, 0);
    const opening = duty.open(remote, us);
    // It dies with us as long as it is traced, and is to outlive us then.
    remote.call(NR.prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    remote.run();
    const opened = opening.map((index) => remote.result(index));
    const fd = remote.result(us);
    remote.call(NR.poll, remote.put(pollfd.write({ fd, events: POLLIN, revents: 0 })), 1, -1);
    duty.act(remote, opened);
    remote.call(NR.exit_group, 0);
    remote.sendOff();
  } catch (error) {
    endIdle(pid);
    throw error;
  }
  return { pid, end: () => endIdle(pid) };
}
