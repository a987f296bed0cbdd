/** Where images lie: block devices, which are told by what stands in their first block and not by name. */
import { closeSync, openSync, readdirSync, readSync, realpathSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { ioctl } from '../sys/files.ts';
import { readProcText } from '../sys/proc.ts';
import { isImage } from './image.ts';

const FOLDER = '/sys/class/block';
const POLL_MS = 200;
/** linux/fs.h: _IO(0x12, 97) */
const BLKFLSBUF = 0x1261;

/**
 * The first block device whose first block is wanted.
 *
 * @param seconds to wait for one: USB disks come late
 */
export function findDisk(wanted: (block: Uint8Array) => boolean, seconds = 0): string | undefined {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    for (const name of readdirSync(FOLDER).sort()) {
      const path = `/dev/${name.replaceAll('!', '/')}`;
      const block = firstBlock(path);
      if (block !== undefined && wanted(block)) return path;
    }
    if (Date.now() >= end) return undefined;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MS);
  }
}

/** Whether there is an image of a machine: on a block device or in a file. */
export function isImageFile(path: string): boolean {
  const block = statSync(path, { throwIfNoEntry: false })?.isDirectory() === false ? firstBlock(path) : undefined;
  return block !== undefined && isImage(block);
}

/** undefined where there is none: no medium, an error. */
function firstBlock(path: string): Uint8Array | undefined {
  try {
    const fd = openSync(path, 'r');
    try {
      const block = new Uint8Array(PAGE_SIZE);
      return readSync(fd, block, 0, PAGE_SIZE, 0) === PAGE_SIZE ? block : undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
}

/** Has what this kernel remembers of a disk read anew: another kernel writes to it. */
export function forgetDisk(path: string): void {
  const fd = openSync(path, 'r');
  try {
    const args = { fd, request: BLKFLSBUF, arg: 0 };
    const result = ioctl.attempt(args);
    if (result < 0) throw ioctl.error(args, result);
  } finally {
    closeSync(fd);
  }
}

/** In bytes. @throws UnsupportedError where this is no block device */
export function sizeOfDisk(path: string): number {
  const real = realpathSync(path);
  if (statSync(real).isBlockDevice()) return Number(readProcText(`${FOLDER}/${basename(real)}/size`)) * 512;
  throw new UnsupportedError({ what: path, why: 'it is no block device', remedy: 'give a disk or a partition' });
}

/** @throws UnsupportedError where no disk has it */
export function mustFind(what: string, wanted: (block: Uint8Array) => boolean, seconds: number): string {
  const path = findDisk(wanted, seconds);
  if (path !== undefined) return path;
  throw new UnsupportedError({
    what,
    why: `no block device has it: ${readdirSync(FOLDER).join(' ') || 'there are none'}`,
    remedy: 'see that the initramfs has the drivers of the disk',
  });
}
