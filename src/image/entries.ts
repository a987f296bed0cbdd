/** What lies in the directory of an image: its files, and a symbolic link to the image that it builds on. */
import * as fs from 'node:fs';
import { join } from 'node:path';
import { SyscallError } from '../errors.ts';
import { isImageFile } from './store.ts';
import { fileName, images } from './types.ts';

export const INVENTORY = fileName(images.INVENTORY);
/** CR_PARENT_LINK of CRIU's criu/include/image.h. */
export const PARENT = 'parent';

export function imageFiles(path: string): string[] {
  const entries = call(`readdir(${path})`, () => fs.readdirSync(path, { withFileTypes: true }));
  return entries.filter((entry) => entry.isFile() && isImageFile(entry.name)).map((entry) => entry.name);
}

/** Where the link to the parent leads, from within the directory; undefined where there is none. */
export function parentOf(path: string): string | undefined {
  try {
    return fs.readlinkSync(join(path, PARENT));
  } catch {
    return undefined;
  }
}

/** Has an image build on another one, or on none. */
export function linkParent(path: string, parent: string | undefined): void {
  const old = parentOf(path);
  if (old === parent) return;
  if (old !== undefined) fs.unlinkSync(join(path, PARENT));
  if (parent !== undefined) fs.symlinkSync(parent, join(path, PARENT));
}

/** fsync(2) of a file. */
export function syncFile(path: string): void {
  const fd = call(`open(${path})`, () => fs.openSync(path, 'r'));
  try {
    call(`fsync(${path})`, () => fs.fsyncSync(fd));
  } finally {
    fs.closeSync(fd);
  }
}

/** Node's error of a system call becomes ours. */
export function call<T>(text: string, perform: () => T): T {
  try {
    return perform();
  } catch (error) {
    const { errno, syscall } = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    throw new SyscallError(syscall ?? text, text, -errno);
  }
}
