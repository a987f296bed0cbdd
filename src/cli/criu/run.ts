/** How checkpoint and restore run: seen, interruptible and written down. */
import { appendFileSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SIGINT, SIGTERM } from '../../abi/signal.ts';
import type { Watch } from '../../process/watch.ts';
import type { Io } from '../io.ts';
import { inWorkDir } from './images.ts';

/**
 * Does what takes its time, with its progress told, and undone when a signal comes meanwhile. The thread that traces does all of
 * it in one go, so that Node would tell of signals only afterwards.
 */
export async function supervised<T>(
  io: Io,
  of: { label: string; progressFile: string | undefined },
  work: (watch: Watch) => T,
): Promise<T> {
  const { NotedSignals } = await import('../../sys/interrupt.ts');
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
