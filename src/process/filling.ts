/** Contents of memory out of an image into the processes that are restored from it, and into what they share. */
import { Errno } from '../abi/errno.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { PE_PRESENT } from '../image/messages/memory.ts';
import type { MemoryImage } from '../image/pages.ts';
import { close, pwrite64 } from '../sys/files.ts';
import { mmap, munmap } from '../sys/memory.ts';
import { writeMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { viewMemory } from '../sys/syscall.ts';
import { CHUNK, openMemory, readExactly, short } from './reading.ts';
import { NO_RUNS, type Runs } from './runs.ts';

const PAGE = 4096;
let chunk: Region | undefined;

/**
 * Hands out the contents that an image has, in its order, each byte once.
 *
 * @param later what is not wanted now
 * @param take gets where it belongs (an address, or an offset for shared memory), where it lies here until it returns, and
 *   its length in bytes
 */
export function eachPart(
  image: MemoryImage,
  take: (to: number, at: number, length: number) => void,
  later: Runs = NO_RUNS,
): void {
  chunk ??= new Region(CHUNK);
  const { runs } = image;
  const { bounds } = later;
  for (let i = 0, j = 0; i < runs.length; i++) {
    if ((runs.flags[i]! & PE_PRESENT) === 0) continue;
    const [start, end] = [runs.vaddr[i]!, runs.vaddr[i]! + runs.size[i]!];
    for (let at = start; at < end; ) {
      while (j < bounds.length && bounds[j + 1]! <= at) j += 2;
      if (j < bounds.length && bounds[j]! <= at) {
        at = bounds[j + 1]!;
        continue;
      }
      const length = Math.min(end - at, CHUNK, j < bounds.length ? bounds[j]! - at : CHUNK);
      image.readPages(chunk.bytes.subarray(0, length), runs.offset[i]! + at - start);
      take(at, chunk.address, length);
      at += length;
    }
  }
}

/** Fills memory of a process that is being restored. */
export function fillMemory(pid: number, to: number, from: number, length: number): void {
  const got = writeMemory(pid, to, from, length);
  if (got !== length) throw short('process_vm_writev', pid, got, length);
}

let there: Region | undefined;

/**
 * Fills memory of a process that may have some of it already: pages with the same content are left alone.
 *
 * @param may whether the page at an address may be there
 */
export function fillWhereOther(
  pid: number,
  to: number,
  from: number,
  length: number,
  may: (at: number) => boolean,
): void {
  there ??= new Region(CHUNK);
  const wanted = viewMemory(from, length);
  let written = 0;
  let read = 0;
  const write = (end: number): void => {
    if (end > written) fillMemory(pid, to + written, from + written, end - written);
  };
  for (let at = 0; at < length; at += PAGE) {
    if (!may(to + at)) continue;
    if (at >= read) {
      read = at + PAGE;
      while (read < length && may(to + read)) read += PAGE;
      const fd = openMemory(pid);
      try {
        readExactly(fd, pid, to + at, there.address + at, read - at);
      } finally {
        close({ fd });
      }
    }
    if (Buffer.compare(wanted.subarray(at, at + PAGE), there.bytes.subarray(at, at + PAGE)) !== 0) continue;
    write(at);
    written = at + PAGE;
  }
  write(length);
}

/** Fills a file, which keeps its size. One of huge pages can only be mapped. */
export function fillFile(image: MemoryImage, fd: number, size: number): void {
  let mapped = -1;
  try {
    eachPart(image, (offset, buf, length) => {
      const count = Math.min(length, size - offset);
      if (count <= 0) return;
      const args = { fd, buf, count, offset };
      const result = mapped < 0 ? pwrite64.attempt(args) : -Errno.EINVAL;
      if (result >= 0) return;
      if (result !== -Errno.EINVAL) throw pwrite64.error(args, result);
      if (mapped < 0)
        mapped = mmap({ addr: 0, length: size, prot: PROT_READ | PROT_WRITE, flags: MAP_SHARED, fd, offset: 0 });
      viewMemory(mapped + offset, count).set(viewMemory(buf, count));
    });
  } finally {
    if (mapped >= 0) munmap({ addr: mapped, length: size });
  }
}
