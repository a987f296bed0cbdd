/** Files with holes: what of them is data. */
import { Errno } from '../../abi/errno.ts';
import { SEEK_DATA, SEEK_HOLE } from '../../abi/fcntl.ts';
import { lseek, pwrite64 } from '../../sys/files.ts';

/** Ranges of a file that hold data: start and end of each, in bytes. */
export function dataRanges(fd: number, size: number): [start: number, end: number][] {
  const ranges: [number, number][] = [];
  for (let offset = 0; offset < size; ) {
    const args = { fd, offset, whence: SEEK_DATA };
    const start = lseek.attempt(args);
    if (start === -Errno.ENXIO) break;
    if (start < 0) throw lseek.error(args, start);
    const end = Math.min(lseek({ fd, offset: start, whence: SEEK_HOLE }), size);
    ranges.push([start, end]);
    offset = end;
  }
  return ranges;
}

/** Writes all of it. */
export function writeAt(fd: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.length; ) {
    const buf = bytes.subarray(done, done + (1 << 19));
    done += pwrite64({ fd, buf, count: buf.length, offset: offset + done });
  }
}
