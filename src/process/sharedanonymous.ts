/** Anonymous memory that processes share, made here before they are there. */
import { ftruncateSync } from 'node:fs';
import { AT_FDCWD, O_CLOEXEC, O_RDWR } from '../abi/fcntl.ts';
import {
  MAP_ANONYMOUS,
  MAP_HUGETLB,
  MAP_SHARED,
  MFD_CLOEXEC,
  MFD_HUGETLB,
  PROT_READ,
  PROT_WRITE,
} from '../abi/mman.ts';
import { openat } from '../sys/files.ts';
import { memfd_create, mmap, munmap } from '../sys/memory.ts';

/**
 * A file of anonymous shared memory. Opened through /proc/self/map_files it is the very same that mmap(2) makes, and is called
 * /dev/zero; without the right to do that (CAP_CHECKPOINT_RESTORE) a memfd does the same under another name.
 *
 * @param length in bytes @param huge MAP_HUGETLB and the size of its pages, or 0
 */
export function sharedAnonymous(length: number, huge: number): number {
  const prot = PROT_READ | PROT_WRITE;
  const addr = mmap({ addr: 0, length, prot, flags: MAP_SHARED | MAP_ANONYMOUS | huge, fd: -1, offset: 0 });
  const end = addr + Math.ceil(length / 4096) * 4096;
  const pathname = `/proc/self/map_files/${addr.toString(16)}-${end.toString(16)}`;
  const fd = openat.attempt({ dirfd: AT_FDCWD, pathname, flags: O_RDWR | O_CLOEXEC, mode: 0 });
  munmap({ addr, length });
  if (fd >= 0) return fd;
  const kind = huge === 0 ? 0 : MFD_HUGETLB | (huge & ~MAP_HUGETLB);
  const memory = memfd_create({ name: 'dev/zero', flags: MFD_CLOEXEC | kind });
  ftruncateSync(memory, length);
  return memory;
}
