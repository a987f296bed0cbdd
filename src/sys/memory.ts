/** Memory of this process: mmap(2), mprotect(2), munmap(2). */
import { address, hex, int, syscall } from './syscall.ts';

export const mmap = syscall('mmap', 9, { addr: address, length: int, prot: hex, flags: hex, fd: int, offset: hex });
export const mprotect = syscall('mprotect', 10, { addr: address, len: int, prot: hex });
export const munmap = syscall('munmap', 11, { addr: address, length: int });
