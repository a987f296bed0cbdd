/** What to say of a descriptor that cannot be saved. */
import { S_IFBLK, S_IFCHR, S_IFMT, S_IFSOCK } from '../../abi/stat.ts';
import { UnsupportedError } from '../../errors.ts';
import type { OpenFile } from './file.ts';

export function refusal({ pid, fd, link, stat }: OpenFile): UnsupportedError {
  const say = (why: string, remedy: string) => new UnsupportedError({ what: link, pid, fd, why, remedy });
  const kind = stat.stx_mode & S_IFMT;
  if (kind === S_IFSOCK) {
    return say('sockets cannot be saved yet', 'close it, or leave this process out');
  }
  if (kind === S_IFCHR || kind === S_IFBLK) {
    const device = `${stat.stx_rdev_major}:${stat.stx_rdev_minor}`;
    return say(`what device ${device} does for the program is not known`, 'close it before');
  }
  return say('this kind of file cannot be saved yet', 'close it, or leave this process out');
}
