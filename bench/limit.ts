/** A disk that is slower than it is: the kernel's limit on what a group of processes reads and writes (cgroups(7)). */
import { existsSync, mkdirSync, readFileSync, realpathSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { decodeDevice } from '../src/abi/kdev_t.ts';

/** The controller of version 1: Documentation/admin-guide/cgroup-v1/blkio-controller.rst. */
const FOLDER = '/sys/fs/cgroup/blkio';
const LIMITS = ['blkio.throttle.read_bps_device', 'blkio.throttle.write_bps_device'];

/**
 * Limits what this process reads, and what it writes, past the page cache on the disk of a file.
 *
 * @param rate bytes per second
 * @returns what ends it; undefined where this machine does not let us
 */
export function limitDisk(path: string, rate: number): Disposable | undefined {
  const { major, minor } = decodeDevice(statSync(path).dev);
  const device = `/sys/dev/block/${major}:${minor}`;
  if (!existsSync(device) || !existsSync(join(FOLDER, LIMITS[0]!))) return undefined;
  const real = realpathSync(device);
  const number = readFileSync(join(existsSync(join(real, 'partition')) ? dirname(real) : real, 'dev'), 'latin1').trim();
  const before = /^\d+:blkio:(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'latin1'))?.[1] ?? '/';
  const group = join(FOLDER, `tideover-bench-${process.pid}`);
  const enter = (folder: string) => writeFileSync(join(folder, 'cgroup.procs'), `${process.pid}`);
  try {
    mkdirSync(group);
    for (const limit of LIMITS) writeFileSync(join(group, limit), `${number} ${rate}`);
    enter(group);
  } catch {
    if (existsSync(group)) rmdirSync(group);
    return undefined;
  }
  return {
    [Symbol.dispose]() {
      enter(join(FOLDER, before));
      rmdirSync(group);
    },
  };
}
