/** Where images lie: block devices, which are told by what stands in their first block and not by name. */
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, O_CLOEXEC, O_EXCL, O_RDONLY } from '../abi/fcntl.ts';
import { BLKFLSBUF } from '../abi/fs.ts';
import { UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { close, ioctl, openat } from '../sys/files.ts';
import { contentOf, headOf } from '../target/identity.ts';
import { isImage, isUnfinished } from './image.ts';
import type { Place } from './place.ts';

const FOLDER = '/sys/class/block';
const POLL_MS = 200;

/**
 * The first block device on which a block is the wanted one.
 *
 * @param at where the block stands on it, in bytes
 * @param seconds to wait for one: USB disks come late @param among disks or files, as they are then
 */
export function findDisk(
  wanted: (block: Uint8Array, path: string) => boolean,
  at = 0,
  seconds = 0,
  among: () => readonly string[] = allDisks,
): string | undefined {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    for (const path of among()) {
      const block = blockAt(path, at);
      if (block !== undefined && wanted(block, path)) return path;
    }
    if (Date.now() >= end) return undefined;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MS);
  }
}

function allDisks(): string[] {
  return readdirSync(FOLDER)
    .sort()
    .map((name) => `/dev/${name.replaceAll('!', '/')}`);
}

/** Whether there is an image of a machine: on a block device or in a file. */
export function isImageFile(path: string): boolean {
  const block = statSync(path, { throwIfNoEntry: false })?.isDirectory() === false ? blockAt(path, 0) : undefined;
  return block !== undefined && isImage(block);
}

/** undefined where there is none: no medium, an error. */
function blockAt(path: string, at: number): Uint8Array | undefined {
  try {
    const fd = openSync(path, 'r');
    try {
      const block = new Uint8Array(PAGE_SIZE);
      return readSync(fd, block, 0, PAGE_SIZE, at) === PAGE_SIZE ? block : undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
}

/** Whether a block device is mounted or part of another, or one of its partitions is: open(2) with O_EXCL. */
export function isInUse(path: string): boolean {
  if (!statSync(path).isBlockDevice()) return false;
  const fd = openat.attempt({ dirfd: AT_FDCWD, pathname: path, flags: O_RDONLY | O_EXCL | O_CLOEXEC, mode: 0 });
  if (fd >= 0) close({ fd });
  return fd === -Errno.EBUSY;
}

/** Where else than at the beginning, and how what is put together of devices, or is encrypted, is known. */
const MEMBERS = [
  { at: 0, text: 'LUKS\xba\xbe', what: 'an encrypted volume (LUKS)' },
  { at: 512, text: 'LABELONE', what: 'a physical volume (LVM)' },
] as const;
/** Of a boot sector: four partitions of 16 bytes, then two that say so. GPT has one too. */
const [PARTITIONS, SIGNED] = [446, 510];

/** What a disk or file holds that an image would overwrite, for people; undefined where that is an image, or nothing that is known. */
export function heldOn(path: string): string | undefined {
  const head = headOf(path);
  if (head.length >= PAGE_SIZE && (isImage(head) || isUnfinished(head))) return undefined;
  const content = contentOf(head)?.split(':')[0];
  if (content !== undefined) return `a file system (${content})`;
  const text = (at: number, length: number) => Buffer.from(head.subarray(at, at + length)).toString('latin1');
  const member = MEMBERS.find(({ at, text: magic }) => text(at, magic.length) === magic);
  if (member !== undefined) return member.what;
  const isTable = text(SIGNED, 2) === '\x55\xaa' && head.subarray(PARTITIONS, SIGNED).some((byte) => byte !== 0);
  return isTable ? 'a partition table' : undefined;
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

/** @throws UnsupportedError where no disk has it */
export function mustFind(
  what: string,
  wanted: Parameters<typeof findDisk>[0],
  extents: Place['extents'],
  seconds: number,
): Place {
  const path = findDisk(wanted, extents?.[0]?.at, seconds);
  if (path !== undefined) return { path, ...(extents && { extents }) };
  throw new UnsupportedError({
    what,
    why: `no block device has it: ${readdirSync(FOLDER).join(' ') || 'there are none'}`,
    remedy: 'see that the initramfs has the drivers of the disk',
  });
}
