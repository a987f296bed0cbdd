/**
 * The kernel that follows the capture kernel without the firmware in between: the machine as it was at its start, for memory that was
 * preserved to be found again. The capture kernel sees only what it lives in, so what a plan must know of the machine is
 * written down before.
 */
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { MS_RDONLY } from '../abi/mount.ts';
import { UnsupportedError } from '../errors.ts';
import { reuseCommandLine } from '../kexec/commandline.ts';
import { type Machine, readMachine } from '../kexec/machine.ts';
import { umount2 } from '../sys/mount.ts';
import { readProcText } from '../sys/proc.ts';
import { MOUNT_POINT, mountDirectory } from '../target/mount.ts';
import { type DirectoryPlace, type FoundPlace, findDirectory } from '../target/place.ts';

/** A file on a disk that the capture kernel can mount. */
interface FileOnDisk {
  readonly folder: DirectoryPlace;
  readonly name: string;
}

export interface NextKernel {
  readonly kernel: FileOnDisk;
  readonly initrd: FileOnDisk | undefined;
  readonly commandLine: string;
  /** A Machine as JSON; bytes are in base64. */
  readonly machine: string;
}

/** @throws UnsupportedError where the files are not on a disk that the capture kernel can mount */
export function findNext(kernel: string, initrd: string | undefined): { next: NextKernel; found: FoundPlace[] } {
  const files = [kernel, initrd].filter((path) => path !== undefined);
  const found = files.map((path) => {
    if (existsSync(path)) return findDirectory(dirname(path), `starting ${path} after a crash`);
    throw new UnsupportedError({
      what: 'starting a kernel after a crash',
      why: `there is no ${path}`,
      remedy: 'name it in crash.conf: next_initrd FILE',
    });
  });
  const on = (i: number): FileOnDisk => ({ folder: found[i]!.place as DirectoryPlace, name: basename(files[i]!) });
  const next: NextKernel = {
    kernel: on(0),
    initrd: initrd === undefined ? undefined : on(1),
    commandLine: reuseCommandLine(readProcText('/proc/cmdline').trim(), ''),
    machine: JSON.stringify(readMachine(), (_, value: unknown) =>
      value instanceof Uint8Array ? { base64: Buffer.from(value).toString('base64') } : value,
    ),
  };
  return { next, found };
}

export function machineOf({ machine }: NextKernel): Machine {
  return JSON.parse(machine, (_, value: unknown) => {
    const isBytes = typeof value === 'object' && value !== null && 'base64' in value;
    return isBytes ? new Uint8Array(Buffer.from((value as { base64: string }).base64, 'base64')) : value;
  }) as Machine;
}

/** In the capture kernel. */
export async function readOnDisk({ folder, name }: FileOnDisk): Promise<Uint8Array> {
  await mountDirectory(folder, MS_RDONLY);
  try {
    return readFileSync(join(MOUNT_POINT, folder.path, name));
  } finally {
    umount2({ target: MOUNT_POINT, flags: 0 });
  }
}
