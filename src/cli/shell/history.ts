/** What was typed before, in a file that only its owner can read: addresses and names of a crashed machine are in it. */
import { appendFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';

/** Lines that are kept. */
const MAX_LINES = 1000;

export class History {
  readonly #path: string;
  /** The oldest first. */
  readonly lines: readonly string[];

  /** A history that cannot be read is empty, and one that cannot be written is forgotten: neither stops a shell. */
  constructor(env: Readonly<Record<string, string | undefined>>) {
    this.#path = historyPath(env);
    const lines = readLines(this.#path);
    this.lines = lines.slice(-MAX_LINES);
    if (lines.length > 2 * MAX_LINES) tried(() => this.#replace());
  }

  add(line: string): void {
    tried(() => {
      mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 });
      appendFileSync(this.#path, `${line}\n`, { mode: 0o600 });
    });
  }

  #replace(): void {
    const partial = `${this.#path}.partial-${process.pid}`;
    writeFileSync(partial, this.lines.map((line) => `${line}\n`).join(''), { mode: 0o600 });
    renameSync(partial, this.#path);
  }
}

/** By the XDG Base Directory Specification: a relative path there is none. */
export function historyPath({
  XDG_STATE_HOME: state = '',
  HOME: home = homedir(),
}: Readonly<Record<string, string | undefined>>): string {
  return join(isAbsolute(state) ? state : join(home, '.local/state'), 'tideover', 'crash_history');
}

function readLines(path: string): string[] {
  return (tried(() => readFileSync(path, 'utf8')) ?? '').split('\n').filter(Boolean);
}

function tried<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return undefined;
  }
}
