/** Watches of files: inotify(7). The kernel tells a file by its handle, from which comes a path. */
import { AT_FDCWD, file_handle, O_CLOEXEC, O_DIRECTORY, O_NONBLOCK, O_PATH, O_RDONLY } from '../../abi/fcntl.ts';
import { IN_DONT_FOLLOW } from '../../abi/inotify.ts';
import { internalDevice } from '../../abi/kdev_t.ts';
import { FIONREAD } from '../../abi/poll.ts';
import { FormatError, UnsupportedError } from '../../errors.ts';
import type { inotify_wd_entry } from '../../image/messages/descriptors.ts';
import type { Value } from '../../image/proto.ts';
import { close, ioctlInt, open_by_handle_at, openat, read, readlink } from '../../sys/files.ts';
import { inotify_add_watch, inotify_init1, inotify_rm_watch } from '../../sys/inotify.ts';
import { readMountinfo } from '../../sys/mountinfo.ts';
import type { Saving } from '../saving.ts';
import { type FileKind, type OpenFile, restoreOwner, saveOwner, setStatusFlags } from './file.ts';

type Watch = Value<typeof inotify_wd_entry>;

export const inotify: FileKind = {
  type: 'INOTIFY',

  matches: ({ link }) => link === 'anon_inode:inotify',

  save(file, saving) {
    if (file.local >= 0 && ioctlInt(file.local, FIONREAD) > 0) {
      throw refused(
        file,
        'events wait to be read, which cannot be put back',
        'try again when the program has read them',
      );
    }
    return { ify: { id: file.id, flags: file.flags, fown: saveOwner(file), wd: watches(file, saving) } };
  },

  restore(entry, restoring) {
    const { flags, fown, wd } = entry.ify!;
    const fd = inotify_init1({ flags: O_CLOEXEC | (flags & O_NONBLOCK) });
    restoreOwner(restoring, fd, fown);
    // When all files are opened and those that were only needed for that are gone: none of it is an event for the program.
    restoring.atLast(() => {
      let next = 1;
      for (const watch of wd) next = restoring.root.within(() => addWatch(fd, watch, next));
      drain(fd, flags);
    });
    return fd;
  },
};

/** Numbers are given in order, so that watches are made and taken away until the one that is wanted comes. */
function addWatch(fd: number, { wd, mask, f_handle }: Watch, next: number): number {
  const pathname = f_handle.path!;
  for (let number = next; ; ) {
    number = inotify_add_watch({ fd, pathname, mask: mask | IN_DONT_FOLLOW });
    if (number === wd) return number + 1;
    if (number > wd) {
      throw new UnsupportedError({
        what: `watch ${wd} of ${pathname}`,
        why: `the kernel gives it the number ${number}`,
        remedy: 'report it, with the kernel',
      });
    }
    inotify_rm_watch({ fd, wd: number });
  }
}

/** Takes the events away that making watches has made. */
function drain(fd: number, flags: number): void {
  const buf = new Uint8Array(4096);
  setStatusFlags(fd, flags | O_NONBLOCK);
  while (read.attempt({ fd, buf, count: buf.length }) > 0);
  setStatusFlags(fd, flags);
}

const LINE =
  /^(\d+) ino:([0-9a-f]+) sdev:([0-9a-f]+) mask:([0-9a-f]+) ignored_mask:([0-9a-f]+)(?:\s+fhandle-bytes:([0-9a-f]+) fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]*))?/;

/** `inotify wd:1 ino:3f7e8 sdev:fe00000 mask:fff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:e8f7030000000000` */
function watches(file: OpenFile, saving: Saving): Watch[] {
  return file.info.lines
    .filter(([name]) => name === 'inotify wd')
    .map(([, value]): Watch => {
      const match = LINE.exec(value);
      if (match === null) {
        const at = `/proc/${file.pid}/fdinfo/${file.fd}`;
        throw new FormatError({ file: at, field: 'inotify', expected: 'a watch', found: value });
      }
      const number = (i: number) => Number.parseInt(match[i]!, 16);
      if (match[6] === undefined) {
        throw refused(
          file,
          `its watch ${match[1]} is in a file system that names no files by handle`,
          'watch another one',
        );
      }
      const bytes = Buffer.from(match[8]!, 'hex');
      return {
        id: file.id,
        wd: number(1),
        i_ino: BigInt(`0x${match[2]}`),
        s_dev: number(3),
        mask: number(4),
        ignored_mask: number(5),
        f_handle: {
          bytes: bytes.length,
          type: number(7),
          handle: words(bytes),
          path: pathOf(saving, file, match[1]!, number(3), number(7), bytes),
        },
      };
    })
    .sort((a, b) => a.wd - b.wd);
}

function words(bytes: Uint8Array): bigint[] {
  const whole = Buffer.alloc(Math.ceil(bytes.length / 8) * 8);
  whole.set(bytes);
  return Array.from({ length: whole.length / 8 }, (_, i) => whole.readBigUInt64LE(8 * i));
}

/** Where a file is that is told by its handle. @param device see internalDevice() */
function pathOf(
  saving: Saving,
  file: OpenFile,
  wd: string,
  device: number,
  handle_type: number,
  bytes: Uint8Array,
): string {
  const handle = new Uint8Array(file_handle.size + bytes.length);
  file_handle.write({ handle_bytes: bytes.length, handle_type }, handle);
  handle.set(bytes, file_handle.size);
  const points =
    saving.mounts?.entries.filter(({ root_dev }) => root_dev === device).map(({ mountpoint }) => mountpoint) ??
    readMountinfo('self')
      .filter(({ major, minor }) => internalDevice(major, minor) === device)
      .map(({ mountPoint }) => mountPoint);
  for (const mountPoint of points) {
    const flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    const mount_fd = saving.root.within(() =>
      openat.attempt({ dirfd: AT_FDCWD, pathname: mountPoint, flags, mode: 0 }),
    );
    if (mount_fd < 0) continue;
    const fd = open_by_handle_at.attempt({ mount_fd, handle, flags: O_PATH | O_CLOEXEC });
    close({ fd: mount_fd });
    if (fd < 0) continue;
    const path = readlink(`/proc/self/fd/${fd}`);
    close({ fd });
    // Below the root of one of its mounts, or the kernel calls it unreachable.
    if (path.endsWith(' (deleted)')) throw refused(file, `its watch ${wd} is of ${path}`, 'remove the watch');
    if (path.startsWith('/')) return path;
  }
  throw refused(
    file,
    `its watch ${wd} is of a file that is not found by its handle, as in an overlay`,
    'watch the directory where it is mounted from, or give up the watch',
  );
}

function refused({ pid, fd, link }: OpenFile, why: string, remedy: string): UnsupportedError {
  return new UnsupportedError({ what: link, pid, fd, why, remedy });
}
