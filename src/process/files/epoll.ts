/** Sets of watched descriptors: epoll(7). */

import { EPOLL_CTL_ADD, epoll_event } from '../../abi/eventpoll.ts';
import { O_CLOEXEC } from '../../abi/fcntl.ts';
import { KCMP_EPOLL_TFD, kcmp_epoll_slot } from '../../abi/kcmp.ts';
import { NR } from '../../abi/unistd.ts';
import { FormatError, UnsupportedError } from '../../errors.ts';
import { epoll_create1 } from '../../sys/poll.ts';
import { kcmp } from '../../sys/process.ts';
import { type FileKind, type OpenFile, restoreOwner, saveOwner } from './file.ts';

export const epoll: FileKind = {
  type: 'EVENTPOLL',

  matches: ({ link }) => link === 'anon_inode:[eventpoll]',

  check(file) {
    for (const { tfd } of watched(file)) {
      const slot = kcmp_epoll_slot.write({ efd: file.fd, tfd, toff: 0 });
      const args = { pid1: file.pid, pid2: file.pid, type: KCMP_EPOLL_TFD, idx1: tfd, idx2: slot };
      if (kcmp.attempt(args) === 0) continue;
      throw new UnsupportedError({
        what: 'epoll',
        pid: file.pid,
        fd: file.fd,
        why: `it watches what was descriptor ${tfd} and is not there under this number any more`,
        remedy: 'remove it from the epoll (EPOLL_CTL_DEL) before it is closed',
      });
    }
  },

  save(file) {
    return { epfd: { id: file.id, flags: file.flags, fown: saveOwner(file), tfd: watched(file) } };
  },

  restore(entry, restoring) {
    const fd = epoll_create1({ flags: O_CLOEXEC });
    restoreOwner(restoring, fd, entry.epfd!.fown);
    return fd;
  },

  /** The number under which a file is watched is part of the set, so the process itself adds it. */
  finish(entry, fd, remote, restoring) {
    if (!restoring.first(`epoll ${entry.id}`)) return;
    for (const { tfd, events, data } of entry.epfd!.tfd) {
      remote.call(NR.epoll_ctl, fd, EPOLL_CTL_ADD, tfd, remote.put(epoll_event.write({ events, data })));
    }
  },
};

/** `tfd:        5 events:       1d data:                0 pos:0 ino:1f sdev:11` */
function watched(file: OpenFile) {
  return file.info.lines
    .filter(([name]) => name === 'tfd')
    .map(([, value]) => {
      const match =
        /^(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)(?:\s+pos:(\d+) ino:([0-9a-f]+) sdev:([0-9a-f]+))?/.exec(
          value,
        );
      if (match === null) {
        const at = `/proc/${file.pid}/fdinfo/${file.fd}`;
        throw new FormatError({ file: at, field: 'tfd', expected: 'number, events and data', found: value });
      }
      return {
        id: file.id,
        tfd: Number(match[1]),
        events: Number.parseInt(match[2]!, 16),
        data: BigInt(`0x${match[3]}`),
        ...(match[4] === undefined
          ? {}
          : { dev: Number.parseInt(match[6]!, 16), inode: BigInt(`0x${match[5]}`), pos: Number(match[4]) }),
      };
    });
}
