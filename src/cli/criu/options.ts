/**
 * CRIU's options for dump and restore (its criu/config.c and criu(8)), each with what becomes of it here. From this table come
 * the options that are only understood, the refusals, and docs/process.md.
 *
 * CRIU's parser takes every option with every command, and scripts hand the same ones to both.
 */
import { UnsupportedError } from '../../errors.ts';
import type { Flag, Flags } from '../command.ts';

/**
 * - `same`: as in CRIU. The command declares it.
 * - `differs`: the command declares it; the note says how it is another thing here.
 * - `nothing`: is understood and changes nothing; the note says why.
 * - `unbuilt`: is understood and refused; the note says what it would be for.
 */
type State = 'same' | 'differs' | 'nothing' | 'unbuilt';

export interface CriuOption extends Omit<Flag, 'summary'> {
  readonly state: State;
  readonly note: string;
  /** Values with which an unbuilt one changes nothing. */
  readonly harmless?: readonly string[];
}

const o = (state: State, names: string, note: string, more: Partial<CriuOption> = {}): CriuOption => {
  const [long, ...rest] = names.split(' ') as [string, ...string[]];
  const short = rest.find((word) => word.startsWith('-'))?.slice(1);
  const value = rest.find((word) => !word.startsWith('-'));
  return { long, ...(short && { short }), ...(value && { value, repeat: true }), state, note, ...more };
};

export const criuOptions: readonly CriuOption[] = [
  o('same', 'tree -t PID', 'of a checkpoint'),
  o(
    'differs',
    'images-dir -D DIR',
    'also `-` for a stream and `pkram:NODE` for preserved memory; is made if it is not there',
  ),
  o('same', 'work-dir -W DIR', 'of the log, the PID file and relative names'),
  o('same', 'log-file -o FILE', ''),
  o('differs', 'verbosity -v', '-v0 to -v4; says more on stderr, not in the log file'),
  o('same', 'leave-running -R', ''),
  o('same', 'leave-stopped -s', ''),
  o('same', 'restore-detached -d', ''),
  o('same', 'daemon', 'another name of `--restore-detached`'),
  o('same', 'restore-sibling -S', ''),
  o('same', 'exec-cmd', ''),
  o('same', 'pidfile FILE', ''),
  o('differs', 'shell-job -j', 'any of the standard descriptors may be the terminal; it keeps its size'),
  o('same', 'file-locks -l', ''),
  o('same', 'timeout SECONDS', 'of a checkpoint'),
  o('same', 'tcp-established', 'a restore needs it not'),
  o('same', 'tcp-close', ''),
  o('same', 'skip-in-flight', 'of a checkpoint'),
  o('same', 'ghost-limit SIZE', 'of a checkpoint'),
  o(
    'differs',
    'track-mem',
    'a pre-dump has it always; without soft-dirty bits pages are protected against writing instead',
  ),
  o(
    'differs',
    'lazy-pages',
    'of a checkpoint, with --port; of a restore, which starts `tideover lazy-pages` by itself if none waits',
  ),
  o('same', 'prev-images-dir DIR', 'of a pre-dump, checkpoint or page server'),
  o('differs', 'link-remap', 'the names stay after `--leave-running` as well, as the image needs them'),
  o(
    'differs',
    'action-script FILE',
    'pre-dump, post-dump, pre-restore, post-restore, pre-resume and post-resume; there is nothing yet for the other moments',
  ),
  o(
    'differs',
    'freeze-cgroup PATH',
    'of a checkpoint; a group of version 2; one that the tree has for itself is used without it',
  ),
  o('same', 'veth-pair IN=OUT', 'of a restore; `IN=OUT@BRIDGE` too'),
  o('same', 'display-stats', 'prints them on stdout; `--json` has them always'),

  o(
    'differs',
    'external RESOURCE',
    'files, pipes and sockets of a checkpoint, veth of a restore, mounts and disks of both; `mnt[]` is always meant; no other networks yet',
  ),
  o(
    'differs',
    'inherit-fd RESOURCE',
    'of a restore: files, pipes and sockets; CRIU restores an external pipe without it too',
  ),
  o('differs', 'ext-unix-sk -x INODES', 'of a checkpoint; a restore needs it not', { optional: 'all' }),

  o('differs', 'page-server', 'of a checkpoint or pre-dump; it may be a page server of CRIU'),
  o('differs', 'address ADDRESS', '`tideover page-server` listens on 127.0.0.1 without it'),
  o('same', 'port PORT', ''),

  o('nothing', 'force-irmap', 'watched files are found by their handles alone'),
  o('nothing', 'irmap-scan-path PATH', 'watched files are found by their handles alone'),
  o('nothing', 'log-pid', 'there is one log'),
  o('nothing', 'evasive-devices', 'devices are opened by their own path'),
  o('nothing', 'ghost-fiemap', 'holes of deleted files are found by SEEK_HOLE'),
  o('nothing', 'allow-uprobes', 'mappings of uprobes are not saved'),
  o('nothing', 'weak-sysctls', 'no sysctls are restored'),
  o('nothing', 'mntns-compat-mode', 'mounts are made in one way'),
  o('nothing', 'enable-external-sharing', 'what is shared with outside is shared within the tree alone'),
  o('nothing', 'enable-external-masters', 'what comes from outside goes on to come'),
  o('nothing', 'enable-fs NAMES', 'every file system that is mounted outside too is taken from there'),
  o('nothing', 'skip-file-rwx-check', 'the kernel checks permissions when a file is opened'),
  o('nothing', 'deprecated', 'there is nothing deprecated'),
  o('nothing', 'unprivileged', 'what a missing privilege prevents is named'),
  o('nothing', 'no-default-config', 'there are no configuration files'),
  o('nothing', 'network-lock METHOD', 'packets are held back through nf_tables'),
  o('nothing', 'status-fd FD', 'CRIU writes to it when a page server is ready'),
  o('nothing', 'libdir -L DIR', 'there are no plugins'),
  o('nothing', 'pre-dump-mode MODE', 'it is of pre-dump'),

  o('differs', 'manage-cgroups MODE', 'of a restore; props sets those that are missing too, strict is refused', {
    optional: 'soft',
  }),
  o('same', 'cgroup-root PATH', 'of a restore'),
  o('unbuilt', 'cgroup-props STRING', 'cgroups'),
  o('unbuilt', 'cgroup-props-file FILE', 'cgroups'),
  o('unbuilt', 'cgroup-dump-controller NAME', 'cgroups'),
  o('unbuilt', 'cgroup-yard PATH', 'cgroups'),
  o('unbuilt', 'file-validation METHOD', 'build ids', { harmless: ['filesize'] }),
  o('unbuilt', 'auto-dedup', 'images that build on one another: use `tideover image dedup`'),
  o('unbuilt', 'ps-socket FD', 'memory sent over the network: -D - does it through a pipe'),
  o('unbuilt', 'stream', "CRIU's own streams: -D - is one"),
  o('unbuilt', 'tls', 'memory sent over the network: use ssh'),
  o('unbuilt', 'tls-cacert FILE', 'memory sent over the network: use ssh'),
  o('unbuilt', 'tls-cacrl FILE', 'memory sent over the network: use ssh'),
  o('unbuilt', 'tls-cert FILE', 'memory sent over the network: use ssh'),
  o('unbuilt', 'tls-key FILE', 'memory sent over the network: use ssh'),
  o('unbuilt', 'tls-no-cn-verify', 'memory sent over the network: use ssh'),
  o('unbuilt', 'cpu-cap CAP', 'which features of the CPU must be there: all that the image names', {
    optional: 'all',
    harmless: ['all', 'none'],
  }),
  o('unbuilt', 'config FILE', 'configuration files'),
  o('differs', 'root -r PATH', 'of a restore; need be no mount'),
  o('differs', 'ext-mount-map -M MAP', 'a value is as given; `auto` is always meant'),
  o('same', 'skip-mnt PATH', ''),
  o('unbuilt', 'lsm-mount-context CONTEXT', 'mount namespaces'),
  o('unbuilt', 'lsm-profile PROFILE', 'security modules'),
  o('unbuilt', 'empty-ns NAMESPACE', 'namespaces'),
  o('unbuilt', 'join-ns -J NAMESPACE', 'namespaces'),
];

/** The options that a command does not declare itself. @param own what it declares */
export function otherOptions(own: Flags): Flags {
  const declared = Object.values(own);
  const others = criuOptions.filter(
    ({ long, short }) =>
      !isGlobal(long) && !declared.some((flag) => flag.long === long || (short !== undefined && flag.short === short)),
  );
  return Object.fromEntries(
    others.map(({ state: _, harmless: __, note, ...flag }) => [flag.long, { ...flag, hidden: true, summary: note }]),
  );
}

/** Every command of tideover has it. */
export function isGlobal(long: string): boolean {
  return long === 'verbosity';
}

/** Whoever comes from CRIU types more than is listed. */
export const ABOUT_OTHERS = "CRIU's other options are understood; docs/process.md says what becomes of each.";

/** @throws UnsupportedError for an option that is not built yet */
export function refuseUnbuilt(flags: Readonly<Record<string, unknown>>): void {
  for (const { long, state, note, harmless } of criuOptions) {
    const value = flags[long];
    if (state !== 'unbuilt' || value === undefined || value === false) continue;
    if (Array.isArray(value) && value.every((each) => harmless?.includes(each))) continue;
    throw new UnsupportedError({
      what: `--${long}`,
      why: `it is not built yet (${note})`,
      remedy: 'leave it out, or use CRIU for this',
    });
  }
}
