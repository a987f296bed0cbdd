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
  return readWhole(pathname, (bytes) => bytes.slice());
}

/** As readProc(), as text of src/abi/text.ts. */
export function readProcText(pathname: string): string {
  return readWhole(pathname, textOf);
}

/** @param take gets bytes that are there until the next call of this module */
function readWhole<T>(pathname: string, take: (bytes: Uint8Array) => T): T {
  const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  try {
    return take(gather((buf, count) => read({ fd, buf, count }), 'many'));
  } finally {
    close({ fd });
  }
}

/** @param next reads what comes next, to an address, at most so many bytes */
function gather(next: (address: number, count: number) => number, records: 'one' | 'many'): Uint8Array {
  chunk ??= new Region(CHUNK);
  const { address, bytes, size } = chunk;
  const parts: Uint8Array[] = [];
  for (let length = 0; ; ) {
    const got = next(address + length, size - length);
    length += got;
    if (length === size) {
      parts.push(bytes.slice());
      length = 0;
    } else if (got === 0 || records === 'one') {
      const last = bytes.subarray(0, length);
      return parts.length === 0 ? last : Buffer.concat([...parts, last]);
    }
  }
}

/** Files that stay open, by path, and how many may. */
interface TaskFiles {
  readonly open: Map<string, number>;
  readonly most: number;
}

let kept: TaskFiles | undefined;

/**
 * Has readTaskText() leave files open until it is disposed of: what is read once more while programs stand still then takes one call
 * for four. 200 threads: 2.4 ms less. Asked for again before that it changes nothing: descriptors are few.
 */
export function keepTaskFiles(): Disposable {
  if (kept !== undefined) return { [Symbol.dispose]() {} };
  const open = new Map<string, number>();
  kept = { open, most: Math.min(MOST, descriptorLimit() / 4) };
  return {
    [Symbol.dispose]() {
      kept = undefined;
      for (const fd of open.values()) close({ fd });
    },
  };
}

/** Of a thousand threads. */
const MOST = 4096;

/**
 * Reads a file that tells of a process or thread as it is when it is read: `status`, `stat`, `fdinfo/N` and the like. One call gives
 * all of what is one record to the kernel, if it is given room for it: single_open() of fs/seq_file.c.
 *
 * @param records `many` where it is a list of some length, which one call gives the beginning of
 * @throws as readProc()
 */
export function readTaskText(pathname: string, records: 'one' | 'many' = 'one'): string {
  const before = kept?.open.get(pathname);
  if (before !== undefined) {
    try {
      return readText(before, records);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      forget(kept!, pathname);
    }
  }
  const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  const keeps = kept !== undefined && kept.open.size < kept.most;
  if (keeps) kept!.open.set(pathname, fd);
  try {
    return readText(fd, records);
  } finally {
    if (!keeps) close({ fd });
  }
}

/**
 * Closes a file of a process or thread that has ended, and all others of it: another one may have its id. `children` does not say
 * so, and is empty from then on.
 */
function forget({ open }: TaskFiles, pathname: string): void {
  const folder = pathname.slice(0, pathname.lastIndexOf('/') + 1);
  for (const [path, fd] of open) {
    if (!path.startsWith(folder)) continue;
    open.delete(path);
    close({ fd });
  }
}

function readText(fd: number, records: 'one' | 'many'): string {
  let offset = 0;
  const next = (buf: number, count: number): number => {
    const got = pread64({ fd, buf, count, offset });
    offset += got;
    return got;
  };
  return textOf(gather(next, records));
}

/** Undoes the kernel's mangle_path() and seq_escape(): `\040` for a byte in octal, of which only a few are written so. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
