/** Mounts of a mount namespace: /proc/PID/mountinfo, proc_pid_mountinfo(5). */
import { FormatError } from '../errors.ts';
import { readProcText, unescapeOctal } from './proc.ts';

export interface Mount {
  readonly id: number;
  readonly parent: number;
  readonly major: number;
  readonly minor: number;
  /** The directory of the file system that is seen here. */
  readonly root: string;
  /** Where it is mounted, seen from the process's root directory. */
  readonly mountPoint: string;
  /** Of this mount: `rw`, `nosuid`, ... */
  readonly options: readonly string[];
  /** Propagation: `shared:1`, `master:2`, `propagate_from:3`, `unbindable`. */
  readonly propagation: readonly string[];
  readonly type: string;
  readonly source: string;
  /** Of the file system. */
  readonly superOptions: readonly string[];
}

export function readMountinfo(pid: number | 'self' | 'thread-self'): Mount[] {
  const file = `/proc/${pid}/mountinfo`;
  return parseMountinfo(readProcText(file), file);
}

/** @param file for the message of an error */
export function parseMountinfo(text: string, file: string): Mount[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const match = LINE.exec(line);
      if (match === null) {
        throw new FormatError({ file, field: 'line', expected: 'a mount', found: JSON.stringify(line) });
      }
      const [, id, parent, major, minor, root, mountPoint, options, propagation, type, source, superOptions] = match;
      return {
        id: Number(id),
        parent: Number(parent),
        major: Number(major),
        minor: Number(minor),
        root: unescapeOctal(root!),
        mountPoint: unescapeOctal(mountPoint!),
        options: unescapeOctal(options!).split(','),
        propagation: propagation!.split(' ').filter((field) => field !== ''),
        type: unescapeOctal(type!),
        source: unescapeOctal(source!),
        superOptions: unescapeOctal(superOptions!).split(','),
      };
    });
}

/** Blanks in names are escaped, so that fields are what lies between them. A source may be empty. */
const LINE = /^(\d+) (\d+) (\d+):(\d+) ([^ ]+) ([^ ]+) ([^ ]+)((?: [^ ]+)*?) - ([^ ]+) ([^ ]*) ([^ ]*)$/;

/** The mount of the cgroup v2 hierarchy: beside mounts of version 1 it is not at /sys/fs/cgroup. */
export function cgroup2Mount(mounts: readonly Mount[]): Mount | undefined {
  return mounts.find(({ type }) => type === 'cgroup2');
}
