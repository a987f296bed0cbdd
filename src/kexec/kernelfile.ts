/** A kernel from a file, whichever of the formats it has. */
import { FormatError } from '../errors.ts';
import { isElf } from '../mem/elf.ts';
import { mapFile } from '../sys/region.ts';
import { type BootImage, isBzImage, readBzImage } from './bootimage.ts';
import { readVmlinux } from './vmlinux.ts';

/** @throws FormatError (damaged, or no kernel), UnsupportedError (a kernel that cannot be loaded), and what reading throws */
export function readKernel(path: string): BootImage {
  const bytes = Buffer.from(mapFile(path).buffer);
  if (isBzImage(bytes)) return readBzImage(bytes, path);
  if (isElf(bytes)) return readVmlinux(bytes, path);
  const found =
    bytes.length === 0 ? 'an empty file' : `a file that begins with ${bytes.subarray(0, 4).toString('hex')}`;
  throw new FormatError({ file: path, field: 'format', expected: 'a bzImage or a vmlinux', found });
}
