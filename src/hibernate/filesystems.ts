/**
 * File systems that stand still while the machine is in another kernel. The kernel stops processes before it jumps, but not
 * its own threads: a journal or a writeback thread then gives a block to a disk that is asleep already. The kernel waits for
 * that block before it takes a processor away, for ever (block/blk-mq.c, blk_mq_hctx_notify_offline).
 *
 * A frozen file system has nothing to write, and whoever writes to it waits. Kernels since 6.17 can stop processes that wait
 * so; where one cannot, the jump is refused with EBUSY.
 */
import { AT_FDCWD, O_CLOEXEC, O_NONBLOCK, O_RDONLY } from '../abi/fcntl.ts';
import { FIFREEZE, FITHAW } from '../abi/fs.ts';
import { SyscallError } from '../errors.ts';
import { guardThaw } from '../process/guard.ts';
import { readFdinfo } from '../sys/fdinfo.ts';
import { close, ioctl, ioctlInt, openat } from '../sys/files.ts';
import { type Mount, readMountinfo } from '../sys/mountinfo.ts';

/**
 * Freezes all file systems on disks that are mounted for writing, the latest first: one may lie in a file of another. Nothing
 * may be written to any of them until they are thawed, also not by this process.
 *
 * @returns those that it has frozen; disposing of it thaws them. If this process is killed before, a guard does, also what another
 *   had frozen
 * @throws SyscallError EIO (what is dirty could not be written)
 */
export function freezeFileSystems(): Disposable & { readonly frozen: readonly Mount[] } {
  const opened: number[] = [];
  const frozen: number[] = [];
  const mounted: Mount[] = [];
  let endGuard = () => {};
  const thaw = () => {
    // EINVAL: another has thawed it.
    for (const fd of frozen.splice(0).reverse()) ioctl.attempt({ fd, request: FITHAW, arg: new Uint8Array(4) });
    endGuard();
    for (const fd of opened.splice(0)) close({ fd });
  };
  try {
    for (const mounts of onDisks(readMountinfo('self')).reverse()) {
      const fd = openAny(mounts);
      if (fd === undefined) continue;
      opened.push(fd);
      mounted.push(mounts[0]!);
    }
    endGuard = guardThaw(opened);
    for (const fd of opened) if (freeze(fd)) frozen.push(fd);
  } catch (error) {
    thaw();
    throw error;
  }
  return { frozen: mounted.filter((_, i) => frozen.includes(opened[i]!)), [Symbol.dispose]: thaw };
}

/** The mounts of each file system that has a block device and is writable. */
function onDisks(mounts: readonly Mount[]): Mount[][] {
  const isOnDisk = ({ major, type, source, superOptions }: Mount) =>
    (major !== 0 || source.startsWith('/')) && !type.startsWith('fuse') && superOptions.includes('rw');
  return [...Map.groupBy(mounts.filter(isOnDisk), ({ major, minor }) => `${major}:${minor}`).values()];
}

/** A descriptor of what is seen through one of the mounts, or undefined where others are mounted over all of them. */
function openAny(mounts: readonly Mount[]): number | undefined {
  for (const { id, mountPoint } of mounts) {
    // A single file can be mounted too, and it may be a pipe.
    const flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC;
    const fd = openat.attempt({ dirfd: AT_FDCWD, pathname: mountPoint, flags, mode: 0 });
    // The path is not there in what is mounted over it.
    if (fd < 0) continue;
    if (readFdinfo(process.pid, fd).mnt_id === id) return fd;
    close({ fd });
  }
  return undefined;
}

/** @returns false where it has no such operation, or another has frozen it */
function freeze(fd: number): boolean {
  try {
    ioctlInt(fd, FIFREEZE);
    return true;
  } catch (error) {
    if (error instanceof SyscallError && ['EOPNOTSUPP', 'EBUSY'].includes(error.errnoName)) return false;
    throw error;
  }
}
