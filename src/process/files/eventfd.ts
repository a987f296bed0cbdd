/** Counters of eventfd(2). */

import { EFD_SEMAPHORE } from '../../abi/eventpoll.ts';
import { O_CLOEXEC, O_NONBLOCK } from '../../abi/fcntl.ts';
import { write } from '../../sys/files.ts';
import { eventfd2 } from '../../sys/poll.ts';
import { type FileKind, infoLine, restoreOwner, saveOwner } from './file.ts';

export const eventfd: FileKind = {
  type: 'EVENTFD',

  matches: ({ link }) => link === 'anon_inode:[eventfd]',

  save(file) {
    // The flags have no bit for a semaphore; EFD_SEMAPHORE stands in that of O_WRONLY, which CRIU does not look at.
    const semaphore = file.info.lines.some(([name, value]) => name === 'eventfd-semaphore' && value === '1');
    return {
      efd: {
        id: file.id,
        flags: file.flags | (semaphore ? EFD_SEMAPHORE : 0),
        fown: saveOwner(file),
        counter: BigInt(`0x${infoLine(file, 'eventfd-count')}`),
      },
    };
  },

  restore(entry, restoring) {
    const { counter, flags, fown } = entry.efd!;
    const fd = eventfd2({ initval: 0, flags: O_CLOEXEC | (flags & (O_NONBLOCK | EFD_SEMAPHORE)) });
    if (counter > 0n) {
      const buf = new Uint8Array(8);
      new DataView(buf.buffer).setBigUint64(0, counter, true);
      write({ fd, buf, count: buf.length });
    }
    restoreOwner(restoring, fd, fown);
    return fd;
  },
};
