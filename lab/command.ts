/** Programs of the host, run so that none outlives this process: not by ^C, not by kill -9. */
import { spawn } from 'node:child_process';
import { TideoverError } from '../src/errors.ts';

/** A program ended with something other than 0. The message has its last lines. */
export class CommandError extends TideoverError {
  readonly code = 'command';
  /** Exit status, or null when a signal ended it. */
  readonly status: number | null;

  constructor(command: readonly string[], status: number | null, output: string) {
    const ending = status === null ? 'was killed' : `failed with status ${status}`;
    const tail = output.trimEnd().split('\n').slice(-20).join('\n');
    super(`${command.join(' ')}: ${ending}${tail === '' ? '' : `:\n${tail}`}`);
    this.status = status;
  }
}

export interface CommandOptions {
  readonly cwd?: string;
  /** Added to this process's environment, or with undefined taken from it. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Called with each line of stdout and stderr as it comes. */
  readonly onLine?: (line: string) => void;
}

/**
 * Runs $@ in a process group of its own and kills the whole group when stdin ends, which the kernel sees to whatever
 * way the parent dies. PR_SET_PDEATHSIG would reach the program alone: a recursive make's children would go on.
 */
const untilStdinEnds = `
exec 3<&0 </dev/null
{ read -r _ <&3; kill -9 0; } >/dev/null 2>&1 &
watch=$!
"$@" 3<&-
status=$?
kill -9 $watch
exit $status`;

/**
 * Runs a program to its end and returns its stdout as text.
 * @throws CommandError when it ends with something other than 0
 */
export async function run(command: readonly string[], options: CommandOptions = {}): Promise<string> {
  const child = spawn('sh', ['-c', untilStdinEnds, 'sh', ...command], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env, LC_ALL: 'C' },
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  if (options.onLine !== undefined) {
    onLines(child.stdout, options.onLine);
    onLines(child.stderr, options.onLine);
  }
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  child.stdin.destroy();
  if (status !== 0) throw new CommandError(command, status, errors === '' ? stdout : errors);
  return stdout;
}

function onLines(stream: NodeJS.ReadableStream, onLine: (line: string) => void): void {
  let rest = '';
  stream.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  });
  stream.on('end', () => {
    if (rest !== '') onLine(rest);
  });
}

/** One line about what the lab is doing, to stderr. */
export function say(text: string): void {
  process.stderr.write(`lab: ${text}\n`);
}
