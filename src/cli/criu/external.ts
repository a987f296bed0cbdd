/** What is not part of an image: CRIU's --external, --inherit-fd and --ext-unix-sk. */
import { fstatSync } from 'node:fs';
import { UnsupportedError } from '../../errors.ts';
import { type Inherited, normalKey } from '../../process/files/external.ts';
import type { Flags } from '../command.ts';
import { UsageError } from '../exit.ts';

export const externalFlags = {
  external: {
    long: 'external',
    value: 'RESOURCE',
    repeat: true,
    summary:
      'file[MNT:INODE], pipe[INODE] or unix[INODE]: is not part of the image; a restore brings it by --inherit-fd; mnt[MOUNTPOINT]:KEY, dev[MAJOR/MINOR]:KEY: neither is this mount',
  },
  externalSockets: {
    long: 'ext-unix-sk',
    short: 'x',
    value: 'INODES',
    optional: 'all',
    repeat: true,
    summary: 'sockets of the tree may be connected to named ones outside of it, all or these',
  },
} as const satisfies Flags;

export const inheritFlags = {
  inherit: {
    long: 'inherit-fd',
    value: 'fd[N]:RESOURCE',
    repeat: true,
    summary:
      'descriptor N of tideover stands for this file of the image: its path, or as checkpoint --external calls it',
  },
} as const satisfies Flags;

/** @throws UnsupportedError for a resource of another kind, UsageError for none */
export function externalOf(given: readonly string[]): readonly string[] {
  for (const each of given) if (normalKey(each) === undefined) throw unknown('--external', each);
  return given;
}

/** @throws UsageError */
export function externalSocketsOf(given: readonly string[]): readonly number[] | 'all' {
  if (given.includes('all')) return 'all';
  return given
    .flatMap((list) => list.split(','))
    .map((each) => {
      if (/^\d+$/.test(each)) return Number(each);
      throw new UsageError(`${each} is not the inode of a socket; ss -xe shows it`);
    });
}

/** @throws UsageError where something is no descriptor of this process, UnsupportedError for a resource of another kind */
export function inheritedOf(given: readonly string[]): Inherited {
  return new Map(
    given.map((each) => {
      const match = /^fd\[(\d+)\]:(.+)$/.exec(each);
      if (match === null) throw new UsageError(`${each} is not fd[N]:RESOURCE, such as 'fd[5]:pipe[1234]'`);
      const [, number, resource] = match as unknown as [string, string, string];
      try {
        fstatSync(Number(number));
      } catch {
        throw new UsageError(`${each}: tideover was started without a descriptor ${number}; write ${number}<FILE`);
      }
      const key = normalKey(resource);
      if (key === undefined && resource.includes('[')) throw unknown('--inherit-fd', resource);
      return [key ?? resource.replace(/^\//, ''), Number(number)];
    }),
  );
}

function unknown(option: string, resource: string): Error {
  if (!/^[a-zA-Z]+:?\[/.test(resource)) {
    return new UsageError(`${resource} is not file[MNT:INODE], pipe[INODE] or unix[INODE]`);
  }
  return new UnsupportedError({
    what: `${option} ${resource}`,
    why: 'resources of this kind are not built yet',
    remedy: 'leave it out, or use CRIU for this',
  });
}
