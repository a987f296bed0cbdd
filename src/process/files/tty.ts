/**
 * Terminals: both ends of pairs (pty(7)), /dev/tty, and with --shell-job the end of a pair whose other one somebody else has, for
 * which the terminal stands that the restore is started in. tty.img, tty-info.img; ioctl_tty(2)
 *
 * Descriptors refer to a terminal by `tty_info_id`: twice the index of a pair, and one more for its master. What has no settings
 * is hung up.
 */
import { Errno } from '../../abi/errno.ts';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  O_ACCMODE,
  O_CLOEXEC,
  O_NOCTTY,
  O_NONBLOCK,
  O_PATH,
  O_RDWR,
} from '../../abi/fcntl.ts';
import { decodeDevice, encodeDevice } from '../../abi/kdev_t.ts';
import { POLLHUP } from '../../abi/poll.ts';
import { S_IFCHR, S_IFMT, type Statx } from '../../abi/stat.ts';
import { viewOf } from '../../abi/struct.ts';
import * as tio from '../../abi/termios.ts';
import { UnsupportedError } from '../../errors.ts';
import { attributes, close, ioctl, ioctlInt, openat } from '../../sys/files.ts';
import { poll } from '../../sys/poll.ts';
import { readStat, type Stat } from '../../sys/stat.ts';
import { isGone } from '../gone.ts';
import type { Restoring } from '../restoring.ts';
import type { Saving } from '../saving.ts';
import { type FileEntry, type FileKind, type OpenFile, restoreOwner, saveOwner, setStatusFlags } from './file.ts';
import { isLive, isMaster, openEnd, setLocked, setPacketMode, type TtyInfo, withPeer } from './ttypair.ts';
import { peekInput, peekOutput, termiosOf } from './ttyqueue.ts';

/** Documentation/admin-guide/devices.txt: virtual terminals, /dev/tty and its like, the other ends of pairs. */
const TTY_MAJOR = 4;
const TTYAUX_MAJOR = 5;
const [CTTY, PTMX] = [0, 2];
const SLAVE_MAJOR = 136;
const SLAVE_MAJORS = 8;
const FIRST_SERIAL = 64;
/** Ids of terminals that are no pair, and of ends that are hung up: the index may have been given to another pair. */
const CTTY_ID = 1 << 24;
const HUNG_ID = 1 << 23;
const DELETED = ' (deleted)';

export const tty: FileKind = {
  type: 'TTY',

  matches({ link, stat, flags }) {
    if (!link.startsWith('/') || (flags & O_PATH) !== 0 || (stat.stx_mode & S_IFMT) !== S_IFCHR) return false;
    const major = stat.stx_rdev_major;
    return major === TTY_MAJOR || major === TTYAUX_MAJOR || isSlave(major);
  },

  check(file) {
    const { stx_rdev_major: major, stx_rdev_minor: minor } = file.stat;
    if (isSlave(major) || (major === TTYAUX_MAJOR && minor === PTMX)) {
      refuseDiscipline(file);
      return;
    }
    if (major === TTYAUX_MAJOR && minor === CTTY) {
      refuseLost(file);
      return;
    }
    const serial = major === TTY_MAJOR && minor >= FIRST_SERIAL;
    const what = serial ? 'a serial line' : major === TTY_MAJOR ? 'a virtual terminal' : 'the console';
    throw new UnsupportedError({
      what: file.link,
      pid: file.pid,
      fd: file.fd,
      why: `it is ${what}, which is of this machine`,
      remedy: 'run the program within tmux(1) or script(1), or with its input and output redirected to files',
    });
  },

  save(file, saving) {
    const info = infoOf(file, saving);
    if (!saving.terminals.has(info.id)) saving.terminals.set(info.id, info);
    const { id, flags, stat } = file;
    const fown = saveOwner(file);
    const regf_id = saving.newId();
    const name = file.link.endsWith(DELETED) ? file.link.slice(0, -DELETED.length) : file.link;
    const reg = { id: regf_id, flags, pos: 0, fown, name, mnt_id: -1, mode: stat.stx_mode, build_id: [] };
    saving.files.push({ type: 'REG', id: regf_id, reg });
    return { tty: { id, tty_info_id: info.id, flags, fown, regf_id } };
  },

  restore(entry, restoring) {
    const { tty_info_id, flags, fown } = entry.tty!;
    const info = restoring.terminal(tty_info_id);
    const fd =
      info.type === 'PTY' ? openEnd(entry, info, flags, restoring) : controllingTerminal(entry, info, restoring);
    setStatusFlags(fd, flags);
    restoreOwner(restoring, fd, fown);
    return fd;
  },
};

/** What is no terminal but the line of a network interface (slip, ppp), or of a device. */
function refuseDiscipline({ link, pid, fd, local }: OpenFile): void {
  if (isHungUp(local)) return;
  const { c_line } = termiosOf(local);
  if (c_line === tio.N_TTY) return;
  const why = `it has line discipline ${c_line} (TIOCSETD)`;
  throw new UnsupportedError({ what: link, pid, fd, why, remedy: 'end what has set it' });
}

/** /dev/tty is that of the session, but for one that was opened in another, or is hung up. */
function refuseLost({ link, pid, fd, local }: OpenFile): void {
  const device = new Uint8Array(4);
  const result = ioctl.attempt({ fd: local, request: tio.TIOCGDEV, arg: device });
  if (result === 0 && viewOf(device).getInt32(0, true) === readStat(pid).tty_nr) return;
  const why = 'it is not the terminal of its session any more';
  throw new UnsupportedError({ what: link, pid, fd, why, remedy: 'let the program close it' });
}

function isSlave(major: number): boolean {
  return major >= SLAVE_MAJOR && major < SLAVE_MAJOR + SLAVE_MAJORS;
}

/** What a process of the session has opened; for a session outside of the image it is our own. */
function controllingTerminal(entry: FileEntry, { type }: TtyInfo, restoring: Restoring): number {
  if (type !== 'CTTY') {
    throw new UnsupportedError({
      what: `file ${entry.id} of the image`,
      why: `terminals of type ${type} cannot be restored yet`,
      remedy: 'restore it with CRIU',
    });
  }
  const opened = restoring.controlling.get(entry.id);
  if (opened !== undefined) return opened;
  const flags = (entry.tty!.flags & O_ACCMODE) | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
  return openat({ dirfd: AT_FDCWD, pathname: '/dev/tty', flags, mode: 0 });
}

function infoOf({ local, stat, pid }: OpenFile, { ids }: Saving): TtyInfo {
  const { stx_rdev_major: major, stx_rdev_minor: minor } = stat;
  if (major === TTYAUX_MAJOR && minor === CTTY) {
    const { sid } = ids.groupOf(pid);
    return { ...common(stat), id: CTTY_ID + sid, type: 'CTTY', sid };
  }
  if (major === TTYAUX_MAJOR) {
    const index = ioctlInt(local, tio.TIOCGPTN);
    const switches = {
      locked: ioctlInt(local, tio.TIOCGPTLCK) !== 0,
      packet_mode: ioctlInt(local, tio.TIOCGPKT) !== 0,
    };
    return { ...common(stat), id: 2 * index + 1, pty: { index }, ...settingsOf(local), ...switches };
  }
  const index = ((major - SLAVE_MAJOR) << 8) | minor;
  return slaveInfo(index, stat, isHungUp(local) ? undefined : local);
}

/** @param fd none where it is hung up */
function slaveInfo(index: number, stat: Statx, fd: number | undefined): TtyInfo {
  const id = 2 * index + (fd === undefined ? HUNG_ID : 0);
  const owner = { uid: stat.stx_uid, gid: stat.stx_gid };
  return { ...common(stat), ...owner, id, pty: { index }, ...(fd === undefined ? {} : settingsOf(fd)) };
}

function common(stat: Statx) {
  return {
    ...({ type: 'PTY', locked: false, exclusive: false, packet_mode: false, sid: 0, pgrp: 0 } as const),
    rdev: encodeDevice(stat.stx_rdev_major, stat.stx_rdev_minor),
    dev: encodeDevice(stat.stx_dev_major, stat.stx_dev_minor),
  };
}

/** The index of a slave by the number that /proc/PID/stat has, or undefined for another terminal. */
function indexOf(device: number): number | undefined {
  const { major, minor } = decodeDevice(device);
  return isSlave(major) ? ((major - SLAVE_MAJOR) << 8) | minor : undefined;
}

/** hung_up_tty_ioctl() of drivers/tty/tty_io.c. */
function isHungUp(fd: number): boolean {
  return ioctl.attempt({ fd, request: tio.TCGETS2, arg: new Uint8Array(tio.termios2.size) }) === -Errno.EIO;
}

/** Of a pair both ends have the same, but for who may open them. */
function settingsOf(fd: number) {
  const { c_cc, ...rest } = termiosOf(fd);
  const [locked, size] = [new Uint8Array(tio.termios.size), new Uint8Array(tio.winsize.size)];
  ioctl({ fd, request: tio.TIOCGLCKTRMIOS, arg: locked });
  ioctl({ fd, request: tio.TIOCGWINSZ, arg: size });
  const { c_cc: lockedCharacters, ...lockedRest } = tio.termios.read(locked);
  return {
    termios: { ...rest, c_cc: [...c_cc] },
    termios_locked: { ...lockedRest, c_ispeed: 0, c_ospeed: 0, c_cc: [...lockedCharacters] },
    winsize: tio.winsize.read(size),
    exclusive: ioctlInt(fd, tio.TIOCGEXCL) !== 0,
  };
}

/**
 * Which session a terminal is of, and which of its process groups is in the foreground: known by its processes.
 *
 * @param files terminals that some process has open
 * @throws UnsupportedError for one whose other end is outside of the tree, without --shell-job
 */
export function saveSessions(saving: Saving, files: readonly OpenFile[], pids: ReadonlySet<number>): void {
  const { terminals } = saving;
  const outside = (what: string, pid: number, fd?: number) => {
    if (saving.options.shellJob) return;
    throw new UnsupportedError({
      ...{ what, pid, ...(fd === undefined ? {} : { fd }) },
      why: 'its other end is outside of the tree',
      remedy: 'give --shell-job, here and at the restore: the terminal of the restore will stand for it',
    });
  };
  for (const file of files) {
    const info = infoOf(file, saving);
    const known =
      info.type === 'CTTY' ? pids.has(readStat(file.pid).session) : !isLive(info) || terminals.has(info.id | 1);
    if (!known) outside(file.link, file.pid, file.fd);
    if (!isMaster(info) || terminals.has(info.id - 1)) continue;
    // One that was open and is not any more: whoever reads from the master is told so.
    if ((poll(file.local, 0) & POLLHUP) !== 0) addClosedSlave(saving, info);
  }
  for (const pid of pids) {
    const stat = statOf(pid, saving);
    if (stat === undefined) continue;
    const { session, tty_nr, tpgid, pgrp } = stat;
    if (tty_nr === 0 || !pids.has(session)) continue;
    const index = indexOf(tty_nr >>> 0);
    if (index === undefined) {
      const why = 'it is no pseudo-terminal, but of this machine';
      throw new UnsupportedError({
        what: 'controlling terminal',
        pid,
        why,
        remedy: 'run it within tmux(1) or script(1)',
      });
    }
    const master = terminals.get(2 * index + 1);
    if (master === undefined) outside(`controlling terminal /dev/pts/${index}`, pid);
    if (!terminals.has(2 * index)) {
      if (master === undefined) addForeignSlave(terminals, index);
      else addClosedSlave(saving, master);
    }
    for (const id of [2 * index, 2 * index + 1]) {
      const info = terminals.get(id);
      if (info === undefined) continue;
      terminals.set(id, { ...info, sid: saving.ids.inside(session) });
      // The group may be without its leader.
      if (pgrp === tpgid) terminals.set(id, { ...terminals.get(id)!, pgrp: saving.ids.groupOf(pid).pgid });
    }
  }
}

/** None of a process that runs and has ended meanwhile. */
function statOf(pid: number, { stopped }: Saving): Stat | undefined {
  try {
    return readStat(pid);
  } catch (error) {
    if (!stopped && isGone(error)) return undefined;
    throw error;
  }
}

function addClosedSlave(saving: Saving, master: TtyInfo): void {
  const { terminals } = saving;
  const { index } = master.pty!;
  const stat = saving.root.within(() => attributes(AT_FDCWD, `/dev/pts/${index}`));
  const settings = { termios: master.termios, termios_locked: master.termios_locked, winsize: master.winsize };
  terminals.set(2 * index, { ...slaveInfo(index, stat, undefined), id: 2 * index, ...settings });
}

/** The controlling terminal of processes that do not have it open. */
function addForeignSlave(terminals: Saving['terminals'], index: number): void {
  const flags = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
  const fd = openat({ dirfd: AT_FDCWD, pathname: `/dev/pts/${index}`, flags, mode: 0 });
  try {
    terminals.set(2 * index, slaveInfo(index, attributes(fd, '', AT_EMPTY_PATH), fd));
  } finally {
    close({ fd });
  }
}

/** Saves what waits between the ends of pairs. Everything must be stopped. */
export function saveTerminalQueues(saving: Saving, files: readonly OpenFile[]): void {
  const add = (tty_id: number, data: Uint8Array) => {
    if (data.length > 0) saving.terminalData.push({ tty_id, data });
  };
  for (const file of files) {
    const info = infoOf(file, saving);
    if (!isMaster(info)) continue;
    const { local: master } = file;
    const slave = files.find((each) => infoOf(each, saving).id === info.id - 1);
    if (slave !== undefined) add(info.id - 1, peekInput(slave.local, master));
    if (info.packet_mode) setPacketMode(master, false);
    add(
      info.id,
      peekOutput(master, (action) => {
        if (info.locked) setLocked(master, false);
        withPeer(master, action);
        if (info.locked) setLocked(master, true);
      }),
    );
    if (info.packet_mode) setPacketMode(master, true);
  }
}
