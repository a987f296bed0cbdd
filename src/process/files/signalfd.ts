/** Signals read from a descriptor: signalfd(2). */
import { O_CLOEXEC, O_NONBLOCK } from '../../abi/fcntl.ts';
import { signalfd4 } from '../../sys/poll.ts';
import { type FileKind, infoLine, restoreOwner, saveOwner } from './file.ts';

export const signalfd: FileKind = {
  type: 'SIGNALFD',

  matches: ({ link }) => link === 'anon_inode:[signalfd]',

  save(file) {
    const sigmask = BigInt(`0x${infoLine(file, 'sigmask')}`);
    return { sgfd: { id: file.id, flags: file.flags, fown: saveOwner(file), sigmask } };
  },

  restore(entry, restoring) {
    const { sigmask, flags, fown } = entry.sgfd!;
    const mask = new Uint8Array(8);
    new DataView(mask.buffer).setBigUint64(0, sigmask, true);
    const fd = signalfd4({ fd: -1, mask, sizemask: mask.length, flags: O_CLOEXEC | (flags & O_NONBLOCK) });
    restoreOwner(restoring, fd, fown);
    return fd;
  },
};
