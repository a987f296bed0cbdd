/**
 * cpio archives in the "newc" format, as an initramfs is written
 * (Documentation/driver-api/early-userspace/buffer-format.rst).
 *
 *     "070701" 13 fields of 8 hex digits   name NUL   pad to 4   data   pad to 4   ...   "TRAILER!!!"
 *
 * The kernel takes several archives one after the other, so one made here may follow any other.
 */

import { gunzipSync, zstdDecompressSync } from 'node:zlib';

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

/** An archive ends at a multiple of this, as cpio(1) writes it and as joining archives needs at least 4. */
const BLOCK = 512;

export interface CpioEntry {
  /** Path without a leading slash. Folders must come before what they hold. */
  readonly name: string;
  /** File type and permission bits, as st_mode. A mode without a type is a regular file. */
  readonly mode: number;
  /** Content of a regular file, or the target of a symbolic link. */
  readonly data?: Uint8Array | string;
  /** Major and minor number of a device node. */
  readonly device?: readonly [number, number];
}

/** The archive as one buffer. Owner is root and the time is 0, so equal entries give equal bytes. */
export function cpio(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  let length = 0;
  const add = (bytes: Uint8Array, multiple: number) => {
    parts.push(bytes);
    length += bytes.length;
    const padding = -length & (multiple - 1);
    if (padding > 0) parts.push(new Uint8Array(padding));
    length += padding;
  };
  let inode = 0;
  for (const entry of [...entries, { name: 'TRAILER!!!', mode: 0 }]) {
    const data = typeof entry.data === 'string' ? Buffer.from(entry.data) : (entry.data ?? new Uint8Array(0));
    const name = Buffer.from(`${entry.name}\0`);
    // Each has an inode of its own and one link: the kernel joins entries only by a link count above one.
    inode += 1;
    const [major, minor] = entry.device ?? [0, 0];
    const mode = entry.mode & S_IFMT || entry.name === 'TRAILER!!!' ? entry.mode : entry.mode | S_IFREG;
    const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, major, minor, name.length, 0];
    const header = `070701${fields.map(field).join('')}`;
    add(Buffer.concat([Buffer.from(header), name]), 4);
    add(data, 4);
  }
  parts.push(new Uint8Array(-length & (BLOCK - 1)));
  return Buffer.concat(parts);
}

/**
 * Names of what is in an initramfs: archives one after the other, of which the last may be compressed.
 *
 * @returns undefined where that is neither gzip nor zstd
 */
export function initramfsNames(bytes: Uint8Array): string[] | undefined {
  const names: string[] = [];
  const { buffer, byteOffset, length } = bytes;
  const text = Buffer.from(buffer, byteOffset, length);
  const hex = (at: number) => Number.parseInt(text.toString('latin1', at, at + 8), 16);
  for (let at = 0; at < length; ) {
    if (text[at] === 0) {
      at += 4;
      continue;
    }
    if (!/^07070[12]$/.test(text.toString('latin1', at, at + 6))) {
      const rest = unpack(text.subarray(at));
      const more = rest === undefined ? undefined : initramfsNames(rest);
      return more === undefined ? undefined : [...names, ...more];
    }
    const [size, nameSize] = [hex(at + 54), hex(at + 94)];
    const name = text.toString('utf8', at + HEADER, at + HEADER + nameSize - 1);
    if (name !== 'TRAILER!!!') names.push(name);
    const data = align4(at + HEADER + nameSize);
    at = align4(data + size);
  }
  return names;
}

/** Of an entry, in bytes. */
const HEADER = 110;
const align4 = (at: number) => (at + 3) & ~3;

function unpack(bytes: Buffer): Uint8Array | undefined {
  if (bytes.readUInt16BE(0) === 0x1f8b) return gunzipSync(bytes);
  return bytes.readUInt32LE(0) === 0xfd2f_b528 ? zstdDecompressSync(bytes) : undefined;
}

/** Eight hex digits. Content of 4 GB and more does not fit the format. */
function field(value: number): string {
  if (value > 0xffff_ffff) throw new RangeError(`${value} does not fit a field of a cpio header (32 bits)`);
  return value.toString(16).padStart(8, '0');
}
