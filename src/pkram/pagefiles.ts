/**
 * Huge pages that are held by a mount of hugetlbfs, with no process for it: each page is a file, and the names say their order.
 *
 *     FOLDER/lock        whoever uses the pages has its lock
 *     FOLDER/00000000    the first page ...
 *     FOLDER/00000001
 *     FOLDER/new-0       a page that has no place yet; it goes when the one who took it has died
 *
 * A page belongs to the others once it has its name. Below /dev the mount stays until the next kernel starts: systemd takes what
 * lies there for no concern of its own (mount_is_extrinsic() of its src/core/mount.c, and src/shutdown/umount.c).
 */
import * as fs from 'node:fs';
import { join } from 'node:path';
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
} from '../abi/mman.ts';
import { UnsupportedError } from '../errors.ts';
import { PMD_SIZE } from '../mem/address.ts';
import { alignUp } from '../mem/range.ts';
import { mmap, munmap } from '../sys/memory.ts';
import { Pagemap, PM_PRESENT, pfnOf } from '../sys/pagemap.ts';

export class PageFiles {
  readonly folder: string;
  /** Of pages without a place. */
  #next = 0;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** Whether no page has a place. @throws EACCES where the caller may not see them: they may be there */
  get isEmpty(): boolean {
    return fs.statSync(join(this.folder, name(0)), { throwIfNoEntry: false }) === undefined;
  }

  /** How many pages have a place. */
  count(): number {
    const names = new Set(fs.readdirSync(this.folder));
    let count = 0;
    while (names.has(name(count))) count++;
    return count;
  }

  /** Removes all files but the first pages and the lock. */
  keepFirst(count: number): void {
    const kept = new Set(['lock', ...Array.from({ length: count }, (_, i) => name(i))]);
    // From the last on, so that what is left when this is broken off is the first ones.
    for (const each of fs.readdirSync(this.folder).sort().reverse()) if (!kept.has(each)) this.drop(each);
  }

  /** Takes pages, which have no place yet. @returns their names @throws SyscallError ENOMEM where there are not so many */
  take(count: number): string[] {
    const taken: string[] = [];
    try {
      for (let i = 0; i < count; i++) {
        const file = `new-${this.#next++}`;
        const fd = fs.openSync(join(this.folder, file), 'wx', 0o600);
        taken.push(file);
        try {
          fs.ftruncateSync(fd, PMD_SIZE);
        } finally {
          fs.closeSync(fd);
        }
      }
      unmap(this.map(taken, true), count);
      return taken;
    } catch (error) {
      for (const file of taken) this.drop(file);
      throw error;
    }
  }

  /** Gives pages without a place the places from `first` on. */
  place(files: readonly string[], first: number): void {
    const rename = (i: number) => fs.renameSync(join(this.folder, files[i]!), join(this.folder, name(first + i)));
    // The one that the others follow comes last: until then none of them counts.
    for (let i = 1; i < files.length; i++) rename(i);
    if (files.length > 0) rename(0);
  }

  drop(file: string): void {
    fs.rmSync(join(this.folder, file), { force: true });
  }

  /** Names of pages that have a place. */
  names(first: number, count: number): string[] {
    return Array.from({ length: count }, (_, i) => name(first + i));
  }

  /** Maps pages one after the other. @returns the address @throws SyscallError ENOMEM */
  map(files: readonly string[], writable: boolean): number {
    const address = reserve(files.length * PMD_SIZE);
    const prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    try {
      for (const [i, file] of files.entries()) {
        const fd = fs.openSync(join(this.folder, file), writable ? 'r+' : 'r');
        try {
          const flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
          mmap({ addr: address + i * PMD_SIZE, length: PMD_SIZE, prot, flags, fd, offset: 0 });
        } finally {
          fs.closeSync(fd);
        }
      }
      return address;
    } catch (error) {
      unmap(address, files.length);
      throw error;
    }
  }
}

export function unmap(address: number, pages: number): void {
  if (pages > 0) munmap({ addr: address, length: pages * PMD_SIZE });
}

/** Where mapped huge pages lie in physical memory. @throws UnsupportedError where the kernel does not tell */
export function physicalAddresses(address: number, count: number): number[] {
  const pagemap = new Pagemap('self');
  try {
    return Array.from({ length: count }, (_, i) => {
      const at = address + i * PMD_SIZE;
      const entry = pagemap.read(at, at + 4096);
      const pfn = pfnOf(entry, 0);
      if ((entry[1]! & PM_PRESENT) !== 0 && pfn !== 0) return pfn * 4096;
      throw new UnsupportedError({
        what: 'preserved memory in huge pages',
        why: '/proc/self/pagemap does not tell physical addresses to a process without CAP_SYS_ADMIN',
        remedy: 'run as root',
      });
    });
  } finally {
    pagemap[Symbol.dispose]();
  }
}

function name(number: number): string {
  return `${number}`.padStart(8, '0');
}

/** Address space that begins at a huge page. */
function reserve(length: number): number {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const start = mmap({ addr: 0, length: length + PMD_SIZE, prot: PROT_NONE, flags, fd: -1, offset: 0 });
  const aligned = alignUp(start, PMD_SIZE);
  if (aligned > start) munmap({ addr: start, length: aligned - start });
  const behind = start + PMD_SIZE - aligned;
  if (behind > 0) munmap({ addr: aligned + length, length: behind });
  return aligned;
}
