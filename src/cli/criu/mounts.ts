/**
 * Mounts that are not part of an image: CRIU's `--external mnt[MOUNTPOINT]:KEY` of a checkpoint and `mnt[KEY]:PATH` of a restore, which
 * `--ext-mount-map` says without the brackets; `dev[MAJOR/MINOR]:KEY` and `dev[KEY]:DEVICE` for what has a disk of its own.
 */
import type { Flags } from '../command.ts';
import { UsageError } from '../exit.ts';

export const mountFlags = {
  extMountMap: {
    long: 'ext-mount-map',
    short: 'M',
    value: 'KEY:VALUE',
    repeat: true,
    summary: 'the same as --external mnt[KEY]:VALUE',
  },
  skipMnt: { long: 'skip-mnt', value: 'PATH', repeat: true, summary: 'leave out what is mounted there in the tree' },
} as const satisfies Flags;

/** What is found outside by itself: as it always is here. */
const AUTOMATIC = /^mnt\[\](:[ms]*)?$/;
const MOUNT = /^(mnt|dev)\[([^\]]*)\](?::(.*))?$/;

/** The resources that are no mounts. */
export function withoutMounts(external: readonly string[]): string[] {
  return external.filter((each) => !MOUNT.test(each));
}

/** @throws UsageError */
export function mountsOf(
  external: readonly string[],
  { extMountMap, skipMnt }: { readonly extMountMap: readonly string[]; readonly skipMnt: readonly string[] },
) {
  const maps = extMountMap.filter((each) => each !== 'auto').map((each) => each.replace(/^([^:]*)/, 'mnt[$1]'));
  const pairs = [...external, ...maps]
    .filter((each) => MOUNT.test(each) && !AUTOMATIC.test(each))
    .map((each) => {
      const [, kind, key, value] = MOUNT.exec(each)! as unknown as [string, string, string, string | undefined];
      // CRIU takes a key for its own value.
      if (value !== '') return { kind, key, value: value ?? key };
      throw new UsageError(`${each} is not of the form ${kind}[KEY]:VALUE`);
    });
  const of = (kind: string) =>
    new Map(pairs.filter((each) => each.kind === kind).map(({ key, value }) => [key, value] as const));
  return { externalMounts: of('mnt'), externalDevices: of('dev'), skippedMounts: skipMnt };
}
