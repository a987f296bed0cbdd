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
import type * as core from './checkpoint.ts';
import { runHelper, type Watching } from './client.ts';
import type { RestoreResult } from './restore.ts';

export { FormatError, PartialError, SyscallError, TideoverError, UnsupportedError, VerifyError } from '../errors.ts';
export type { Progress } from './client.ts';
export type { RestoreResult };

/** What both take. */
interface Common extends Watching {
  /** Directory of the image, or `pkram:NODE`. */
  readonly images: string;
  /** The tree may be of a session or process group whose leader is not in it. */
  readonly shellJob?: boolean | undefined;
  readonly fileLocks?: boolean | undefined;
}

export interface CheckpointOptions extends Common {
  /** Root of the tree; it may be this process, or one above it. */
  readonly pid: number;
  /** What becomes of the processes: `kill` if nothing is said, go on (`run`), or stay stopped as by SIGSTOP (`stop`). */
  readonly outcome?: core.CheckpointOptions['outcome'] | undefined;
  /** For each thread to stop, in milliseconds; 10000. */
  readonly timeout?: number | undefined;
  /** Largest deleted file that is saved, in bytes; 1 MiB. */
  readonly ghostLimit?: number | undefined;
  /** Gives files that were deleted, and have other names, one more; a restore removes it. */
  readonly linkRemap?: boolean | undefined;
}

export type CheckpointResult =
  /** The image is made, and this process goes on. */
  | ({ readonly state: 'continued' } & core.CheckpointResult)
  /** This process was in the tree, and has just been restored from the image. */
  | { readonly state: 'restored' };

export interface RestoreOptions extends Common {
  /** They go on stopped, as by SIGSTOP. */
  readonly stopped?: boolean | undefined;
}

/**
 * Writes a process and all below it into an image.
 *
 * @throws UnsupportedError (something cannot be saved; the processes go on untouched), SyscallError, the reason of the signal
 */
export async function checkpoint(options: CheckpointOptions): Promise<CheckpointResult> {
  const { pid, outcome = 'kill', timeout, ghostLimit, linkRemap } = options;
  const args = ['checkpoint', '--tree', `${pid}`, ...commonArguments(options)];
  if (outcome === 'run') args.push('--leave-running');
  if (outcome === 'stop') args.push('--leave-stopped');
  if (linkRemap === true) args.push('--link-remap');
  if (timeout !== undefined) args.push('--timeout', `${timeout / 1000}`);
  if (ghostLimit !== undefined) args.push('--ghost-limit', `${ghostLimit}`);
  const answer = (await runHelper(args, options)) as core.CheckpointResult | undefined;
  return answer === undefined ? { state: 'restored' } : { state: 'continued', ...answer };
}

/**
 * Makes the processes of an image go on. They are children of whoever inherits orphans, init as a rule.
 *
 * @throws UnsupportedError, FormatError, VerifyError, SyscallError, and the reason of the signal: nothing is left;
 *   PartialError where processes stay that could not be taken away
 */
export async function restore(options: RestoreOptions): Promise<RestoreResult> {
  const args = ['restore', '--restore-detached', ...commonArguments(options)];
  if (options.stopped === true) args.push('--leave-stopped');
  return (await runHelper(args, options)) as RestoreResult;
}

function commonArguments({ images, shellJob, fileLocks }: Common): string[] {
  return [
    '--images-dir',
    images,
    ...(shellJob === true ? ['--shell-job'] : []),
    ...(fileLocks === true ? ['--file-locks'] : []),
  ];
}
