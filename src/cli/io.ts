/** Where a command's words go: the result to stdout, progress and log to stderr. */

import type { Kernel } from '../crash/kernel/kernel.ts';
import { type Paint, painter, wantsColor } from './color.ts';
import type { Failure } from './exit.ts';
import { Progress } from './progress.ts';
import { CONTROLS, printable } from './text.ts';

/** The options that every command has. */
export interface Settings {
  json: boolean;
  /** 0, 1 (what is done) or more (details, stacks of errors). */
  verbose: number;
  quiet: boolean;
  color: 'auto' | 'always' | 'never';
}

/** How a result is shown to people. */
export interface View {
  /** Columns of the terminal; Infinity where the result goes to a file or a pipe, so that one row stays one line. */
  readonly width: number;
  readonly paint: Paint;
}

/** The result of a command, in both forms. */
export interface Output {
  readonly json: unknown;
  /** Lines for people. Text that comes from elsewhere is made printable by whoever puts it in. */
  text(view: View): string[];
  /** Where something failed that has been said already, or a command's status that is passed on; 0 without it. */
  readonly exit?: number;
}

/** What a running command has of the world. */
export interface Io {
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** From now on SIGINT calls this and does not abort `signal`. */
  onInterrupt(handler: () => void): void;
  /** For what prints before it ends. */
  readonly streams: Streams;
  /** --json is given. */
  readonly json: boolean;
  /** A dump that is open already: commands that look into one look into this. */
  readonly kernel?: Kernel;
  /** For people, unless -q. */
  info(text: string): void;
  /** Only with -v. */
  detail(text: string): void;
  /** Only with -vv. */
  debug(text: string): void;
  /** Always. */
  warn(text: string): void;
  progress(of: { label: string; total?: number; unit: 'bytes' | 'items' }): Progress;
}

/** A stream of this process, or a test's. */
export interface Sink {
  readonly isTTY?: boolean;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

export interface Streams {
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export function viewOf(sink: Sink, settings: Settings, env: Streams['env']): View {
  return {
    width: sink.isTTY ? widthOf(sink) : Number.POSITIVE_INFINITY,
    paint: painter(wantsColor(settings.color, sink, env)),
  };
}

/** A serial console says that it has 0 columns: nobody has told it how many. */
function widthOf({ columns }: Sink): number {
  return columns || 80;
}

/** What SIGINT and SIGTERM do. */
export interface Interruption {
  readonly signal: AbortSignal;
  onInterrupt(handler: () => void): void;
}

export function createIo(streams: Streams, settings: Settings, interruption: Interruption): Io {
  const { stderr } = streams;
  const level = settings.quiet ? -1 : settings.verbose;
  let progress: Progress | undefined;
  const write = (text: string) => {
    progress?.hide();
    stderr.write(text);
  };
  const say = (from: number) => (text: string) => {
    if (level >= from) write(`${printable(text)}\n`);
  };
  const sink = {
    terminal: stderr.isTTY === true,
    width: widthOf(stderr),
    write: (text: string) => void stderr.write(text),
    now: () => performance.now(),
  };
  return {
    signal: interruption.signal,
    onInterrupt: (handler) => interruption.onInterrupt(handler),
    streams,
    json: settings.json,
    info: say(0),
    detail: say(1),
    debug: say(2),
    warn: (text) => write(`tideover: warning: ${printable(text)}\n`),
    progress(of) {
      progress?.hide();
      progress = new Progress(settings.quiet ? undefined : sink, of);
      return progress;
    },
  };
}

/** Prints a result: with --json as one document, else as lines. */
export function printOutput(streams: Streams, settings: Settings, output: Output): void {
  const { stdout, env } = streams;
  if (settings.json) {
    stdout.write(jsonDocument(output.json));
    return;
  }
  stdout.write(
    output
      .text(viewOf(stdout, settings, env))
      .map((line) => `${line}\n`)
      .join(''),
  );
}

/**
 * Prints a failure as `tideover: message` on stderr. With --json stdout gets `{"error": {...}}` in place of the
 * result, so that it always holds exactly one document. With -vv the stack follows.
 */
export function printFailure(streams: Streams, settings: Settings, failed: Failure, error: unknown): void {
  const { stdout, stderr, env } = streams;
  if (settings.json) stdout.write(jsonDocument({ error: failed.json }));
  const { paint } = viewOf(stderr, settings, env);
  stderr.write(`${paint('red', 'tideover:')} ${printable(failed.message)}\n`);
  if (settings.verbose < 2) return;
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    stderr.write(`${printable(cause.stack ?? String(cause))}\n`);
  }
}

/** JSON itself escapes no more than C0; here also what else could steer a terminal becomes an escape. */
function jsonDocument(value: unknown): string {
  const text = JSON.stringify(value, null, 2).replace(
    CONTROLS,
    (control) => `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return `${text}\n`;
}
