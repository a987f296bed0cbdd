/** Files of /proc and /sys, whole: their size is not known before the end and their names may be any bytes. */
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { textOf } from '../abi/text.ts';
import { close, openat, read } from './files.ts';
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

/** Undoes the kernel's mangle_path() and seq_escape(): `\040` for a byte in octal, of which only a few are written so. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
