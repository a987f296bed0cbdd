/**
 * Files and descriptors: open(2), openat2(2), read(2), pread(2), preadv(2), lseek(2), fcntl(2), flock(2), ioctl(2),
 * dup(2), pipe(2), statx(2), readlink(2), link(2), unlink(2), open_by_handle_at(2), splice(2), copy_file_range(2), fallocate(2),
 * fsync(2), sync(2), close_range(2), getdents(2).
 *
 * A `buf` is bytes, which are copied, or an address in a Region, which is what bulk data needs.
 */

import * as abi from '../abi/fcntl.ts';
import * as statAbi from '../abi/stat.ts';
import { statfs } from '../abi/statfs.ts';
import { viewOf } from '../abi/struct.ts';
import { textOf } from '../abi/text.ts';
import { cstring, dirfd, flags, hex, input, int, octal, oneOf, output, syscall, word } from './syscall.ts';

const openFlags = flags(abi, /^(O_(?!ACCMODE)|FASYNC)/);
const atFlags = flags(abi, /^AT_(?!FDCWD|REMOVEDIR|EACCESS|HANDLE_FID)/);
const spliceFlags = flags(abi, /^SPLICE_F_/);

/** @returns a descriptor */
export const openat = syscall('openat', 257, { dirfd, pathname: cstring, flags: openFlags, mode: octal });
/** @param how an open_how @returns a descriptor */
export const openat2 = syscall('openat2', 437, { dirfd, pathname: cstring, how: input, size: int });
export const close = syscall('close', 3, { fd: int });
export const close_range = syscall('close_range', 436, { first: int, last: int, flags: flags(abi, /^CLOSE_RANGE_/) });

/** @returns bytes read, 0 at the end */
export const read = syscall('read', 0, { fd: int, buf: output, count: int });
export const write = syscall('write', 1, { fd: int, buf: input, count: int });
export const pread64 = syscall('pread64', 17, { fd: int, buf: output, count: int, offset: int });
export const pwrite64 = syscall('pwrite64', 18, { fd: int, buf: input, count: int, offset: int });
/** @param iov elements of `iovec`, packed */
export const readv = syscall('readv', 19, { fd: int, iov: input, iovcnt: int });
export const writev = syscall('writev', 20, { fd: int, iov: input, iovcnt: int });
/** The kernel takes the offset in two halves; on 64 bits the low one, pos_l, holds all of it. */
export const preadv = syscall('preadv', 295, { fd: int, iov: input, iovcnt: int, pos_l: int, pos_h: int });
export const pwritev = syscall('pwritev', 296, { fd: int, iov: input, iovcnt: int, pos_l: int, pos_h: int });
/** @returns the new position */
export const lseek = syscall('lseek', 8, { fd: int, offset: int, whence: oneOf(abi, /^SEEK_/) });

export const fcntl = syscall('fcntl', 72, { fd: int, cmd: oneOf(abi, /^F_(?!SEAL|OWNER|..LCK)/), arg: word });
export const flock = syscall('flock', 73, { fd: int, operation: flags(abi, /^LOCK_/) });
export const ioctl = syscall('ioctl', 16, { fd: int, request: hex, arg: word });
/** @param buf a struct statfs */
export const fstatfs = syscall('fstatfs', 138, { fd: int, buf: output });
export const dup3 = syscall('dup3', 292, { oldfd: int, newfd: int, flags: openFlags });
/** @param pipefd 8 bytes: the end to read from, the end to write to */
export const pipe2 = syscall('pipe2', 293, { pipefd: output, flags: openFlags });

export const readlinkat = syscall('readlinkat', 267, { dirfd, pathname: cstring, buf: output, bufsiz: int });
export const linkat = syscall('linkat', 265, {
  olddirfd: dirfd,
  oldpath: cstring,
  newdirfd: dirfd,
  newpath: cstring,
  flags: atFlags,
});
export const unlinkat = syscall('unlinkat', 263, { dirfd, pathname: cstring, flags: flags(abi, /^AT_REMOVEDIR$/) });
/** @param handle a file_handle with its bytes @param mount_id 4 bytes @throws SyscallError EOVERFLOW, EOPNOTSUPP */
export const name_to_handle_at = syscall('name_to_handle_at', 303, {
  dirfd,
  pathname: cstring,
  handle: output,
  mount_id: output,
  flags: atFlags,
});
export const open_by_handle_at = syscall('open_by_handle_at', 304, {
  mount_fd: dirfd,
  handle: input,
  flags: openFlags,
});
/** @returns bytes of entries, each a linux_dirent64, 0 at the end */
export const getdents64 = syscall('getdents64', 217, { fd: int, dirp: output, count: int });

/** @param off_in 8 bytes or 0 @param off_out 8 bytes or 0 @returns bytes moved */
export const splice = syscall('splice', 275, {
  fd_in: int,
  off_in: output,
  fd_out: int,
  off_out: output,
  len: int,
  flags: spliceFlags,
});
/** Copies from pipe to pipe and leaves the first full: how a pipe's content is read without taking it. */
export const tee = syscall('tee', 276, { fd_in: int, fd_out: int, len: int, flags: spliceFlags });
export const vmsplice = syscall('vmsplice', 278, { fd: int, iov: input, nr_segs: int, flags: spliceFlags });
export const copy_file_range = syscall('copy_file_range', 326, {
  fd_in: int,
  off_in: output,
  fd_out: int,
  off_out: output,
  len: int,
  flags: hex,
});
export const fallocate = syscall('fallocate', 285, { fd: int, mode: flags(abi, /^FALLOC_FL_/), offset: int, len: int });
export const ftruncate = syscall('ftruncate', 77, { fd: int, length: int });
export const fsync = syscall('fsync', 74, { fd: int });
export const fdatasync = syscall('fdatasync', 75, { fd: int });
/** Writes out the file system that holds the file. */
export const syncfs = syscall('syncfs', 306, { fd: int });

/** @param times two of `timespec`: of the last access and the last change */
export const utimensat = syscall('utimensat', 280, { dirfd, pathname: cstring, times: input, flags: atFlags });

/** Makes a file, FIFO or device. @param dev as the kernel has it, (major << 8) | minor for small numbers */
export const mknodat = syscall('mknodat', 259, { dirfd, pathname: cstring, mode: octal, dev: hex });

/** @param statxbuf room for a statx */
export const statx = syscall('statx', 332, {
  dirfd,
  pathname: cstring,
  flags: atFlags,
  mask: flags(statAbi, /^STATX_(?!BASIC_STATS)/),
  statxbuf: output,
});

/** Attributes of a file; with an empty path and AT_EMPTY_PATH those of the descriptor `directory`. */
export function attributes(directory: number, pathname: string, flags = 0): statAbi.Statx {
  const statxbuf = new Uint8Array(statAbi.statx.size);
  const mask = statAbi.STATX_BASIC_STATS | statAbi.STATX_BTIME | statAbi.STATX_MNT_ID;
  statx({ dirfd: directory, pathname, flags, mask, statxbuf });
  return statAbi.statx.read(statxbuf);
}

/**
 * Makes the table of descriptors of this process so large that it need not grow: where threads share it, as Node's do, the kernel waits
 * for all processors then, which takes 10 ms and more. expand_fdtable() of fs/file.c
 *
 * @param count below the limit of descriptors
 */
export function widenTable(count: number): void {
  const { reader, writer } = makePipe(abi.O_CLOEXEC);
  const last = fcntl.attempt({ fd: reader, cmd: abi.F_DUPFD_CLOEXEC, arg: count - 1 });
  for (const fd of [reader, writer, last]) if (fd >= 0) close({ fd });
}

/** What file system an open file lies in. */
export function fileSystemOf(fd: number): ReturnType<typeof statfs.read> {
  const buf = new Uint8Array(statfs.size);
  fstatfs({ fd, buf });
  return statfs.read(buf);
}

/** A pipe. @param flags O_CLOEXEC, O_NONBLOCK */
export function makePipe(flags: number): { reader: number; writer: number } {
  const pipefd = new Uint8Array(8);
  pipe2({ pipefd, flags });
  const view = viewOf(pipefd);
  return { reader: view.getInt32(0, true), writer: view.getInt32(4, true) };
}

/** Where a symbolic link points, also one of /proc/PID; with an empty path the one that `directory` is a descriptor of. */
export function readlink(pathname: string, directory = abi.AT_FDCWD): string {
  for (let bufsiz = 512; ; bufsiz *= 4) {
    const buf = new Uint8Array(bufsiz);
    const length = readlinkat({ dirfd: directory, pathname, buf, bufsiz });
    if (length < bufsiz) return textOf(buf.subarray(0, length));
  }
}

/** What a request answers as an int: how many bytes wait, with FIONREAD or SIOCOUTQ. */
export function ioctlInt(fd: number, request: number): number {
  const arg = new Uint8Array(4);
  ioctl({ fd, request, arg });
  return viewOf(arg).getInt32(0, true);
}
