/** Disk images for guests. A disk outlives the machines that use it, until it is removed. */
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';
import { requirePackages } from './packages.ts';
import { removeTemporary, temporaryFolder } from './temporary.ts';

export interface Disk {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  readonly readOnly?: boolean;
  /** What the guest reads in /sys/block/vdX/serial. At most 20 characters. */
  readonly serial?: string;
}

export interface OwnDisk extends Disk {
  /** Removes it from the host. Also done when this process ends. */
  remove(): void;
}

/** An empty disk of `bytes`, in which only what is written takes room. */
export function emptyDisk(bytes: number): OwnDisk {
  const folder = temporaryFolder();
  const path = join(folder, 'disk.raw');
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return { path, format: 'raw', remove: () => removeTemporary(folder) };
}

/** A disk that begins as `base` and keeps what is written to itself. `base` is not changed. */
export async function overlayDisk(base: Disk): Promise<OwnDisk> {
  await requirePackages('disk images');
  const folder = temporaryFolder();
  const path = join(folder, 'disk.qcow2');
  statSync(base.path);
  await run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', base.format, '-b', base.path, path]);
  return { path, format: 'qcow2', remove: () => removeTemporary(folder) };
}
