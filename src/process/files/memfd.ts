/** Memory under a descriptor: memfd_create(2). Its content is saved as shared memory is. */
import { fchmodSync, fchownSync } from 'node:fs';
import {
  AT_FDCWD,
  F_ADD_SEALS,
  F_DUPFD_CLOEXEC,
  F_GET_SEALS,
  O_ACCMODE,
  O_CLOEXEC,
  O_RDWR,
  SEEK_SET,
} from '../../abi/fcntl.ts';
import { MAP_HUGE_SHIFT, MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_HUGETLB } from '../../abi/mman.ts';
import type { Statx } from '../../abi/stat.ts';
import { HUGETLBFS_MAGIC } from '../../abi/statfs.ts';
import { attributes, close, fcntl, fileSystemOf, ftruncate, lseek, openat, readlink } from '../../sys/files.ts';
import { memfd_create } from '../../sys/memory.ts';
import type { Restoring } from '../restoring.ts';
import type { Saving } from '../saving.ts';
import { type FileKind, restoreOwner, saveOwner, setStatusFlags } from './file.ts';

const PREFIX = '/memfd:';
const DELETED = ' (deleted)';

export const memfd: FileKind = {
  type: 'MEMFD',

  matches: ({ link }) => link.startsWith(PREFIX),

  save(file, saving) {
    const inode_id = saveInode(saving, `/proc/${file.pid}/fd/${file.fd}`, file.link, file.stat);
    const { id, flags, info } = file;
    return { memfd: { id, flags, pos: info.pos, fown: saveOwner(file), inode_id } };
  },

  restore(entry, restoring) {
    const { inode_id, flags, pos, fown } = entry.memfd!;
    const inode = restoreInode(restoring, inode_id);
    const mode = flags & O_ACCMODE;
    // What memfd_create(2) opens does not count as open for writing, so that it can be executed; what is opened later does.
    const original = mode === O_RDWR && restoring.first(`original of memfd ${inode_id}`);
    const opened = original
      ? fcntl({ fd: inode, cmd: F_DUPFD_CLOEXEC, arg: 0 })
      : openat({ dirfd: AT_FDCWD, pathname: `/proc/self/fd/${inode}`, flags: mode | O_CLOEXEC, mode: 0 });
    setStatusFlags(opened, flags);
    if (pos !== 0) lseek({ fd: opened, offset: pos, whence: SEEK_SET });
    restoreOwner(restoring, opened, fown);
    return opened;
  },
};

/** A memfd of a mapping alone. @returns the id of an open file of it */
export function saveMappedMemfd(saving: Saving, at: string, flags: number): number {
  const inode_id = saveInode(saving, at, readlink(at), attributes(AT_FDCWD, at));
  const known = saving.files.find(({ memfd: m }) => m?.inode_id === inode_id && m.flags === flags);
  if (known !== undefined) return known.id;
  const id = saving.newId();
  const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
  saving.files.push({ type: 'MEMFD', id, memfd: { id, flags, pos: 0, fown, inode_id } });
  return id;
}

function saveInode(saving: Saving, at: string, link: string, stat: Statx): number {
  const known = saving.memfds.get(stat.stx_ino);
  if (known !== undefined) return known.inode_id;
  const fd = openat({ dirfd: AT_FDCWD, pathname: at, flags: O_CLOEXEC, mode: 0 });
  const seals = fcntl({ fd, cmd: F_GET_SEALS, arg: 0 });
  const huge = hugeFlags(fd);
  close({ fd });
  const inode_id = saving.memfds.size + 1;
  const shmid = Number(stat.stx_ino & 0xffff_ffffn);
  const name = link.slice(PREFIX.length, link.endsWith(DELETED) ? -DELETED.length : undefined);
  const { stx_uid: uid, stx_gid: gid, stx_size: size, stx_mode: mode } = stat;
  saving.memfds.set(stat.stx_ino, {
    ...{ name, uid, gid, size, shmid, seals, inode_id, mode },
    ...(huge === 0 ? {} : { hugetlb_flag: huge }),
  });
  saving.share(shmid, at);
  return inode_id;
}

/** MFD_HUGETLB with the size of its pages, of a file of hugetlbfs. */
function hugeFlags(fd: number): number {
  const { f_type, f_bsize } = fileSystemOf(fd);
  if (f_type !== HUGETLBFS_MAGIC) return 0;
  return MFD_HUGETLB | (Math.log2(f_bsize) << MAP_HUGE_SHIFT);
}

function restoreInode(restoring: Restoring, inode_id: number): number {
  return restoring.once(`memfd ${inode_id}`, () => {
    const { name, uid, gid, size, shmid, seals, mode, hugetlb_flag } = restoring.memfds.get(inode_id)!;
    const fd = memfd_create({ name, flags: MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugetlb_flag ?? 0) });
    ftruncate({ fd, length: size });
    restoring.fillShared(shmid, fd);
    if (mode !== undefined) fchmodSync(fd, mode & 0o7777);
    fchownSync(fd, uid, gid);
    restoring.atEnd(() => {
      if (seals !== 0) fcntl({ fd, cmd: F_ADD_SEALS, arg: seals });
      close({ fd });
    });
    return fd;
  });
}
