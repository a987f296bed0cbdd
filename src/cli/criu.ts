/** What checkpoint and restore have in common: options named as CRIU names them, and where images and logs lie. */
import { appendFileSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { SIGINT, SIGTERM } from '../abi/signal.ts';
import { UnsupportedError } from '../errors.ts';
import type { ImageDraft, ImageStore } from '../image/store.ts';
import type { Watch } from '../process/watch.ts';
import type { Flag, Flags } from './command.ts';
import type { Io } from './io.ts';
import { version } from './version.ts';

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
  progressFile: {
    long: 'progress-file',
    value: 'FILE',
    summary: 'write into this file, again and again, how many bytes of the image are done: {"bytes"}',
  },
} as const satisfies Flags;

const switches = (names: string): Flags =>
  Object.fromEntries(
    names.split(' ').map((long) => [long, { long, summary: 'of CRIU; not built yet' } satisfies Flag]),
  );
const values = (names: string): Flags =>
  Object.fromEntries(
    names
      .split(' ')
      .map((long) => [long, { long, value: 'VALUE', repeat: true, summary: 'of CRIU; not built yet' } satisfies Flag]),
  );

/** Options of CRIU for what is not built yet: they are understood, and refused. */
export const unbuiltFlags: Flags = {
  ...switches('link-remap ext-unix-sk enable-external-masters auto-dedup lazy-pages restore-sibling'),
  ...values(
    'external inherit-fd action-script ext-mount-map enable-fs join-ns cgroup-root cgroup-yard root lsm-mount-context',
  ),
  ...values('lsm-profile prev-images-dir cgroup-props freeze-cgroup'),
};

/** Options of CRIU that say how something is done which is done otherwise here, or that concern what a refusal names. */
export const ignoredFlags: Flags = Object.fromEntries(
  [
    ...Object.values(switches('tcp-established tcp-close skip-in-flight evasive-devices allow-uprobes ghost-fiemap')),
    ...Object.values(switches('mntns-compat-mode no-default-config track-mem')),
    ...Object.values(values('network-lock')),
  ].map((flag) => [flag.long, { ...flag, summary: 'of CRIU; changes nothing' }]),
);

/** @throws UnsupportedError for an option that is not built yet */
export function refuseUnbuilt(flags: Readonly<Record<string, unknown>>): void {
  for (const long of Object.keys(unbuiltFlags)) {
    const value = flags[long];
    if (value === false || (Array.isArray(value) && value.length === 0)) continue;
    throw new UnsupportedError({
      what: `--${long}`,
      why: 'it is not built yet',
      remedy: 'leave it out, or use CRIU for this',
    });
  }
}

/** @param directory `-` for stdout, `pkram:NODE` for preserved memory */
export async function openDraft(directory: string): Promise<ImageDraft> {
  const { readMachine } = await import('../sys/machine.ts');
  const { IMAGE_FORMAT } = await import('../image/info.ts');
  const info = {
    format: IMAGE_FORMAT,
    tideover: version(),
    created: new Date().toISOString(),
    ...readMachine(),
  };
  if (directory === '-') {
    const { createStream } = await import('../image/stream.ts');
    return createStream(1, info);
  }
  const node = nodeOf(directory);
  if (node !== undefined) return (await import('./pkram.ts')).draftNode(node, info);
  const { createDirectory } = await import('../image/directory.ts');
  const { saveToDisk } = await import('../process/disk.ts');
  return createDirectory(directory, info, { replace: true, ...saveToDisk });
}

/** @param directory `-` for stdin, `pkram:NODE` for preserved memory */
export async function openStore(directory: string): Promise<ImageStore> {
  if (directory === '-') {
    const { openStream } = await import('../image/stream.ts');
    return openStream(0, 'stdin');
  }
  const node = nodeOf(directory);
  if (node !== undefined) return (await import('./pkram.ts')).openNode(node);
  const { openDirectory } = await import('../image/directory.ts');
  return openDirectory(directory);
}

/** The node of `pkram:NODE`, or undefined for a directory. */
function nodeOf(directory: string): string | undefined {
  return directory.startsWith('pkram:') ? directory.slice('pkram:'.length) : undefined;
}

/** Where a file that the user names lies: below the working directory of the run, as CRIU has it. */
export function inWorkDir(flags: { workDir: string | undefined; imagesDir: string | undefined }, file: string): string {
  const { imagesDir = '.' } = flags;
  const images = imagesDir === '-' || nodeOf(imagesDir) !== undefined ? '.' : imagesDir;
  return resolve(flags.workDir ?? images, file);
}

/**
 * Does what takes its time, with its progress told, and undone when a signal comes meanwhile. The thread that traces does all of
 * it in one go, so that Node would tell of signals only afterwards.
 */
export async function supervised<T>(
  io: Io,
  of: { label: string; progressFile: string | undefined },
  work: (watch: Watch) => T,
): Promise<T> {
  const { NotedSignals } = await import('../sys/interrupt.ts');
  const progress = io.progress({ label: of.label, unit: 'bytes' });
  const report = of.progressFile === undefined ? undefined : reportTo(of.progressFile);
  using signals = new NotedSignals([SIGINT, SIGTERM]);
  try {
    return work((bytes) => {
      if (signals.seen || io.signal.aborted) throw new DOMException('interrupted', 'AbortError');
      progress.update(bytes);
      report?.(bytes);
    });
  } finally {
    progress.end();
  }
}

const REPORT_EVERY = 50;

/** Whoever reads the file finds a whole report. */
function reportTo(file: string): Watch {
  let last = Number.NEGATIVE_INFINITY;
  return (bytes) => {
    const now = performance.now();
    if (now - last < REPORT_EVERY) return;
    last = now;
    writeFileSync(`${file}.new`, JSON.stringify({ bytes }));
    renameSync(`${file}.new`, file);
  };
}

/** Runs, and writes down how it went. */
export async function logged<T>(
  flags: { workDir: string | undefined; imagesDir: string | undefined; logFile: string | undefined },
  what: string,
  work: () => Promise<T>,
): Promise<T> {
  const { logFile } = flags;
  if (logFile === undefined) return work();
  const file = inWorkDir(flags, logFile);
  mkdirSync(join(file, '..'), { recursive: true });
  const note = (text: string) => appendFileSync(file, `${new Date().toISOString()} ${what}: ${text}\n`);
  try {
    const result = await work();
    note(JSON.stringify(result));
    return result;
  } catch (error) {
    note(error instanceof Error ? (error.stack ?? error.message) : String(error));
    throw error;
  }
}
