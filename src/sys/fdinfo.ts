/** Open descriptors of a process: /proc/PID/fd and /proc/PID/fdinfo, proc_pid_fd(5), proc_pid_fdinfo(5). */
import { readdirSync } from 'node:fs';
import { FormatError } from '../errors.ts';
import { readlink } from './files.ts';
import { readTaskText } from './proc.ts';

export interface Fdinfo {
  /** File position. */
  readonly pos: number;
  /** O_*, with O_CLOEXEC for the descriptor's close-on-exec. */
  readonly flags: number;
  readonly mnt_id: number;
  /** The other lines: a name and what follows the colon, each as often as it stands there. */
  readonly lines: readonly (readonly [name: string, value: string])[];
}

/** Numbers of the open descriptors, in order. */
export function listDescriptors(pid: number): number[] {
  return readdirSync(`/proc/${pid}/fd`)
    .map(Number)
    .sort((a, b) => a - b);
}

/** What a descriptor refers to: a path, or the likes of `pipe:[4026]` and `anon_inode:[eventfd]`. */
export function descriptorLink(pid: number, fd: number): string {
  return readlink(`/proc/${pid}/fd/${fd}`);
}

/** @throws SyscallError ENOENT (no such descriptor), EACCES */
export function readFdinfo(pid: number, fd: number): Fdinfo {
  const file = `/proc/${pid}/fdinfo/${fd}`;
  return parseFdinfo(readTaskText(file), file);
}

/** @param file for the message of an error @throws FormatError where a field is missing */
export function parseFdinfo(text: string, file: string): Fdinfo {
  const lines = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line): [string, string] => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    });
  const field = (name: string): string => {
    const found = lines.find(([each]) => each === name);
    if (found === undefined) throw new FormatError({ file, field: name, expected: 'a line', found: 'none' });
    return found[1];
  };
  return {
    pos: Number(field('pos')),
    flags: Number.parseInt(field('flags'), 8),
    mnt_id: Number(field('mnt_id')),
    lines: lines.filter(([name]) => !['pos', 'flags', 'mnt_id'].includes(name)),
  };
}
