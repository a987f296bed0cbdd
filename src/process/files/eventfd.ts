/** Counters of eventfd(2). */

import { EFD_SEMAPHORE } from '../../abi/eventpoll.ts';
import { O_CLOEXEC, O_NONBLOCK } from '../../abi/fcntl.ts';
import { read, write } from '../../sys/files.ts';
import { eventfd2 } from '../../sys/poll.ts';
import { type FileKind, infoLine, restoreOwner, saveOwner } from './file.ts';

export const eventfd: FileKind = {
  type: 'EVENTFD',

  matches: ({ link }) => link === 'anon_inode:[eventfd]',

  save(file, { stopped }) {
    const counter = BigInt(`0x${infoLine(file, 'eventfd-count')}`);
    // The flags have no bit for a semaphore; EFD_SEMAPHORE stands in that of O_WRONLY, which CRIU does not look at.
    const said = file.info.lines.find(([name]) => name === 'eventfd-semaphore')?.[1];
    const semaphore = said === undefined ? stopped && isSemaphore(file.local, counter) : said === '1';
    const flags = file.flags | (semaphore ? EFD_SEMAPHORE : 0);
    return { efd: { id: file.id, flags, fown: saveOwner(file), counter } };
  },

  restore(entry, restoring) {
    const { counter, flags, fown } = entry.efd!;
    const fd = eventfd2({ initval: 0, flags: O_CLOEXEC | (flags & (O_NONBLOCK | EFD_SEMAPHORE)) });
    add(fd, counter);
    restoreOwner(restoring, fd, fown);
    return fd;
  },
};

/**
 * Linux 6.1 does not say it, but a semaphore gives one at a time, and anything else all that there is. Nobody sees the counter
 * change: who has it is stopped.
 */
function isSemaphore(fd: number, counter: bigint): boolean {
  const enough = counter < 2n ? 2n : 0n;
  add(fd, enough);
  const semaphore = take(fd) === 1n;
  if (!semaphore) add(fd, counter);
  else if (enough > 0n) take(fd);
  else add(fd, 1n);
  return semaphore;
}

function add(fd: number, value: bigint): void {
  if (value === 0n) return;
  const buf = new Uint8Array(8);
  new DataView(buf.buffer).setBigUint64(0, value, true);
  write({ fd, buf, count: buf.length });
}

function take(fd: number): bigint {
  const buf = new Uint8Array(8);
  read({ fd, buf, count: buf.length });
  return new DataView(buf.buffer).getBigUint64(0, true);
}
