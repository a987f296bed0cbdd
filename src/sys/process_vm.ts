/** Memory of another process, copied without stopping it: process_vm_readv(2). */
import { iovec, UIO_MAXIOV } from '../abi/uio.ts';
import { Region } from './region.ts';
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

/** Copies ranges, many by one call. @returns whether all of them could be copied @throws SyscallError as process_vm_readv */
export function readRanges(pid: number, ranges: readonly Mirrored[]): boolean {
  return copyRanges(process_vm_readv, pid, ranges);
}

/** As readRanges(), the other way. */
export function writeRanges(pid: number, ranges: readonly Mirrored[]): boolean {
  return copyRanges(process_vm_writev, pid, ranges);
}

function copyRanges(copy: typeof process_vm_readv, pid: number, ranges: readonly Mirrored[]): boolean {
  for (let from = 0; from < ranges.length; from += UIO_MAXIOV) {
    const count = Math.min(ranges.length - from, UIO_MAXIOV);
    let wanted = 0;
    for (let i = 0; i < count; i++) {
      const { here, there, length } = ranges[from + i]!;
      put(i, here, there, length);
      wanted += length;
    }
    if (wanted > 0 && copy(vectorsOf(pid, count)) !== wanted) return false;
  }
  return true;
}

function oneRange(pid: number, local: Address, there: Address, length: number) {
  put(0, local, there, length);
  return vectorsOf(pid, 1);
}

/** Ours, then theirs. */
let vectors: Region | undefined;
const THEIRS = UIO_MAXIOV * iovec.size;

function put(i: number, here: Address, there: Address, length: number): void {
  vectors ??= new Region(2 * THEIRS);
  const { view } = vectors;
  const at = i * iovec.size;
  for (const [place, base] of [
    [at, here],
    [THEIRS + at, there],
  ] as const) {
    view.setUint32(place, base >>> 0, true);
    view.setUint32(place + 4, base / TWO32, true);
    view.setUint32(place + 8, length >>> 0, true);
    view.setUint32(place + 12, length / TWO32, true);
  }
}

const TWO32 = 2 ** 32;

function vectorsOf(pid: number, count: number) {
  const { address } = vectors!;
  return { pid, local_iov: address, liovcnt: count, remote_iov: address + THEIRS, riovcnt: count, flags: 0 };
}
