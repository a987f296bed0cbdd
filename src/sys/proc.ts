/** Files of /proc and /sys, whole: their size is not known before the end and their names may be any bytes. */
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { textOf } from '../abi/text.ts';
import { SyscallError } from '../errors.ts';
import { close, openat, pread64, read } from './files.ts';
import { descriptorLimit } from './process.ts';
import { Region } from './region.ts';

const CHUNK = 1 << 18;
let chunk: Region | undefined;

/**
 * Reads a file of /proc or /sys.
 *
 * @throws SyscallError ENOENT (no such process, or not in this kernel), EACCES or EPERM, ESRCH (the process ended meanwhile)
 */
export function readProc(pathname: string): Uint8Array {
  chunk ??= new Region(CHUNK);
  const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  try {
    const parts: Uint8Array[] = [];
    for (;;) {
      const length = read({ fd, buf: chunk.address, count: chunk.size });
      if (length === 0) return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
      parts.push(chunk.bytes.slice(0, length));
    }
  } finally {
    close({ fd });
  }
}

/** As readProc(), as text of src/abi/text.ts. */
export function readProcText(pathname: string): string {
  return textOf(readProc(pathname));
}

/** Files that stay open, by path. */
let kept: { readonly files: Map<string, number>; readonly most: number } | undefined;

/**
 * Has readTaskText() leave files open until it is disposed of: what is read once more while programs stand still then takes one call
 * for four. 200 threads: 2.4 ms less.
 */
export function keepTaskFiles(): Disposable {
  const mine = { files: new Map<string, number>(), most: Math.min(MOST, descriptorLimit() / 4) };
  kept = mine;
  return {
    [Symbol.dispose]() {
      if (kept === mine) kept = undefined;
      for (const fd of mine.files.values()) close({ fd });
      mine.files.clear();
    },
  };
}

/** Of a thousand threads. */
const MOST = 4096;

/**
 * Reads a file that tells of a process or thread as it is when it is read: `status`, `stat`, `fdinfo/N` and the like. One call gives
 * all of what is one record to the kernel: single_open() of fs/seq_file.c.
 *
 * @param records `many` where it is a list of some length, which one call gives the beginning of
 * @throws as readProc()
 */
export function readTaskText(pathname: string, records: 'one' | 'many' = 'one'): string {
  const before = kept?.files.get(pathname);
  if (before !== undefined) {
    try {
      return readText(before, records);
    } catch (error) {
      // Of a process that has ended; another one may have its id.
      if (!(error instanceof SyscallError)) throw error;
      kept!.files.delete(pathname);
      close({ fd: before });
    }
  }
  const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  const keeps = kept !== undefined && kept.files.size < kept.most;
  if (keeps) kept!.files.set(pathname, fd);
  try {
    return readText(fd, records);
  } finally {
    if (!keeps) close({ fd });
  }
}

function readText(fd: number, records: 'one' | 'many'): string {
  chunk ??= new Region(CHUNK);
  const { address, bytes, size } = chunk;
  let end = 0;
  for (let got = 1; got > 0 && end < size; end += got) {
    got = pread64({ fd, buf: address + end, count: size - end, offset: end });
    if (records === 'one') return textOf(bytes.subarray(0, got));
  }
  return textOf(bytes.subarray(0, end));
}

/** Undoes the kernel's mangle_path() and seq_escape(): `\040` for a byte in octal, of which only a few are written so. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
