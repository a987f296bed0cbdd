/**
 * Memory of this process: mmap(2), mprotect(2), mremap(2), munmap(2), madvise(2), mincore(2), mlock(2), msync(2) and
 * memfd_create(2); and advice about another's: process_madvise(2).
 */
import * as abi from '../abi/mman.ts';
import { address, cstring, flags, hex, input, int, oneOf, output, syscall } from './syscall.ts';

const prot = flags(abi, /^PROT_/);
const mapFlags = flags(abi, /^MAP_(?!SHARED_VALIDATE|HUGE_SHIFT)/);
const advice = oneOf(abi, /^MADV_/);

/** @returns the address */
export const mmap = syscall('mmap', 9, { addr: address, length: int, prot, flags: mapFlags, fd: int, offset: hex });
export const mprotect = syscall('mprotect', 10, { addr: address, len: int, prot });
export const munmap = syscall('munmap', 11, { addr: address, length: int });
/** @returns the new address */
export const mremap = syscall('mremap', 25, {
  old_address: address,
  old_size: int,
  new_size: int,
  flags: flags(abi, /^MREMAP_/),
  new_address: address,
});
export const msync = syscall('msync', 26, { addr: address, length: int, flags: hex });
/** Fills `vec` with a byte for each page, bit 0 of which says that it is in memory. */
export const mincore = syscall('mincore', 27, { addr: address, length: int, vec: output });
export const madvise = syscall('madvise', 28, { addr: address, length: int, advice });
export const mlock = syscall('mlock', 149, { addr: address, len: int });
export const munlock = syscall('munlock', 150, { addr: address, len: int });
/** @returns a descriptor */
export const memfd_create = syscall('memfd_create', 319, {
  name: cstring,
  flags: flags(abi, /^MFD_/),
});
/** @param iovec elements of `iovec`, packed @returns bytes advised */
export const process_madvise = syscall('process_madvise', 440, {
  pidfd: int,
  iovec: input,
  vlen: int,
  advice,
  flags: hex,
});
