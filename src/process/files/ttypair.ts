/**
 * Terminals made anew: pairs with the index that they had, where it is free, ends that are hung up, and the terminal that stands
 * for one from outside. pty(7), ptmx(4)
 */
import { fchmodSync, fchownSync } from 'node:fs';
import { AT_FDCWD, O_ACCMODE, O_CLOEXEC, O_NOCTTY, O_NONBLOCK, O_RDWR } from '../../abi/fcntl.ts';
import { SIGWINCH } from '../../abi/signal.ts';
import * as tio from '../../abi/termios.ts';
import { UnsupportedError } from '../../errors.ts';
import type { tty_data_entry, tty_info_entry } from '../../image/messages/tty.ts';
import type { Value } from '../../image/proto.ts';
import { close, ioctl, ioctlInt, openat } from '../../sys/files.ts';
import { kill } from '../../sys/process.ts';
import type { Restoring } from '../restoring.ts';
import type { FileEntry } from './file.ts';
import { putInput, putOutput, setTermios } from './ttyqueue.ts';

export type TtyInfo = Value<typeof tty_info_entry>;
export type TtyData = Value<typeof tty_data_entry>;

/** Device 5:2, /dev/ptmx. */
const PTMX = 0x502;

export function isMaster({ type, rdev }: TtyInfo): boolean {
  return type === 'PTY' && rdev === PTMX;
}

/** What is hung up has no settings any more. */
export function isLive({ termios }: TtyInfo): boolean {
  return termios !== undefined;
}

/** Opens the slave of a master. @param flags O_* */
function openPeer(master: number, flags: number): number {
  return ioctl({ fd: master, request: tio.TIOCGPTPEER, arg: flags | O_NOCTTY | O_CLOEXEC });
}

/** Has the slave of a master open for as long as an action takes. */
export function withPeer(master: number, action: (slave: number) => void): void {
  const slave = openPeer(master, O_RDWR | O_NONBLOCK);
  try {
    action(slave);
  } finally {
    close({ fd: slave });
  }
}

/** Whether the slave of a master can be opened. */
export function setLocked(master: number, on: boolean): void {
  setSwitch(master, tio.TIOCSPTLCK, on);
}

export function setPacketMode(master: number, on: boolean): void {
  setSwitch(master, tio.TIOCPKT, on);
}

function setSwitch(fd: number, request: number, on: boolean): void {
  ioctl({ fd, request, arg: Uint8Array.of(on ? 1 : 0, 0, 0, 0) });
}

/** A pair while it is restored. */
interface Pair {
  readonly master: number;
  /** Open for as long, if it was ever open. */
  readonly slave: number | undefined;
  /** Descriptors of slaves that are hung up, by the ids of their files. */
  readonly hungUp: ReadonlyMap<number, number>;
}

/** Opens one end of a pair. @param flags of the open file */
export function openEnd(entry: FileEntry, info: TtyInfo, flags: number, restoring: Restoring): number {
  const { index } = info.pty!;
  if (!isLive(info)) return pairOf(restoring, index).hungUp.get(entry.id)!;
  if (isMaster(info)) return pairOf(restoring, index).master;
  return isForeign(info, restoring)
    ? openForeign(info, flags, restoring)
    : openPeer(pairOf(restoring, index).master, (flags & O_ACCMODE) | O_NONBLOCK);
}

/** The terminal of a session, for as long as it is restored. */
export function terminalOfSession(info: TtyInfo, restoring: Restoring): number {
  if (!isForeign(info, restoring)) return pairOf(restoring, info.pty!.index).slave!;
  return restoring.once('session of a foreign terminal', () => {
    const fd = openForeign(info, O_RDWR, restoring);
    restoring.atEnd(() => close({ fd }));
    return fd;
  });
}

/** Whether the image has no master for a slave. */
function isForeign({ pty }: TtyInfo, { terminals }: Restoring): boolean {
  return !terminals.some((each) => isMaster(each) && each.pty!.index === pty!.index);
}

/** A terminal that stands for one from outside the tree: one of our standard descriptors. */
function openForeign(info: TtyInfo, flags: number, restoring: Restoring): number {
  const ours = [0, 1, 2].find(
    (fd) => ioctl.attempt({ fd, request: tio.TCGETS2, arg: new Uint8Array(tio.termios2.size) }) === 0,
  );
  if (!restoring.shellJob || ours === undefined) {
    throw new UnsupportedError({
      what: `terminal /dev/pts/${info.pty!.index}`,
      why: 'its other end was outside of the tree',
      remedy: restoring.shellJob
        ? 'run tideover in the terminal that is to stand for it'
        : 'give --shell-job: the terminal of tideover will stand for it',
    });
  }
  const wanted = (flags & O_ACCMODE) | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
  const fd = openat({ dirfd: AT_FDCWD, pathname: `/proc/self/fd/${ours}`, flags: wanted, mode: 0 });
  if (restoring.first('settings of a foreign terminal')) {
    restoreTermios(fd, info);
    restoring.onceReady(() => tellSize(fd, info, restoring));
  }
  return fd;
}

/** A terminal has the size of its window; who drew for another one is told, as by the kernel. */
function tellSize(fd: number, { sid, winsize: was }: TtyInfo, restoring: Restoring): void {
  const arg = new Uint8Array(tio.winsize.size);
  ioctl({ fd, request: tio.TIOCGWINSZ, arg });
  const now = tio.winsize.read(arg);
  if (was === undefined || (now.ws_row === was.ws_row && now.ws_col === was.ws_col)) return;
  const { tasks } = restoring.tree;
  const pids = new Set(tasks.map(({ pid }) => pid));
  for (const task of tasks) {
    if (!task.isZombie && (task.sid === sid || !pids.has(task.sid)))
      kill({ pid: restoring.here(task.pid), sig: SIGWINCH });
  }
}

function pairOf(restoring: Restoring, index: number): Pair {
  return restoring.once(`pty ${index}`, () => {
    const { terminals, tree } = restoring;
    const of = terminals.filter(({ pty }) => pty?.index === index);
    const [masterInfo, slaveInfo] = [of.find(isMaster), of.find((each) => isLive(each) && !isMaster(each))];
    const files = (id: number | undefined) => [...tree.files.values()].filter(({ tty }) => tty?.tty_info_id === id);
    const named = files(masterInfo?.id)[0]?.tty?.regf_id;
    const path = named === undefined ? '/dev/ptmx' : restoring.entry(named).reg!.name;
    const master = restoring.root.within(() => openMaster(path, index));
    setLocked(master, false);
    const hungUp = new Map<number, number>();
    for (const { id } of of.filter((each) => !isLive(each)).flatMap((each) => files(each.id))) {
      hungUp.set(id, openPeer(master, O_RDWR | O_NONBLOCK));
    }
    for (const fd of [...hungUp.values()].slice(0, 1)) ioctl({ fd, request: tio.TIOCVHANGUP, arg: 0 });
    if (masterInfo === undefined) {
      // Its index is free again.
      close({ fd: master });
      return { master: -1, slave: undefined, hungUp };
    }
    const slave = slaveInfo === undefined ? undefined : openPeer(master, O_RDWR | O_NONBLOCK);
    restoreSettings(master, slaveInfo ?? masterInfo);
    if (slave !== undefined) {
      const { uid, gid } = slaveInfo!;
      if (uid !== undefined && gid !== undefined) fchownSync(slave, uid, gid);
      const mode = restoring.tree.files.get(files(slaveInfo!.id)[0]?.tty?.regf_id ?? -1)?.reg?.mode;
      if (mode !== undefined) fchmodSync(slave, mode & 0o7777);
      restoring.atEnd(() => close({ fd: slave }));
      for (const data of restoring.terminalData(slaveInfo!.id)) putInput(slave, master, data);
    }
    for (const data of restoring.terminalData(masterInfo.id)) {
      putOutput(master, data, (action) => withPeer(master, action));
    }
    restoring.onceReady(() => {
      // They keep others from opening it.
      if (slaveInfo?.exclusive) ioctl({ fd: slave!, request: tio.TIOCEXCL, arg: 0 });
      if (masterInfo.exclusive) ioctl({ fd: master, request: tio.TIOCEXCL, arg: 0 });
      if (masterInfo.locked) setLocked(master, true);
      if (masterInfo.packet_mode) setPacketMode(master, true);
    });
    return { master, slave, hungUp };
  });
}

/** The index is the lowest that is free: what is below is taken for a moment. Another one is as good where it is not to be had. */
function openMaster(pathname: string, index: number): number {
  const below: number[] = [];
  try {
    for (;;) {
      const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, mode: 0 });
      const got = ioctlInt(fd, tio.TIOCGPTN);
      if (got === index || (got > index && below.length === 0)) return fd;
      below.push(fd);
      if (got > index) return below.shift()!;
    }
  } finally {
    for (const fd of below) close({ fd });
  }
}

function restoreSettings(fd: number, info: TtyInfo): void {
  restoreTermios(fd, info);
  const { termios_locked: locked, winsize: size } = info;
  if (size !== undefined) ioctl({ fd, request: tio.TIOCSWINSZ, arg: tio.winsize.write(size) });
  if (locked === undefined) return;
  const arg = tio.termios.write({ ...locked, c_cc: characters(locked.c_cc) });
  ioctl({ fd, request: tio.TIOCSLCKTRMIOS, arg });
}

function restoreTermios(fd: number, { termios }: TtyInfo): void {
  if (termios !== undefined) setTermios(fd, { ...termios, c_cc: characters(termios.c_cc) });
}

/** An image may have fewer of them. */
function characters(c_cc: readonly number[]): Uint8Array {
  const all = new Uint8Array(tio.NCCS);
  all.set(c_cc.slice(0, all.length));
  return all;
}
