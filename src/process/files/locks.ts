/**
 * Locks on files: flock(2), fcntl(2) F_SETLK and F_OFD_SETLK; and leases, by which a program hears of others that open a file before
 * they can: F_SETLEASE. Those of flock and OFD, and leases, belong to the open file.
 */
import { Errno } from '../../abi/errno.ts';
import {
  AT_FDCWD,
  F_OFD_SETLK,
  F_RDLCK,
  F_SETLEASE,
  F_SETLK,
  F_SETOWN,
  F_UNLCK,
  F_WRLCK,
  flock as flockStruct,
  LOCK_EX,
  LOCK_NB,
  LOCK_SH,
  O_ACCMODE,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDONLY,
  O_WRONLY,
  SEEK_SET,
} from '../../abi/fcntl.ts';
import { NR } from '../../abi/unistd.ts';
import { UnsupportedError } from '../../errors.ts';
import type { file_lock_entry } from '../../image/messages/files.ts';
import type { Value } from '../../image/proto.ts';
import type { Fdinfo } from '../../sys/fdinfo.ts';
import { fcntl, openat } from '../../sys/files.ts';
import type { Remote } from '../remote.ts';
import type { Restoring } from '../restoring.ts';
import { putOwner } from './file.ts';

export type FileLock = Value<typeof file_lock_entry>;

/** file_lock_entry.flag. */
const FL_POSIX = 1;
const FL_FLOCK = 2;
const FL_OFD = 4;
const FL_LEASE = 8;
const KINDS: Readonly<Record<string, number>> = { POSIX: FL_POSIX, FLOCK: FL_FLOCK, OFDLCK: FL_OFD, LEASE: FL_LEASE };
const TYPES: Readonly<Record<string, number>> = { READ: F_RDLCK, WRITE: F_WRLCK, UNLCK: F_UNLCK };
/** Beside the type that a lease is to have: somebody waits for that. */
const LEASE_BREAKING = 4;

/**
 * The locks that a descriptor shows in its fdinfo: `1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`.
 *
 * @param keep whether locks are to be kept; without it they are refused, as whoever restores cannot know who has them then
 */
export function saveLocks(pid: number, fd: number, info: Fdinfo, keep: boolean): FileLock[] {
  return info.lines
    .filter(([name]) => name === 'lock')
    .map(([, value]) => {
      const [, kind, how, type, , , start, end] = value.split(/\s+/);
      const flag = KINDS[kind!];
      const lock = TYPES[type!];
      const breaking = how === 'BREAKING' ? LEASE_BREAKING : 0;
      const refuse = (why: string, remedy: string): never => {
        throw new UnsupportedError({ what: `lock (${value})`, pid, fd, why, remedy });
      };
      if (!keep) refuse('locks are kept only if that is asked for', 'give --file-locks');
      if (flag === undefined || lock === undefined) {
        return refuse('locks of this kind cannot be saved yet', 'let the program release it');
      }
      const from = Number(start);
      return { flag, type: lock | breaking, pid, fd, start: from, len: end === 'EOF' ? 0 : Number(end) - from + 1 };
    });
}

/** Takes a lock: the process does it itself, whose id the kernel notes with it. */
export function restoreLock(remote: Remote, lock: FileLock, restoring: Restoring): void {
  const { pid, fd, flag, type } = lock;
  remote.reserve(1, 64);
  if (flag === FL_FLOCK) remote.call(NR.flock, fd, (type === F_RDLCK ? LOCK_SH : LOCK_EX) | LOCK_NB);
  else if (flag === FL_POSIX) remote.call(NR.fcntl, fd, F_SETLK, remote.put(range(lock)));
  else if (flag === FL_OFD) remote.call(NR.fcntl, fd, F_OFD_SETLK, remote.put(range(lock)));
  else if (flag === FL_LEASE) restoreLease(remote, lock, restoring);
  else {
    const [why, remedy] = ['locks of this kind cannot be restored yet', 'restore it with CRIU'];
    throw new UnsupportedError({ what: `lock of kind ${flag}`, pid, fd, why, remedy });
  }
}

/** One that somebody waits for is taken as it was, and broken again: by an open(2) that does not wait. */
function restoreLease(remote: Remote, { pid, fd, type }: FileLock, restoring: Restoring): void {
  const { id } = restoring.tree.tasks.find((task) => task.pid === pid)!.descriptors.find((each) => each.fd === fd)!;
  const { flags, fown } = restoring.entry(id).reg!;
  const breaking = (type & LEASE_BREAKING) !== 0;
  const target = type & ~LEASE_BREAKING;
  // Nothing tells what it is when none is wanted; of a file that is open to be written it can only be one to write.
  const reads = target === F_UNLCK && (flags & O_ACCMODE) === O_RDONLY;
  const held = breaking ? (reads ? F_RDLCK : F_WRLCK) : target;
  remote.call(NR.fcntl, fd, F_SETLEASE, held);
  remote.run();
  const local = restoring.open(id);
  // Nobody is to hear of it again; taking a lease has made the process the owner of a file that had none.
  fcntl({ fd: local, cmd: F_SETOWN, arg: 0 });
  if (breaking) {
    const access = target === F_UNLCK ? O_WRONLY : O_RDONLY;
    const args = {
      dirfd: AT_FDCWD,
      pathname: `/proc/self/fd/${local}`,
      flags: access | O_NONBLOCK | O_CLOEXEC,
      mode: 0,
    };
    const result = openat.attempt(args);
    if (result !== -Errno.EAGAIN) {
      const [why, remedy] = ['it cannot be broken again as it was', 'let the program release it'];
      throw new UnsupportedError({ what: `lease on ${restoring.entry(id).reg!.name}`, pid, fd, why, remedy });
    }
  }
  putOwner(restoring, local, fown);
}

function range({ type, start, len }: FileLock): Uint8Array {
  return flockStruct.write({ l_type: type, l_whence: SEEK_SET, l_start: start, l_len: len });
}
