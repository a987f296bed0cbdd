/** What becomes of control groups at a restore: CRIU's --manage-cgroups and --cgroup-root. */
import { UnsupportedError } from '../../errors.ts';
import type { GroupOptions } from '../../process/cgroups.ts';
import type { Flags } from '../command.ts';
import { UsageError } from '../exit.ts';

export const groupFlags = {
  manageCgroups: {
    long: 'manage-cgroups',
    value: 'MODE',
    optional: 'soft',
    repeat: true,
    summary:
      'soft (if it is not given): make missing control groups, with their settings; full or props: set those that are there too; ignore or none: leave the processes in those of tideover',
  },
  cgroupRoot: {
    long: 'cgroup-root',
    value: '[CONTROLLER:]PATH',
    repeat: true,
    summary: 'take this control group for that of the root of the tree',
  },
} as const satisfies Flags;

/** @throws UsageError, UnsupportedError */
export function groupsOf(given: {
  readonly manageCgroups: readonly string[];
  readonly cgroupRoot: readonly string[];
}): {
  readonly ignoreCgroups: boolean;
  readonly groups: GroupOptions;
} {
  const mode = given.manageCgroups.at(-1) ?? 'soft';
  if (mode === 'strict') {
    const why = 'groups that are there already are taken';
    throw new UnsupportedError({ what: '--manage-cgroups strict', why, remedy: 'remove them, and give soft' });
  }
  if (!['none', 'ignore', 'soft', 'full', 'props'].includes(mode)) {
    throw new UsageError(`${mode} is not a mode; write soft, full, props, ignore or none`);
  }
  const roots = given.cgroupRoot.map((each): [string, string] => {
    const [, controller, path] = /^(?:([^/]*):)?(\/.*)$/.exec(each) ?? [];
    if (path === undefined) throw new UsageError(`${each} is not of the form [CONTROLLER:]/PATH`);
    return [controller ?? '*', path];
  });
  const settings = mode === 'full' || mode === 'props' ? 'all' : 'made';
  return { ignoreCgroups: mode === 'none' || mode === 'ignore', groups: { settings, roots: new Map(roots) } };
}
