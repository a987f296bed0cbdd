/** From the running kernel into the one that is loaded, orderly or at once. */
import { spawnSync } from 'node:child_process';
import { MS_RDONLY, MS_REMOUNT } from '../abi/mount.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { mount, sync } from '../sys/mount.ts';
import { readMountinfo } from '../sys/mountinfo.ts';
import { runsSystemd } from '../sys/systemd.ts';
import { start, status } from './load.ts';

export interface RestartOptions {
  /** Do not stop services or make file systems read-only first. Disks are synced all the same. */
  readonly now: boolean;
  /**
   * Called immediately before the kernel starts, or before systemd is told to; it may throw.
   * @param waits systemd stops services and processes first, this one too
   */
  lastly?(waits: boolean): void;
  /** What went wrong on the way without stopping it. */
  warn(text: string): void;
}

/**
 * Starts what is loaded. With systemd it is told to, and this returns while it stops the services; else this does not
 * return.
 *
 * @throws UnsupportedError where nothing is loaded; and as `start`
 */
export function restart({ now, warn, lastly = () => {} }: RestartOptions): void {
  if (!status().loaded) {
    throw new UnsupportedError({
      what: 'starting the next kernel',
      why: 'none is loaded',
      remedy: 'load one with: tideover kexec load',
    });
  }
  if (!now && runsSystemd()) {
    lastly(true);
    const { status: exit, error } = spawnSync('systemctl', ['kexec'], { stdio: ['ignore', 2, 2] });
    if (exit === 0) return;
    throw new UnsupportedError({
      what: 'systemctl kexec',
      why: error === undefined ? `it ended with exit code ${exit}` : error.message,
      remedy: 'see the journal, or use --now',
    });
  }
  sync({});
  if (!now) remountReadOnly(warn);
  lastly(false);
  start();
}

/** File systems on block devices, the last mounted first. Those with files open for writing stay as they are. */
function remountReadOnly(warn: RestartOptions['warn']): void {
  const writable = readMountinfo('self').filter(
    ({ source, superOptions }) => source.startsWith('/dev/') && superOptions.includes('rw'),
  );
  for (const { mountPoint, source, type } of writable.reverse()) {
    try {
      const mountflags = MS_REMOUNT | MS_RDONLY;
      mount({ source, target: mountPoint, filesystemtype: type, mountflags, data: 0 });
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      warn(`${mountPoint} stays writable: ${error.message}`);
    }
  }
}
