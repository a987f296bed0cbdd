/** Huge pages of 2 MiB, their pool and their file system: Documentation/admin-guide/mm/hugetlbpage.rst. Needs CONFIG_HUGETLBFS. */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { AT_FDCWD, LOCK_EX, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { UnsupportedError } from '../errors.ts';
import { close, flock, openat } from './files.ts';
import { mount, umount2 } from './mount.ts';
import { readMountinfo } from './mountinfo.ts';
import { readProcText } from './proc.ts';

const POOL = '/sys/kernel/mm/hugepages/hugepages-2048kB';

/** In pages. */
export interface HugePagePool {
  readonly free: number;
  /** Of the free ones those that mappings were promised. */
  readonly reserved: number;
  /** Taken beyond the size of the pool; they go back to the system when they are free. */
  readonly surplus: number;
  /** How many may be taken beyond the size of the pool. */
  readonly overcommit: number;
}

/** @throws SyscallError ENOENT where the kernel has no huge pages of this size */
export function readHugePagePool(): HugePagePool {
  const count = (file: string) => Number.parseInt(readProcText(`${POOL}/${file}`), 10);
  return {
    free: count('free_hugepages'),
    reserved: count('resv_hugepages'),
    surplus: count('surplus_hugepages'),
    overcommit: count('nr_overcommit_hugepages'),
  };
}

/**
 * Allows as many pages beyond the pool as are missing of `wanted`, for the duration of a call; what it takes then stays taken. One process
 * does this at a time, so that each puts back what was there.
 *
 * @throws EACCES
 */
export function withSurplusHugePages<T>(wanted: number, call: (lacking: number) => T): T {
  const file = `${POOL}/nr_overcommit_hugepages`;
  const fd = openat({ dirfd: AT_FDCWD, pathname: file, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  try {
    flock({ fd, operation: LOCK_EX });
    const { free, reserved, surplus, overcommit } = readHugePagePool();
    // While another process frees its pages more of them may be reserved than are free.
    const lacking = Math.max(0, wanted - Math.max(0, free - reserved));
    const raised = lacking > 0 && surplus + lacking > overcommit;
    if (raised) writeFileSync(file, `${surplus + lacking}\n`);
    try {
      return call(lacking);
    } finally {
      if (raised) writeFileSync(file, `${overcommit}\n`);
    }
  } finally {
    close({ fd });
  }
}

/** Whether a file system of huge pages is mounted on a directory. */
export function isHugePageMount(directory: string): boolean {
  return readMountinfo('self').some(({ mountPoint, type }) => mountPoint === directory && type === 'hugetlbfs');
}

/** Mounts a file system of huge pages on a directory, for root alone, where none is. @throws UnsupportedError (no huge pages), EPERM */
export function mountHugePages(directory: string): void {
  if (isHugePageMount(directory)) return;
  if (!existsSync(POOL)) {
    throw new UnsupportedError({
      what: 'memory in huge pages',
      why: `this kernel has none of 2 MiB: ${POOL} does not exist`,
      remedy: 'use a kernel with CONFIG_HUGETLBFS=y',
    });
  }
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const data = Buffer.from('pagesize=2M,mode=0700\0');
  mount({ source: 'tideover', target: directory, filesystemtype: 'hugetlbfs', mountflags: 0, data });
}

/** Unmounts it and removes the directory, unless somebody has a file open there. */
export function unmountHugePages(directory: string): void {
  if (umount2.attempt({ target: directory, flags: 0 }) === 0) rmdirSync(directory);
}

/** Whether memory gets transparent huge pages without asking: Documentation/admin-guide/mm/transhuge.rst. */
export function hugeByDefault(): boolean {
  try {
    return readProcText('/sys/kernel/mm/transparent_hugepage/enabled').includes('[always]');
  } catch {
    // Not in this kernel.
    return false;
  }
}
