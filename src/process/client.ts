/** tideover as a process of its own that works for this one, and what it says. See helper.ts. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  FormatError,
  PartialError,
  SyscallError,
  type TideoverError,
  UnsupportedError,
  VerifyError,
} from '../errors.ts';
import { readStat } from '../sys/stat.ts';

/** As sources and as built: the command line, and the helper beside this file. */
const SUFFIX = extname(import.meta.filename);
const PROGRAM = fileURLToPath(new URL(SUFFIX === '.ts' ? '../cli/main.ts' : '../tideover.mjs', import.meta.url));
const HELPER = fileURLToPath(new URL(`./helper${SUFFIX}`, import.meta.url));

/** How often it is looked whether the helper has ended, in ms. */
const EVERY = 10;

/** Behind the standard descriptors. */
export const FIRST_LENT = 3;

/** How far a checkpoint or restore has come. */
export interface Progress {
  /** Bytes of the image that are written or read. */
  readonly bytes: number;
}

export interface Watching {
  /** Undoes what was begun; the promise is rejected with its reason. What is complete already stays. */
  readonly signal?: AbortSignal | undefined;
  /** Not called in a process that is itself in the tree: it is stopped meanwhile. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/**
 * Runs a command of tideover to its end. While it runs this process has no descriptor for its sake: it may be checkpointed
 * by it, and looks then for files by their names only.
 *
 * @param lent descriptors of this process that it has as FIRST_LENT and those behind it
 * @returns what the command answers with --json; or undefined in a process that was restored from what it wrote
 * @throws what the command failed with
 */
export async function runHelper(
  args: readonly string[],
  { signal, onProgress }: Watching,
  lent: readonly number[] = [],
): Promise<unknown> {
  signal?.throwIfAborted();
  const born = readStat(process.pid).starttime;
  const folder = mkdtempSync(join(tmpdir(), 'tideover-'));
  const [exit, progress] = [join(folder, 'exit'), join(folder, 'progress')];
  const all = [HELPER, 'start', folder, `${process.pid}`, `${lent.length}`, PROGRAM, ...args, '--json'];
  if (onProgress !== undefined) all.push('--progress-file', progress);
  const helper = await start(all, lent).catch((error: unknown) => {
    rmSync(folder, { recursive: true });
    throw error;
  });
  const interrupt = () => {
    try {
      process.kill(helper, 'SIGINT');
    } catch {
      // It has ended.
    }
  };
  signal?.addEventListener('abort', interrupt);
  try {
    writeFileSync(join(folder, 'ready'), '');
    if (signal?.aborted === true) interrupt();
    let shown = '';
    for (;;) {
      const running = existsSync(`/proc/${helper}`);
      const ended = existsSync(exit);
      // Whoever goes on from an image has begun anew.
      if (readStat(process.pid).starttime !== born) return undefined;
      if (ended || !running) break;
      if (onProgress !== undefined && existsSync(progress)) {
        const text = readFileSync(progress, 'utf8');
        if (text !== shown) onProgress(JSON.parse(text) as Progress);
        shown = text;
      }
      await setTimeout(EVERY);
    }
    return answerOf(folder, signal);
  } finally {
    signal?.removeEventListener('abort', interrupt);
    if (readStat(process.pid).starttime === born) rmSync(folder, { recursive: true, force: true });
  }
}

/** @returns the process id of what was started, whose starter is gone */
async function start(args: readonly string[], lent: readonly number[]): Promise<number> {
  const starter = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', ...lent] });
  const [said, [exit]] = await Promise.all([text(starter.stdout!), once(starter, 'close')]);
  if (exit === 0) return Number(said);
  throw new UnsupportedError({
    what: 'tideover',
    why: `no process could be started for it (${exit})`,
    remedy: 'see what it says on stderr',
  });
}

function answerOf(folder: string, signal: AbortSignal | undefined): unknown {
  const text = existsSync(join(folder, 'exit')) ? readFileSync(join(folder, 'result'), 'utf8') : '';
  if (text === '') {
    signal?.throwIfAborted();
    const log = readFileSync(join(folder, 'log'), 'utf8').trim();
    throw new UnsupportedError({
      what: 'tideover',
      why: `it was ended before it could answer${log === '' ? '' : ` (${log})`}; what it had begun is undone`,
      remedy: 'try again',
    });
  }
  const answer = JSON.parse(text) as { error?: { code: string; message: string } };
  if (answer.error === undefined) return answer;
  if (answer.error.code === 'interrupted') signal?.throwIfAborted();
  throw errorOf(answer.error);
}

const classes: Readonly<Record<string, new (...args: never[]) => TideoverError>> = {
  syscall: SyscallError,
  format: FormatError,
  unsupported: UnsupportedError,
  verify: VerifyError,
  partial: PartialError,
};

/** The error as it was thrown there. */
function errorOf(told: { readonly code: string; readonly message: string }): Error {
  const made = Reflect.construct(Error, [told.message], classes[told.code] ?? Error) as Error;
  const { message: _, exit: __, ...fields } = told as typeof told & { readonly exit?: number };
  return Object.assign(made, fields);
}
