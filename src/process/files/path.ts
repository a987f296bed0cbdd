/** Files with a path: regular ones, directories, the devices of memory, and anything by O_PATH. */
import { AT_FDCWD, O_CLOEXEC, O_PATH, O_TMPFILE, SEEK_SET } from '../../abi/fcntl.ts';
import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Statx } from '../../abi/stat.ts';
import { UnsupportedError } from '../../errors.ts';
import { attributes, lseek, openat } from '../../sys/files.ts';
import { type FileKind, KEPT_FLAGS, type OpenFile, restoreOwner, saveOwner } from './file.ts';

/** null, zero, full, random, urandom: Documentation/admin-guide/devices.txt. */
const MEMORY_MAJOR = 1;
const MEMORY_MINORS = new Set([3, 5, 7, 8, 9]);

export const path: FileKind = {
  type: 'REG',

  matches({ link, stat, flags }) {
    if (!link.startsWith('/') || link.startsWith('/memfd:')) return false;
    if ((flags & O_PATH) !== 0) return true;
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
    const made = (reg.flags & O_TMPFILE) === O_TMPFILE;
    const flags = reg.flags & KEPT_FLAGS & (made ? ~O_TMPFILE : -1);
    const pathname = restoring.pathOf(reg);
    const fd = restoring.rootOf(reg).within(() => {
      // Opening may wait for ever (FIFO) or do something (device).
      if ((flags & O_PATH) === 0) checkType(reg, pathname, attributes(AT_FDCWD, pathname));
      return openat({ dirfd: AT_FDCWD, pathname, flags: flags | O_CLOEXEC, mode: 0 });
    });
    if ((flags & O_PATH) !== 0) return fd;
    const stat = attributes(fd, '', 0x1000);
    checkType(reg, pathname, stat);
    if (reg.size !== undefined && reg.size !== stat.stx_size && (stat.stx_mode & S_IFMT) === S_IFREG) {
      throw changed(pathname, `it had ${reg.size} bytes and has ${stat.stx_size} now`);
    }
    if (reg.pos !== 0) lseek({ fd, offset: reg.pos, whence: SEEK_SET });
    restoreOwner(restoring, fd, reg.fown);
    return fd;
  },
};

function checkType({ mode }: { readonly mode?: number | undefined }, pathname: string, stat: Statx): void {
  if (mode === undefined || (mode & S_IFMT) === (stat.stx_mode & S_IFMT)) return;
  throw changed(pathname, 'it is of another type now');
}

function changed(pathname: string, why: string): UnsupportedError {
  return new UnsupportedError({
    what: `file ${pathname}`,
    why: `${why}, so that the process would not find what it left`,
    remedy: 'put the file back as it was when the image was made',
  });
}
