/** Where the blocks of a file lie on its disk: ioctl_fiemap(2). */
import { closeSync, openSync, realpathSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import * as abi from '../abi/fiemap.ts';
import { FS_IOC_FIEMAP } from '../abi/fs.ts';
import { decodeDevice } from '../abi/kdev_t.ts';
import { UnsupportedError } from '../errors.ts';
import { ioctl } from './files.ts';

/** A piece of a file: `length` bytes from `start` of the file stand at `at` of the disk. */
export interface Extent {
  readonly start: number;
  readonly at: number;
  readonly length: number;
}

/** What a piece must not be, for whoever reads and writes the disk itself. */
const UNFIT =
  abi.FIEMAP_EXTENT_UNKNOWN |
  abi.FIEMAP_EXTENT_DELALLOC |
  abi.FIEMAP_EXTENT_ENCODED |
  abi.FIEMAP_EXTENT_NOT_ALIGNED |
  abi.FIEMAP_EXTENT_UNWRITTEN |
  abi.FIEMAP_EXTENT_SHARED;

const COUNT = 1024;

/**
 * @returns the pieces of a file, in order and without gaps, and the block device
 * @throws UnsupportedError where the file is not on one, has holes, or its blocks may be somewhere else tomorrow
 */
export function extentsOf(path: string): { readonly device: string; readonly extents: readonly Extent[] } {
  const refuse = (why: string): never => {
    const remedy = 'write the whole file first, on ext4 or XFS on a disk: dd if=/dev/zero of=FILE bs=1M count=SIZE';
    throw new UnsupportedError({ what: path, why, remedy });
  };
  const { size, dev } = statSync(path);
  const { major, minor } = decodeDevice(dev);
  const number = `/sys/dev/block/${major}:${minor}`;
  let device: string;
  try {
    device = `/dev/${basename(realpathSync(number)).replaceAll('!', '/')}`;
  } catch {
    return refuse('its file system is not on a block device');
  }
  const extents: Extent[] = [];
  let covered = 0;
  const fd = openSync(path, 'r');
  try {
    for (let isLast = false; !isLast; ) {
      const bytes = new Uint8Array(abi.fiemap.size + COUNT * abi.fiemap_extent.size);
      const whole = { fm_start: covered, fm_length: Math.max(size - covered, 1), fm_extent_count: COUNT };
      abi.fiemap.write({ ...whole, fm_flags: abi.FIEMAP_FLAG_SYNC }, bytes);
      ioctl({ fd, request: FS_IOC_FIEMAP, arg: bytes });
      const { fm_mapped_extents: found } = abi.fiemap.read(bytes);
      for (let i = 0; i < found; i++) {
        const at = abi.fiemap.size + i * abi.fiemap_extent.size;
        const { fe_logical, fe_physical, fe_length, fe_flags } = abi.fiemap_extent.read(bytes, at);
        if ((fe_flags & UNFIT) !== 0 || fe_logical !== covered) {
          refuse(`at byte ${covered} it has no block of its own that was written`);
        }
        extents.push({ start: fe_logical, at: fe_physical, length: fe_length });
        covered += fe_length;
        isLast = (fe_flags & abi.FIEMAP_EXTENT_LAST) !== 0;
      }
      if (found === 0) isLast = true;
    }
  } finally {
    closeSync(fd);
  }
  if (covered < size || size === 0) refuse('it has holes, or is empty');
  return { device, extents };
}
