/** Places that are file systems, in the other kernel. */
import { isIPv6 } from 'node:net';
import { SyscallError } from '../errors.ts';
import { mount } from '../sys/mount.ts';
import { findDevice } from './identity.ts';
import { until } from './network.ts';
import type { BlockPlace, DirectoryPlace, NfsPlace } from './place.ts';

export const MOUNT_POINT = '/mnt';
const DEVICE_MS = 30_000;

/** Path in /dev. @throws Error where it does not come */
export function deviceOf({ text, device }: DirectoryPlace | BlockPlace): Promise<string> {
  return until(() => findDevice(device), DEVICE_MS, `the disk of ${text}`);
}

/** Mounts the file system that a directory is in, at MOUNT_POINT. @param mountflags MS_* */
export async function mountDirectory(place: DirectoryPlace, mountflags: number): Promise<void> {
  const options = place.type === 'btrfs' ? 'subvolid=5' : '';
  mount({
    source: await deviceOf(place),
    target: MOUNT_POINT,
    filesystemtype: place.type,
    mountflags,
    data: Buffer.from(`${options}\0`),
  });
}

/** Not 4.2: nothing of it is needed, and nfs-ganesha's READ_PLUS is of before the RFC (its issue 1344). */
const VERSIONS = ['4.1', '4.0', '3'] as const;

/**
 * Mounts what a server exports, without mount.nfs(8): the kernel takes addresses as they are. By the newest of these versions that it speaks;
 * for ever is waited for no server (nfs(5), soft): another place may do.
 *
 * @throws SyscallError EACCES, ENOENT (not exported), ETIMEDOUT, ENODEV (no NFS in this kernel)
 */
export function mountNfs({ server, exported, network }: NfsPlace, target = MOUNT_POINT): void {
  const source = `${isIPv6(server) ? `[${server}]` : server}:${exported}`;
  const proto = isIPv6(server) ? 'tcp6' : 'tcp';
  for (const version of VERSIONS) {
    const own = version === '3' ? `nolock,mountproto=${proto}` : `clientaddr=${network.address}`;
    const options = `vers=${version},proto=${proto},addr=${server},${own},soft,timeo=150,retrans=3`;
    try {
      mount({ source, target, filesystemtype: 'nfs', mountflags: 0, data: Buffer.from(`${options}\0`) });
      return;
    } catch (error) {
      // The server, or this kernel, does not have this version.
      const isOther = error instanceof SyscallError && ['EPROTONOSUPPORT', 'EINVAL'].includes(error.errnoName);
      if (!isOther || version === VERSIONS.at(-1)) throw error;
    }
  }
}
