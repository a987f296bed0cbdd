/**
 * How a disk is known again by another kernel, which may give it another name: by the identifier of the file system on it; or,
 * where there is none, by the place where it is plugged in, its serial number and its size.
 */
import { closeSync, existsSync, openSync, readFileSync, readSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { blockDevices } from '../sys/devices.ts';

export interface Identity {
  /** Of the file system: `ext:0123...`. */
  readonly content: string | undefined;
  readonly place: string;
}

/** Magic and identifier of a file system: where in the device, in bytes. */
const superblocks = [
  // struct ext4_super_block: s_magic, s_uuid
  { type: 'ext', magic: { at: 1024 + 56, bytes: [0x53, 0xef] }, id: { at: 1024 + 104, size: 16 } },
  // struct xfs_dsb: sb_magicnum, sb_uuid
  { type: 'xfs', magic: { at: 0, bytes: [...Buffer.from('XFSB')] }, id: { at: 32, size: 16 } },
  // struct btrfs_super_block: magic, fsid
  { type: 'btrfs', magic: { at: 0x10040, bytes: [...Buffer.from('_BHRfS_M')] }, id: { at: 0x10020, size: 16 } },
  // struct f2fs_super_block: magic, uuid
  { type: 'f2fs', magic: { at: 1024, bytes: [0x10, 0x20, 0xf5, 0xf2] }, id: { at: 1024 + 108, size: 16 } },
  // struct fat_boot_sector: fat32.vol_id, fat16.vol_id
  { type: 'fat32', magic: { at: 82, bytes: [...Buffer.from('FAT32')] }, id: { at: 67, size: 4 } },
  { type: 'fat16', magic: { at: 54, bytes: [...Buffer.from('FAT16')] }, id: { at: 39, size: 4 } },
] as const;

const HEAD = 0x11000;

/** @param head see headOf() */
export function contentOf(head: Uint8Array): string | undefined {
  const found = superblocks.find(({ magic }) => magic.bytes.every((byte, i) => head[magic.at + i] === byte));
  if (found === undefined) return undefined;
  const { at, size } = found.id;
  return `${found.type}:${Buffer.from(head.subarray(at, at + size)).toString('hex')}`;
}

/** @param folder of the device in /sys/devices */
export function identityOf(folder: string): Identity {
  return { content: contentOf(headOf(`/dev/${basename(folder)}`)), place: placeOf(folder) };
}

/** Path in /dev of the device, or undefined where this kernel does not have it. @param devices names that are looked at */
export function findDevice(identity: Identity, devices = blockDevices()): string | undefined {
  const found = devices.find((name) => {
    const folder = `/sys/class/block/${name}`;
    if (identity.content === undefined) return placeOf(folder) === identity.place;
    try {
      return contentOf(headOf(`/dev/${name}`)) === identity.content;
    } catch {
      // A drive without a medium, a device that has just gone.
      return false;
    }
  });
  return found && `/dev/${found}`;
}

/** The first 68 KiB of a device, or of a file. */
export function headOf(device: string): Uint8Array {
  const fd = openSync(device, 'r');
  try {
    return readHead(fd);
  } finally {
    closeSync(fd);
  }
}

/** The same of one that is open. */
export function readHead(fd: number): Uint8Array {
  const bytes = new Uint8Array(HEAD);
  return bytes.subarray(0, readSync(fd, bytes, 0, HEAD, 0));
}

/** PCI functions do not change their addresses; what a driver numbers, and names in /dev, may. */
function placeOf(folder: string): string {
  const real = realpathSync(folder);
  const read = (file: string) => (existsSync(join(real, file)) ? readFileSync(join(real, file), 'latin1').trim() : '');
  const functions = real.match(/[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/g) ?? [];
  const serial = ['wwid', 'device/wwid', 'serial', 'device/serial', '../serial'].map(read).find((text) => text !== '');
  return [...functions, serial ?? '', read('partition'), read('size')].join('/');
}
