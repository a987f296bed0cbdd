/** What Node's fs cannot do with a file: mknod(2), utimensat(2) in nanoseconds, xattr(7). */
import { Errno } from '../abi/errno.ts';
import * as abi from '../abi/fcntl.ts';
import { textOf } from '../abi/text.ts';
import { timespec } from '../abi/time.ts';
import { cstring, dirfd, flags, hex, input, int, octal, output, syscall } from './syscall.ts';

/** @param dev as makedev() has it */
export const mknodat = syscall('mknodat', 259, { dirfd, pathname: cstring, mode: octal, dev: hex });
/** @param times two `timespec`: of access and of modification */
export const utimensat = syscall('utimensat', 280, {
  dirfd,
  pathname: cstring,
  times: input,
  flags: flags(abi, /^AT_SYMLINK_NOFOLLOW$/),
});
/** @returns bytes of the value, or with size 0 how many there are */
export const lgetxattr = syscall('lgetxattr', 192, { pathname: cstring, name: cstring, value: output, size: int });
export const lsetxattr = syscall('lsetxattr', 189, {
  pathname: cstring,
  name: cstring,
  value: input,
  size: int,
  flags: hex,
});
/** @returns bytes of names, each with its NUL, or with size 0 how many there are */
export const llistxattr = syscall('llistxattr', 195, { pathname: cstring, list: output, size: int });

/** Sets the times of a file or symbolic link. @param times in nanoseconds since 1970 */
export function setTimes(pathname: string, { atime, mtime }: { atime: bigint; mtime: bigint }): void {
  const times = new Uint8Array(2 * timespec.size);
  for (const [i, time] of [atime, mtime].entries()) {
    const tv_nsec = Number(((time % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n);
    const tv_sec = Number((time - BigInt(tv_nsec)) / 1_000_000_000n);
    timespec.write({ tv_sec, tv_nsec }, times, i * timespec.size);
  }
  utimensat({ dirfd: abi.AT_FDCWD, pathname, times, flags: abi.AT_SYMLINK_NOFOLLOW });
}

/** Extended attributes of a file or symbolic link, none where the file system has none. */
export function extendedAttributes(pathname: string): Map<string, Uint8Array> {
  const list = sized((buffer, size) => llistxattr.attempt({ pathname, list: buffer, size }));
  if (typeof list === 'number') {
    if (list === -Errno.EOPNOTSUPP) return new Map();
    throw llistxattr.error({ pathname, list: 0, size: 0 }, list);
  }
  const names = textOf(list).split('\0').slice(0, -1);
  return new Map(
    names.map((name) => {
      const value = sized((buffer, size) => lgetxattr.attempt({ pathname, name, value: buffer, size }));
      if (typeof value === 'number') throw lgetxattr.error({ pathname, name, value: 0, size: 0 }, value);
      return [name, value];
    }),
  );
}

/** Asks for a size, then for so many bytes, and again where there came to be more in between. @returns -errno on failure */
function sized(call: (buffer: Uint8Array, size: number) => number): Uint8Array | number {
  for (;;) {
    const size = call(new Uint8Array(0), 0);
    if (size < 0) return size;
    const buffer = new Uint8Array(size);
    const got = size === 0 ? 0 : call(buffer, size);
    if (got >= 0) return buffer.subarray(0, got);
    if (got !== -Errno.ERANGE) return got;
  }
}
