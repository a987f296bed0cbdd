/** Files with a path: regular ones, directories, the devices of memory, and anything by O_PATH. */
import { dirname, join } from 'node:path';
import { Errno } from '../../abi/errno.ts';
import * as fcntl from '../../abi/fcntl.ts';
import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Statx } from '../../abi/stat.ts';
import { UnsupportedError } from '../../errors.ts';
import { attributes, lseek, openat, openat2, readlink } from '../../sys/files.ts';
import { type FileKind, KEPT_FLAGS, type OpenFile, restoreOwner, saveOwner } from './file.ts';
import { whyOther } from './identity.ts';

/** null, zero, full, random, urandom: Documentation/admin-guide/devices.txt. */
const MEMORY_MAJOR = 1;
const MEMORY_MINORS = new Set([3, 5, 7, 8, 9]);

export const path: FileKind = {
  type: 'REG',

  matches({ link, stat, flags }) {
    if (!link.startsWith('/') || link.startsWith('/memfd:')) return false;
    if ((flags & fcntl.O_PATH) !== 0) return true;
    const kind = stat.stx_mode & S_IFMT;
    if (kind === S_IFCHR) return stat.stx_rdev_major === MEMORY_MAJOR && MEMORY_MINORS.has(stat.stx_rdev_minor);
    return kind === S_IFREG || kind === S_IFDIR || kind === S_IFLNK;
  },

  save(file: OpenFile, saving) {
    const at = `/proc/${file.pid}/fd/${file.fd}`;
    const { id, flags, info, external } = file;
    if (external !== undefined) {
      const { stx_mode: mode } = file.stat;
      const reg = { id, flags, pos: info.pos, fown: saveOwner(file), name: external, mnt_id: -1, mode, build_id: [] };
      return { reg: { ...reg, ext: true } };
    }
    return { reg: saving.regular({ ...file, at }, { id, flags, pos: info.pos, fown: saveOwner(file) }) };
  },

  restore(entry, restoring) {
    const reg = entry.reg!;
    // O_TMPFILE has O_DIRECTORY in it: the file that it made is none.
    const made = (reg.flags & fcntl.O_TMPFILE) === fcntl.O_TMPFILE;
    const flags = reg.flags & KEPT_FLAGS & (made ? ~fcntl.O_TMPFILE : -1);
    const pathname = restoring.pathOf(reg);
    const fd = restoring.rootOf(reg).within(() => {
      // Opening may wait for ever (FIFO) or do something (device).
      if ((flags & fcntl.O_PATH) === 0) checkType(reg, pathname, attributes(fcntl.AT_FDCWD, pathname));
      return openNamed(pathname, flags | fcntl.O_CLOEXEC);
    });
    if ((flags & fcntl.O_PATH) !== 0) return fd;
    const stat = attributes(fd, '', 0x1000);
    checkType(reg, pathname, stat);
    if (reg.size !== undefined && reg.size !== stat.stx_size && (stat.stx_mode & S_IFMT) === S_IFREG) {
      throw changed(pathname, `it had ${reg.size} bytes and has ${stat.stx_size} now`);
    }
    const other = restoring.sameFiles && reg.identity !== undefined ? whyOther(reg.identity, stat) : undefined;
    if (other !== undefined) throw changed(pathname, other, '; tideover restore takes it as it is');
    if (reg.pos !== 0) lseek({ fd, offset: reg.pos, whence: fcntl.SEEK_SET });
    restoreOwner(restoring, fd, reg.fown);
    return fd;
  },
};

/** What openat2(2) takes, and open(2) of O_PATH looks at. */
const OPEN_FLAGS =
  fcntl.O_ACCMODE |
  fcntl.O_APPEND |
  fcntl.O_NONBLOCK |
  fcntl.O_SYNC |
  fcntl.FASYNC |
  fcntl.O_DIRECT |
  fcntl.O_LARGEFILE;
const PATH_FLAGS = fcntl.O_PATH | fcntl.O_DIRECTORY | fcntl.O_NOFOLLOW | fcntl.O_CLOEXEC;

/**
 * Opens a file by the name that the kernel had for it, in which there was no symbolic link. Where there is one now, it must be
 * root's or ours: whoever restores may open what the program may not, and any other user would choose what that is.
 *
 * @param flags O_* @returns a descriptor @throws UnsupportedError, SyscallError
 */
export function openNamed(pathname: string, flags: number): number {
  const known = (flags & fcntl.O_PATH) !== 0 ? PATH_FLAGS : OPEN_FLAGS | PATH_FLAGS | fcntl.O_NOATIME;
  const how = fcntl.open_how.write({ flags: flags & known, mode: 0, resolve: fcntl.RESOLVE_NO_SYMLINKS });
  const open = (name: string) => openat2.attempt({ dirfd: fcntl.AT_FDCWD, pathname: name, how, size: how.length });
  const first = open(pathname);
  const result = first === -Errno.ELOOP ? open(withoutLinks(pathname)) : first;
  if (result < 0) throw openat.error({ dirfd: fcntl.AT_FDCWD, pathname, flags, mode: 0 }, result);
  return result;
}

/** As many as the kernel follows: path_resolution(7). */
const MOST_LINKS = 40;

/** Where a name leads by links that may be followed. What is changed meanwhile is a link again, or another file of whoever may. */
function withoutLinks(pathname: string): string {
  const rest = pathname.split('/').reverse();
  let at = '/';
  for (let left = MOST_LINKS; rest.length > 0; ) {
    const part = rest.pop()!;
    if (part === '' || part === '.') continue;
    const next = part === '..' ? dirname(at) : join(at, part);
    const { stx_mode, stx_uid } = attributes(fcntl.AT_FDCWD, next, fcntl.AT_SYMLINK_NOFOLLOW);
    if ((stx_mode & S_IFMT) !== S_IFLNK) {
      at = next;
      continue;
    }
    if (left-- === 0 || (stx_uid !== 0 && stx_uid !== process.geteuid!())) {
      throw changed(pathname, `${next} is a symbolic link of user ${stx_uid} now`);
    }
    const target = readlink(next);
    rest.push(...target.split('/').reverse());
    if (target.startsWith('/')) at = '/';
  }
  return at;
}

function checkType({ mode }: { readonly mode?: number | undefined }, pathname: string, stat: Statx): void {
  if (mode === undefined || (mode & S_IFMT) === (stat.stx_mode & S_IFMT)) return;
  throw changed(pathname, 'it is of another type now');
}

function changed(pathname: string, why: string, more = ''): UnsupportedError {
  return new UnsupportedError({
    what: `file ${pathname}`,
    why: `${why}, so that the process would not find what it left`,
    remedy: `put the file back as it was when the image was made${more}`,
  });
}
