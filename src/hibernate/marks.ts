/**
 * File systems of a machine that is saved, as it left them. It goes on with what it knows of them: what was mounted for writing
 * meanwhile would be destroyed. Mounting changes the superblock; XFS changes it when it is unmounted.
 */
import { createHash } from 'node:crypto';
import { AT_FDCWD, O_CLOEXEC, O_DIRECT, O_RDONLY } from '../abi/fcntl.ts';
import { blockDevices } from '../sys/devices.ts';
import { close, openat, pread64 } from '../sys/files.ts';
import { Region } from '../sys/region.ts';
import { contentOf } from '../target/identity.ts';

export interface FileSystemMark {
  /** Type and UUID. */
  readonly id: string;
  /** Of the beginning, where the superblocks stand. */
  readonly digest: string;
  /** Where it was mounted. */
  readonly at: string;
}

/** btrfs has its superblock at 64 KB. */
const HEAD = 128 << 10;

/** Of a file system that is frozen. @param device in /dev @returns undefined where its type is not known here */
export function markOf(device: string, at: string): FileSystemMark | undefined {
  const head = headOf(device);
  const id = head && contentOf(head);
  return id === undefined ? undefined : { id, digest: digestOf(head!), at };
}

/** Where a file system was mounted that is another one now. One that no disk has is passed over: its disk may not be there yet. */
export function changedFileSystem(marks: readonly FileSystemMark[]): string | undefined {
  const found = blockDevices().flatMap((name) => markOf(`/dev/${name.replaceAll('!', '/')}`, '') ?? []);
  return changedAmong(marks, found);
}

/** A mirror of it may be there too. */
export function changedAmong(marks: readonly FileSystemMark[], found: readonly FileSystemMark[]): string | undefined {
  return marks.find(({ id, digest }) => {
    const same = found.filter((each) => each.id === id);
    return same.length > 0 && !same.some((each) => each.digest === digest);
  })?.at;
}

/** As it is on the disk, past what this kernel remembers of it. */
function headOf(device: string): Uint8Array | undefined {
  const fd = openat.attempt({ dirfd: AT_FDCWD, pathname: device, flags: O_RDONLY | O_DIRECT | O_CLOEXEC, mode: 0 });
  if (fd < 0) return undefined;
  try {
    using region = new Region(HEAD);
    const length = pread64.attempt({ fd, buf: region.address, count: HEAD, offset: 0 });
    return length === HEAD ? region.bytes.slice() : undefined;
  } finally {
    close({ fd });
  }
}

function digestOf(head: Uint8Array): string {
  return createHash('sha256').update(head).digest('hex').slice(0, 32);
}
