/** Locks on files: flock(2), fcntl(2) F_SETLK and F_OFD_SETLK. Those of flock and OFD belong to the open file. */
import {
  F_OFD_SETLK,
  F_RDLCK,
  F_SETLK,
  F_WRLCK,
  flock as flockStruct,
  LOCK_EX,
  LOCK_NB,
  LOCK_SH,
  SEEK_SET,
} from '../../abi/fcntl.ts';
import { NR } from '../../abi/unistd.ts';
import { UnsupportedError } from '../../errors.ts';
import type { file_lock_entry } from '../../image/messages/files.ts';
import type { Value } from '../../image/proto.ts';
import type { Fdinfo } from '../../sys/fdinfo.ts';
import type { Remote } from '../remote.ts';

export type FileLock = Value<typeof file_lock_entry>;

/** file_lock_entry.flag. */
const FL_POSIX = 1;
const FL_FLOCK = 2;
const FL_OFD = 4;
const KINDS: Readonly<Record<string, number>> = { POSIX: FL_POSIX, FLOCK: FL_FLOCK, OFDLCK: FL_OFD };
const TYPES: Readonly<Record<string, number>> = { READ: F_RDLCK, WRITE: F_WRLCK };

/**
 * The locks that a descriptor shows in its fdinfo: `1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`.
 *
 * @param keep whether locks are to be kept; without it they are refused, as whoever restores cannot know who has them then
 */
export function saveLocks(pid: number, fd: number, info: Fdinfo, keep: boolean): FileLock[] {
  return info.lines
    .filter(([name]) => name === 'lock')
    .map(([, value]) => {
      const [, kind, , type, , , start, end] = value.split(/\s+/);
      const flag = KINDS[kind!];
      const lock = TYPES[type!];
      const refuse = (why: string, remedy: string): never => {
        throw new UnsupportedError({ what: `lock (${value})`, pid, fd, why, remedy });
      };
      if (!keep) refuse('locks are kept only if that is asked for', 'give --file-locks');
      if (flag === undefined || lock === undefined) {
        return refuse('locks of this kind cannot be saved yet', 'let the program release it');
      }
      const from = Number(start);
      return { flag, type: lock, pid, fd, start: from, len: end === 'EOF' ? 0 : Number(end) - from + 1 };
    });
}

/** Adds the call that takes a lock: done by the process itself, whose id the kernel notes with it. */
export function restoreLock(remote: Remote, lock: FileLock): void {
  const { pid, fd, flag, type } = lock;
  remote.reserve(1, 64);
  if (flag === FL_FLOCK) remote.call(NR.flock, fd, (type === F_RDLCK ? LOCK_SH : LOCK_EX) | LOCK_NB);
  else if (flag === FL_POSIX) remote.call(NR.fcntl, fd, F_SETLK, remote.put(range(lock)));
  else if (flag === FL_OFD) remote.call(NR.fcntl, fd, F_OFD_SETLK, remote.put(range(lock)));
  else {
    const [why, remedy] = ['locks of this kind cannot be restored yet', 'restore it with CRIU'];
    throw new UnsupportedError({ what: `lock of kind ${flag}`, pid, fd, why, remedy });
  }
}

function range({ type, start, len }: FileLock): Uint8Array {
  return flockStruct.write({ l_type: type, l_whence: SEEK_SET, l_start: start, l_len: len });
}
