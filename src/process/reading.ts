/** How memory of a stopped process is read. */
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { iovec, UIO_MAXIOV } from '../abi/uio.ts';
import { SyscallError } from '../errors.ts';
import { close, openat, pread64 } from '../sys/files.ts';
import { process_vm_readv } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';

const TWO32 = 2 ** 32;

/** More is slower: 256 KiB to 1 MiB copy at 11 GB/s, 8 MiB at 6.8, as they leave the cache. */
export const CHUNK = 1 << 20;

/**
 * Memory is read through /proc/PID/mem: also what the process itself may not read, with PROT_NONE for instance. Unlike by
 * process_vm_readv(2), pages that are shared until one writes stay so: that pins them, and a page is given to one before it is
 * pinned (gup_must_unshare() of mm/gup.c, Linux 5.19). 1 GiB of a snapshot: 0.2 s against 3.2 s, and all of it twice.
 */
export function openMemory(pid: number): number {
  return openat({ dirfd: AT_FDCWD, pathname: `/proc/${pid}/mem`, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
}

/** @param pid whose memory `fd` is, for the message of an error */
export function readExactly(fd: number, pid: number, offset: number, buf: number, count: number): void {
  const got = pread64({ fd, buf, count, offset });
  if (got !== count) throw short('pread64', pid, got, count);
}

/** A call that has done less than it was asked for, in memory of another process. */
export function short(call: string, pid: number, got: number, length: number): SyscallError {
  return new SyscallError(call, `${call}(${pid}): ${got} of ${length} bytes`, 14);
}

/**
 * Pages here and there, read one behind the other by few calls: a pread(2) each took 39 ms for 8500 of them. They were
 * written since the parent of the image was made, and so belong to this process alone: see openMemory().
 */
export class Scattered {
  readonly #pid: number;
  readonly #to: number;
  /** Of struct iovec: address and length, as two u32 each. */
  readonly #ranges = new Region(UIO_MAXIOV * iovec.size);
  readonly #words = new Uint32Array(this.#ranges.bytes.buffer);
  #count = 0;
  /** Bytes that are read, and those that are asked for too. */
  #done = 0;
  #asked = 0;

  /** @param to where they are to lie here, each time from there on */
  constructor(pid: number, to: number) {
    this.#pid = pid;
    this.#to = to;
  }

  add(from: number, length: number): void {
    if (this.#count === UIO_MAXIOV) this.#some();
    const at = 4 * this.#count++;
    this.#words[at] = from >>> 0;
    this.#words[at + 1] = from / TWO32;
    this.#words[at + 2] = length;
    this.#asked += length;
  }

  /** Reads what is left; the next one comes to the beginning. */
  read(): void {
    this.#some();
    this.#done = 0;
    this.#asked = 0;
  }

  #some(): void {
    if (this.#count === 0) return;
    const [to, length] = [this.#to + this.#done, this.#asked - this.#done];
    const args = {
      ...{ pid: this.#pid, local_iov: iovec.write({ iov_base: to, iov_len: length }), liovcnt: 1 },
      ...{ remote_iov: this.#ranges.address, riovcnt: this.#count, flags: 0 },
    };
    // What the process itself may not read is not read so either.
    if (process_vm_readv.attempt(args) !== length) this.#one(to);
    this.#done = this.#asked;
    this.#count = 0;
  }

  #one(to: number): void {
    const fd = openMemory(this.#pid);
    try {
      for (let i = 0, done = 0; i < this.#count; i++) {
        const { iov_base, iov_len } = iovec.read(this.#ranges.bytes, i * iovec.size);
        readExactly(fd, this.#pid, iov_base, to + done, iov_len);
        done += iov_len;
      }
    } finally {
      close({ fd });
    }
  }

  [Symbol.dispose](): void {
    this.#ranges[Symbol.dispose]();
  }
}
