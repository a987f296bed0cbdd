/** Where images lie, and what beside them: the options of checkpoint and restore for it. */
import { resolve } from 'node:path';
import { UnsupportedError } from '../../errors.ts';
import type { ImageDraft, ImageStore } from '../../image/store.ts';
import type { Flags } from '../command.ts';

export const imageFlags = {
  imagesDir: {
    long: 'images-dir',
    short: 'D',
    value: 'DIR',
    summary: 'directory of the image; - is stdout or stdin, pkram:NODE a node of preserved memory [$TIDEOVER_PKRAM]',
  },
  workDir: { long: 'work-dir', short: 'W', value: 'DIR', summary: 'directory of the log and the PID file' },
  logFile: { long: 'log-file', short: 'o', value: 'FILE', summary: 'add what happened to this file' },
  shellJob: {
    long: 'shell-job',
    short: 'j',
    summary: 'the tree may be of a session or process group whose leader is not in it',
  },
  fileLocks: { long: 'file-locks', short: 'l', summary: 'keep file locks' },
  actionScript: {
    long: 'action-script',
    value: 'FILE',
    repeat: true,
    summary: 'run this program at certain moments (CRTOOLS_SCRIPT_ACTION says which); if it fails, all is undone',
  },
  displayStats: { long: 'display-stats', summary: 'print times and sizes' },
  progressFile: {
    long: 'progress-file',
    value: 'FILE',
    summary: 'write into this file, again and again, how many bytes of the image are done: {"bytes"}',
  },
} as const satisfies Flags;

/**
 * @param directory `-` for stdout, `pkram:NODE` for preserved memory
 * @param parent directory of an earlier image, from within the first
 */
export async function openDraft(directory: string, parent?: string): Promise<ImageDraft> {
  const info = (await import('../../process/info.ts')).infoHere();
  if (directory === '-') {
    const { createStream } = await import('../../image/stream.ts');
    const { wait } = await widePipe(1, 'write');
    return createStream(1, info, { wait, taken: await untilTaken(1), over: await untilOver(1) });
  }
  const node = nodeOf(directory);
  if (node !== undefined) {
    const { draftNode } = await import('../../update/medium.ts');
    return draftNode((await import('../medium.ts')).placeOf(undefined), node, info);
  }
  const { createDirectory } = await import('../../image/directory.ts');
  const { saveToDisk } = await import('../../process/disk.ts');
  return createDirectory(directory, info, { replace: true, ...saveToDisk, parent });
}

/**
 * The image on which a new one is to build.
 *
 * @param directory of the new one
 * @param parent as CRIU takes it: from within that one
 * @throws UnsupportedError where images of the kind cannot build on others
 */
export async function openParent(directory: string, parent: string | undefined): Promise<ImageStore | undefined> {
  if (parent === undefined) return undefined;
  needsDirectory(directory, 'an image that builds on another one');
  const { openDirectory } = await import('../../image/directory.ts');
  return openDirectory(resolve(directory, parent), (await import('../../process/disk.ts')).writers);
}

/** @throws UnsupportedError where it is a stream or preserved memory */
export function needsDirectory(directory: string, what: string): void {
  if (directory !== '-' && nodeOf(directory) === undefined) return;
  throw new UnsupportedError({
    what: `-D ${directory}`,
    why: `${what} needs files that can be read in any order and stay where they are`,
    remedy: 'name a directory; for memory alone one of a tmpfs',
  });
}

/** @param directory `-` for stdin, `pkram:NODE` for preserved memory */
export async function openStore(directory: string): Promise<ImageStore> {
  if (directory === '-') {
    const { openStream } = await import('../../image/stream.ts');
    return openStream(0, 'stdin', await widePipe(0, 'read'));
  }
  const node = nodeOf(directory);
  if (node !== undefined) {
    const { openNode } = await import('../../update/medium.ts');
    return openNode((await import('../medium.ts')).placeOf(undefined), node);
  }
  const { openDirectory } = await import('../../image/directory.ts');
  return openDirectory(directory, (await import('../../process/disk.ts')).writers);
}

/**
 * In bytes. All of a small program goes into the first one, and its processes end while the other side still reads; the second one is
 * what a user may ask for by default, /proc/sys/fs/pipe-max-size.
 */
const PIPES = [16 << 20, 1 << 20];

/**
 * Has a pipe take more at once than its 64 KiB, so that both ends work at the same time: 1 GiB in 0.8 s for 1.2.
 *
 * @returns what waits until it can be written or read, where it was made not to block, and how many bytes it takes; 0 of what is no pipe
 */
async function widePipe(fd: number, to: 'read' | 'write'): Promise<{ wait: () => void; holds: number }> {
  const { F_GETPIPE_SZ, F_SETPIPE_SZ } = await import('../../abi/fcntl.ts');
  const { POLLIN, POLLOUT } = await import('../../abi/poll.ts');
  const { fcntl } = await import('../../sys/files.ts');
  const { poll } = await import('../../sys/poll.ts');
  for (const arg of PIPES) if (fcntl.attempt({ fd, cmd: F_SETPIPE_SZ, arg }) >= 0) break;
  return {
    wait: () => void poll(fd, to === 'read' ? POLLIN : POLLOUT, -1),
    holds: Math.max(0, fcntl.attempt({ fd, cmd: F_GETPIPE_SZ, arg: 0 })),
  };
}

/** In ms: how long what has been announced may lie in the pipe. */
const TAKEN = 50;
/** In ms: a small tree goes on within that. */
const OVER = 30;
/** In ns. */
const MOMENT = 50_000;

/** @returns waits until the other side has taken what is in a pipe: it may be in the middle of practising */
async function untilTaken(fd: number): Promise<() => void> {
  const { FIONREAD } = await import('../../abi/poll.ts');
  const { ioctl } = await import('../../sys/files.ts');
  const { sleep } = await import('../../sys/process.ts');
  const left = new Uint32Array(1);
  const arg = new Uint8Array(left.buffer);
  return () => {
    const until = performance.now() + TAKEN;
    // Of what is no pipe nobody tells.
    while (ioctl.attempt({ fd, request: FIONREAD, arg }) === 0 && left[0]! > 0 && performance.now() < until)
      sleep(MOMENT);
  };
}

/**
 * What ends takes the processor, and gives back a lot of memory, while the other side makes the processes go on.
 *
 * @returns waits until nobody reads a pipe any more, but not for long: some wait for its end themselves
 */
async function untilOver(fd: number): Promise<() => void> {
  const { poll } = await import('../../sys/poll.ts');
  return () => void poll(fd, 0, OVER);
}

/** The node of `pkram:NODE`, or undefined for a directory. */
export function nodeOf(directory: string): string | undefined {
  return directory.startsWith('pkram:') ? directory.slice('pkram:'.length) : undefined;
}

/** Where a file that the user names lies: below the working directory of the run, as CRIU has it. */
export function inWorkDir(flags: { workDir: string | undefined; imagesDir: string | undefined }, file: string): string {
  const { imagesDir = '.' } = flags;
  const images = imagesDir === '-' || nodeOf(imagesDir) !== undefined ? '.' : imagesDir;
  return resolve(flags.workDir ?? images, file);
}
