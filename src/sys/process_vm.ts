/** Memory of another process, copied without stopping it: process_vm_readv(2). */
import { iovec } from '../abi/uio.ts';
import { type Address, hex, input, int, syscall } from './syscall.ts';

const remote = {
  pid: int,
  local_iov: input,
  liovcnt: int,
  remote_iov: input,
  riovcnt: int,
  flags: hex,
};

/**
 * Copies from another process; each side takes up to UIO_MAXIOV ranges, packed `iovec`s.
 *
 * @returns bytes copied: fewer than asked for where memory of the other side ends or is not readable behind the first
 *   range; a range is never copied in part but at a page's border
 * @throws SyscallError EFAULT (nothing could be copied), EPERM (ptrace access denied), ESRCH
 */
export const process_vm_readv = syscall('process_vm_readv', 310, remote);

/** Copies to another process; see process_vm_readv. */
export const process_vm_writev = syscall('process_vm_writev', 311, remote);

/**
 * Copies one range of another process to `to`, an address here (of a Region).
 *
 * @param length in bytes
 * @returns bytes copied, which are fewer where the memory ends
 */
export function readMemory(pid: number, from: Address, to: Address, length: number): number {
  return process_vm_readv(oneRange(pid, to, from, length));
}

/** Copies one range at `from`, an address here, to `to` in another process. */
export function writeMemory(pid: number, to: Address, from: Address, length: number): number {
  return process_vm_writev(oneRange(pid, from, to, length));
}

/** A range of another process that has its mirror here. */
export interface Mirrored {
  readonly there: Address;
  readonly here: Address;
  /** In bytes. */
  readonly length: number;
}

/** Copies two ranges by one call. @returns bytes copied */
export function readBoth(pid: number, first: Mirrored, second: Mirrored): number {
  return process_vm_readv(twoRanges(pid, first, second));
}

/** As readBoth(), the other way. */
export function writeBoth(pid: number, first: Mirrored, second: Mirrored): number {
  return process_vm_writev(twoRanges(pid, first, second));
}

function oneRange(pid: number, local: Address, there: Address, length: number) {
  iovec.write({ iov_base: local, iov_len: length }, vectors);
  iovec.write({ iov_base: there, iov_len: length }, vectors, THEIRS);
  return ranges(pid, 1);
}

function twoRanges(pid: number, first: Mirrored, second: Mirrored) {
  for (const [i, { here, there, length }] of [first, second].entries()) {
    iovec.write({ iov_base: here, iov_len: length }, vectors, i * iovec.size);
    iovec.write({ iov_base: there, iov_len: length }, vectors, THEIRS + i * iovec.size);
  }
  return ranges(pid, 2);
}

/** Ours, then theirs: two each. */
const vectors = new Uint8Array(4 * iovec.size);
const THEIRS = 2 * iovec.size;
const [local_iov, remote_iov] = [vectors.subarray(0, THEIRS), vectors.subarray(THEIRS)];

function ranges(pid: number, count: number) {
  return { pid, local_iov, liovcnt: count, remote_iov, riovcnt: count, flags: 0 };
}
