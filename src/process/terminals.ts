/** Sessions and their controlling terminals: setsid(2), ioctl_tty(2), credentials(7). */
import { O_ACCMODE, O_CLOEXEC, O_NONBLOCK } from '../abi/fcntl.ts';
import { viewOf } from '../abi/struct.ts';
import { TIOCSCTTY, TIOCSPGRP } from '../abi/termios.ts';
import { NR } from '../abi/unistd.ts';
import { close } from '../sys/files.ts';
import { pidfd_getfd, pidfd_open } from '../sys/process.ts';
import { isMaster, type TtyInfo, terminalOfSession } from './files/ttypair.ts';
import type { Made } from './made.ts';
import { lend, type Remote } from './remote.ts';
import type { Restoring } from './restoring.ts';

/** Gives the leader of a new session its terminal, which children that it gets from then on have as well. */
export function takeTerminal({ leader, task }: Made, restoring: Restoring, keep: number): void {
  const info = terminalOf(restoring, task.pid);
  if (info === undefined) return;
  // One that is taken from another session, as with --shell-job, is taken by force.
  withTerminal(leader, keep, terminalOfSession(info, restoring), (lent) => {
    leader.passResult(lent, leader.call(NR.ioctl, 0, TIOCSCTTY, 1), 0);
  });
  const files = [...restoring.tree.files.values()].filter(({ tty }) => {
    if (tty === undefined) return false;
    const { type, sid } = restoring.terminal(tty.tty_info_id);
    return type === 'CTTY' && sid === task.pid;
  });
  for (const { id, tty } of files) restoring.controlling.set(id, openWithin(leader, tty!.flags));
}

/** Has a process open its controlling terminal. @returns a descriptor of ours of the same open file */
function openWithin(leader: Remote, flags: number): number {
  const wanted = (flags & O_ACCMODE) | O_NONBLOCK | O_CLOEXEC;
  const opened = leader.call(NR.open, leader.text(Buffer.from('/dev/tty')), wanted, 0);
  leader.run();
  const targetfd = leader.result(opened);
  const pidfd = pidfd_open({ pid: leader.scratch.pid, flags: 0 });
  const fd = pidfd_getfd({ pidfd, targetfd, flags: 0 });
  close({ fd: pidfd });
  leader.call(NR.close, targetfd);
  leader.run();
  return fd;
}

/** Says which group of a session may read from its terminal, when all groups are there. */
export function setForeground(made: readonly Made[], restoring: Restoring, keep: number): void {
  const groups = new Set(made.map(({ task }) => task.pgid));
  for (const { leader, task } of made) {
    const info = task.sid === task.pid && !task.isZombie ? terminalOf(restoring, task.pid) : undefined;
    // Of a group that has ended since, nobody is left to read.
    if (info === undefined || !groups.has(info.pgrp)) continue;
    const pgrp = new Uint8Array(4);
    viewOf(pgrp).setInt32(0, info.pgrp, true);
    withTerminal(leader, keep, terminalOfSession(info, restoring), (lent) => {
      leader.passResult(lent, leader.call(NR.ioctl, 0, TIOCSPGRP, leader.put(pgrp)), 0);
    });
  }
}

function terminalOf({ terminals }: Restoring, sid: number): TtyInfo | undefined {
  return terminals.find((each) => each.type === 'PTY' && each.sid === sid && !isMaster(each));
}

function withTerminal(leader: Remote, keep: number, fd: number, action: (lent: number) => void): void {
  const lent = lend(leader, keep, fd);
  action(lent);
  leader.passResult(lent, leader.call(NR.close, 0), 0);
  leader.run();
}
