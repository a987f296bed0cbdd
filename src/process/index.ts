/**
 * Checkpoint and restore for programs.
 *
 *     import { checkpoint, restore } from 'tideover/process';
 *
 *     await checkpoint({ pid, images: '/var/tmp/image' });
 *     const { pid } = await restore({ images: '/var/tmp/image' });
 *
 * The work is done by a tideover of its own, so that a program can checkpoint itself, or a tree that it is in:
 *
 *     const { state } = await checkpoint({ pid: process.pid, images, outcome: 'run' });
 *     console.log(state === 'continued' ? 'the image is made' : 'this is the one that was restored');
 */
import { FIRST_LENT, runHelper, type Watching } from './client.ts';
import type { PreDumpResult } from './predump.ts';
import type { RestoreResult } from './restore.ts';
import type * as core from './stopped.ts';

export { FormatError, PartialError, SyscallError, TideoverError, UnsupportedError, VerifyError } from '../errors.ts';
export type { Progress } from './client.ts';
export type { PreDumpResult, RestoreResult };

/** What all of them take. */
interface Common extends Watching {
  /** Directory of the image; of a checkpoint and a restore also `pkram:NODE`. */
  readonly images: string;
  /** Programs that are run at the moments that CRIU names (CRTOOLS_SCRIPT_ACTION); if one fails, all is undone. */
  readonly actionScripts?: readonly string[] | undefined;
}

interface OfTree extends Common {
  /** Root of the tree; it may be this process, or one above it. */
  readonly pid: number;
  /** For each thread to stop, in milliseconds; 10000. */
  readonly timeout?: number | undefined;
  /** Directory of the image before, as seen from `images`: only what was written since is saved, and a restore needs both. */
  readonly parent?: string | undefined;
}

interface Both extends Common {
  /** The tree may be of a session or process group whose leader is not in it. */
  readonly shellJob?: boolean | undefined;
  readonly fileLocks?: boolean | undefined;
  /** Where mounts are that are left out, of a tree in its own mount namespace. */
  readonly skippedMounts?: readonly string[] | undefined;
}

export interface CheckpointOptions extends OfTree, Both {
  /** What becomes of the processes: `kill` if nothing is said, go on (`run`), or stay stopped as by SIGSTOP (`stop`). */
  readonly outcome?: core.CheckpointOptions['outcome'] | undefined;
  /** Largest deleted file that is saved, in bytes; 1 MiB. */
  readonly ghostLimit?: number | undefined;
  /** Gives files that were deleted, and have other names, one more; a restore removes it. */
  readonly linkRemap?: boolean | undefined;
  /** What becomes of TCP connections: `refused` if nothing is said, `kept`, or `closed` in the image. */
  readonly connections?: 'refused' | 'kept' | 'closed' | undefined;
  /** Connections that nobody has accepted yet are lost; else they are refused. */
  readonly skipInFlight?: boolean | undefined;
  /**
   * What is not part of the image: open files, `file[MNT:INODE]`, `pipe[INODE]`, `unix[INODE]`, which a restore gets by `inherit`; mounts,
   * `mnt[MOUNTPOINT]:KEY` and `dev[MAJOR/MINOR]:KEY`, which it gets by `external`.
   */
  readonly external?: readonly string[] | undefined;
  /** Inodes of named sockets outside of the tree that some of it may be connected to, or `all`. */
  readonly externalSockets?: readonly number[] | 'all' | undefined;
  /** Folder of a control group that has no process but those of the tree: it stops all at once. */
  readonly freezeGroup?: string | undefined;
  /** Watches what is written from now on, so that a later image can build on this one; with `run`. */
  readonly trackMemory?: boolean | undefined;
}

export type CheckpointResult =
  /** The image is made, and this process goes on. */
  | ({ readonly state: 'continued' } & core.CheckpointResult)
  /** This process was in the tree, and has just been restored from the image. */
  | { readonly state: 'restored' };

export type PreDumpOptions = OfTree;

export interface RestoreOptions extends Both {
  /** They go on stopped, as by SIGSTOP. */
  readonly stopped?: boolean | undefined;
  /** What becomes of TCP connections; `kept` if nothing is said. */
  readonly connections?: 'kept' | 'closed' | undefined;
  /** Descriptors of this process by the file of the image that each stands for: its path, or as `external` has called it. */
  readonly inherit?: Readonly<Record<string, number>> | undefined;
  /** Where the outer ends of veth devices of the tree come to be, by the names of the inner ones. */
  readonly vethPairs?:
    | Readonly<Record<string, { readonly name: string; readonly bridge?: string | undefined }>>
    | undefined;
  /** What becomes the root directory of a tree in its own mount namespace, if not the one that it had. */
  readonly root?: string | undefined;
  /** Mounts that are not part of the image: `mnt[KEY]:PATH`, `dev[KEY]:DEVICE`. */
  readonly external?: readonly string[] | undefined;
  /** They go on at once, with private memory that comes when it is touched. The image must stay until all is there. */
  readonly lazyPages?: boolean | undefined;
  /** They stay in the control groups of this process, and do not go back to theirs. */
  readonly ignoreCgroups?: boolean | undefined;
}

/**
 * Writes a process and all below it into an image.
 *
 * @throws UnsupportedError (something cannot be saved; the processes go on untouched), SyscallError, the reason of the signal
 */
export async function checkpoint(options: CheckpointOptions): Promise<CheckpointResult> {
  const { outcome = 'kill', connections = 'refused', externalSockets } = options;
  const answer = (await runHelper(
    [
      'checkpoint',
      ...ofTree(options),
      ...ofBoth(options),
      ...ofAll(options),
      ...flag('--leave-running', outcome === 'run'),
      ...flag('--leave-stopped', outcome === 'stop'),
      ...value('--ghost-limit', options.ghostLimit),
      ...flag('--link-remap', options.linkRemap),
      ...flag('--tcp-established', connections === 'kept'),
      ...flag('--tcp-close', connections === 'closed'),
      ...flag('--skip-in-flight', options.skipInFlight),
      ...values('--external', options.external),
      ...(externalSockets === undefined ? [] : [`--ext-unix-sk=${externalSockets}`]),
      ...value('--freeze-cgroup', options.freezeGroup),
      ...flag('--track-mem', options.trackMemory),
    ],
    options,
  )) as core.CheckpointResult | undefined;
  return answer === undefined ? { state: 'restored' } : { state: 'continued', ...answer };
}

/**
 * Writes the memory of a process and all below it while they run, as the parent of a later checkpoint.
 *
 * @returns undefined in a process of the tree that was restored from a checkpoint made meanwhile
 * @throws UnsupportedError (the kernel does not tell what is written, ...), SyscallError, the reason of the signal
 */
export async function preDump(options: PreDumpOptions): Promise<PreDumpResult | undefined> {
  return (await runHelper(['pre-dump', ...ofTree(options), ...ofAll(options)], options)) as PreDumpResult | undefined;
}

/**
 * Makes the processes of an image go on. They are children of whoever inherits orphans, init as a rule.
 *
 * @throws UnsupportedError, FormatError, VerifyError, SyscallError, and the reason of the signal: nothing is left;
 *   PartialError where processes stay that could not be taken away
 */
export async function restore(options: RestoreOptions): Promise<RestoreResult> {
  const inherited = Object.entries(options.inherit ?? {});
  const pairs = Object.entries(options.vethPairs ?? {});
  const args = [
    'restore',
    '--restore-detached',
    ...ofBoth(options),
    ...ofAll(options),
    ...flag('--leave-stopped', options.stopped),
    ...flag('--tcp-close', options.connections === 'closed'),
    ...values(
      '--inherit-fd',
      inherited.map(([file], i) => `fd[${FIRST_LENT + i}]:${file}`),
    ),
    ...values(
      '--veth-pair',
      pairs.map(([inner, { name, bridge }]) => `${inner}=${name}${bridge === undefined ? '' : `@${bridge}`}`),
    ),
    ...value('--root', options.root),
    ...values('--external', options.external),
    ...flag('--lazy-pages', options.lazyPages),
    ...(options.ignoreCgroups === true ? ['--manage-cgroups=ignore'] : []),
  ];
  const lent = inherited.map(([, fd]) => fd);
  return (await runHelper(args, options, lent)) as RestoreResult;
}

function ofTree({ pid, timeout, parent }: OfTree): string[] {
  return [
    ...value('--tree', pid),
    ...value('--timeout', timeout === undefined ? undefined : timeout / 1000),
    ...value('--prev-images-dir', parent),
  ];
}

function ofBoth({ shellJob, fileLocks, skippedMounts }: Both): string[] {
  return [...flag('--shell-job', shellJob), ...flag('--file-locks', fileLocks), ...values('--skip-mnt', skippedMounts)];
}

function ofAll({ images, actionScripts }: Common): string[] {
  return [...value('--images-dir', images), ...values('--action-script', actionScripts)];
}

const flag = (name: string, on: boolean | undefined): string[] => (on === true ? [name] : []);
const value = (name: string, given: string | number | undefined): string[] =>
  given === undefined ? [] : [`${name}=${given}`];
const values = (name: string, given: readonly string[] = []): string[] => given.map((each) => `${name}=${each}`);
