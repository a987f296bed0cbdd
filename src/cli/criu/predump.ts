/** What checkpoint and pre-dump have in common. */
import { count } from '../../image/count.ts';
import type { Flags, FlagValues } from '../command.ts';
import { UsageError } from '../exit.ts';
import type { Io, Output } from '../io.ts';
import { byteSize } from '../progress.ts';
import { type imageFlags, needsDirectory, openDraft, openParent } from './images.ts';
import { refuseUnbuilt } from './options.ts';
import { type pageServerFlags, throughPageServer } from './pageserver.ts';
import { logged, supervised } from './run.ts';
import { actionScripts } from './scripts.ts';

export const treeFlags = {
  tree: { long: 'tree', short: 't', value: 'PID', summary: 'root of the process tree' },
  timeout: { long: 'timeout', value: 'SECONDS', summary: 'how long a process may take to stop; 10 if not given' },
  parent: {
    long: 'prev-images-dir',
    value: 'DIR',
    summary: 'the image before, as seen from the images directory: only what was written since is saved',
  },
} as const satisfies Flags;

type Given = FlagValues<typeof treeFlags & typeof imageFlags & typeof pageServerFlags>;

export const UNWATCHED =
  'nobody has watched what was written since the image before (its tracker is not there any more): this one is whole';

/** @throws UsageError */
export function pidOf(tree: string | undefined, command: string): number {
  const pid = Number(tree);
  if (!Number.isInteger(pid) || pid < 1) throw new UsageError(`${command} needs the process: -t PID`);
  return pid;
}

/** In milliseconds. @throws UsageError */
export function timeoutOf({ timeout = '10' }: Pick<Given, 'timeout'>): number {
  const seconds = Number(timeout);
  if (seconds > 0 && Number.isFinite(seconds)) return 1000 * seconds;
  throw new UsageError(`--timeout: '${timeout}' is no number of seconds`);
}

/** Runs a pre-dump. */
export async function preDumpInto(io: Io, flags: Given): Promise<Output> {
  const pid = pidOf(flags.tree, 'pre-dump');
  refuseUnbuilt(flags);
  const directory = flags.imagesDir ?? '.';
  needsDirectory(directory, 'a pre-dump');
  const script = actionScripts(flags.actionScript, directory);
  const result = await logged(flags, 'pre-dump', async () => {
    const { preDump } = await import('../../process/predump.ts');
    const { watchDraft } = await import('../../process/watch.ts');
    script('pre-dump', pid);
    const parent = await openParent(directory, flags.parent);
    const draft = await throughPageServer(await openDraft(directory, flags.parent), flags);
    const { progressFile } = flags;
    return supervised(io, { label: 'pre-dump', progressFile }, (watch) =>
      preDump({ pid, timeout: timeoutOf(flags), parent }, watchDraft(draft, watch)),
    );
  });
  const { processes, memory, unchanged, unwatched, frozen } = result;
  if (unwatched) io.warn(UNWATCHED);
  io.info(
    `${byteSize(memory)} of memory of ${count(processes, 'process', 'es')}, stopped for ${frozen.toFixed(1)} ms; ${byteSize(unchanged)} stand in the image before`,
  );
  const stats = () => [`frozen ${frozen.toFixed(1)} ms`, `memory ${memory} bytes, ${memory / 4096} pages`];
  return { json: result, text: flags.displayStats ? stats : () => [] };
}
