/** Programs to be checkpointed, each in a folder of its own with its output in `log`, and the tideover that does it. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { isGoing } from '../../../src/process/cloning.ts';
import { PATIENCE, until } from '../patience.ts';

const root = new URL('../../..', import.meta.url).pathname;
const programs = new URL('programs/', import.meta.url).pathname;

/** Descriptors that this process got from whoever started it are not the program's business. */
const ALONE = 'import os, sys; os.closerange(3, 65536); os.execvp(sys.argv[1], sys.argv[1:])';

/** Path of a program of programs/ that is a script. */
export function program(name: string): string {
  return join(programs, name);
}

/** Everything of one test, removed and ended by dispose(). */
export class Bench {
  readonly folder = mkdtempSync(join(tmpdir(), 'tideover-process-'));
  readonly image = join(this.folder, 'image');
  readonly #pids = new Set<number>();
  readonly #children = new Set<ChildProcess>();

  /** Disposed of when the test ends. */
  static of(t: TestContext): Bench {
    const bench = new Bench();
    t.after(() => bench.dispose());
    return bench;
  }

  /** Compiles a program of programs/. @param options for gcc @returns its path */
  compile(name: string, ...options: string[]): string {
    const path = join(this.folder, name);
    execFileSync('gcc', ['-O1', '-Wall', '-pthread', ...options, '-o', path, join(programs, `${name}.c`)]);
    return path;
  }

  /** Starts a program in the folder. @returns its process id */
  start(file: string, args: readonly string[] = [], options: { uid?: number; gid?: number } = {}): number {
    const folder = join(this.folder, 'work');
    mkdirSync(folder, { recursive: true });
    const log = openSync(join(this.folder, 'log'), 'a', 0o666);
    const child = spawn('python3', ['-c', ALONE, file, ...args], {
      cwd: folder,
      stdio: ['ignore', log, log],
      detached: true,
      ...options,
    });
    closeSync(log);
    this.#children.add(child);
    this.#pids.add(child.pid!);
    return child.pid!;
  }

  get log(): string {
    const file = join(this.folder, 'log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** Waits for text in the log. */
  async says(text: string | RegExp): Promise<string> {
    const said = () => (typeof text === 'string' ? this.log.includes(text) : text.test(this.log));
    await until(said, () => `no ${text} in the log:\n${this.log}`);
    return this.log;
  }

  /** Waits until a process is gone, its zombie too. */
  async gone(pid: number): Promise<void> {
    await until(() => !existsSync(`/proc/${pid}`), `process ${pid} is still there`);
  }

  /** Runs tideover to its end. */
  tideover(...args: string[]): { status: number | null; stderr: string; stdout: string } {
    const { status, stderr, stdout } = spawnSync(process.execPath, [join(root, 'src/cli/main.ts'), ...args], {
      encoding: 'utf8',
      timeout: PATIENCE,
      killSignal: 'SIGKILL',
    });
    return { status, stderr, stdout };
  }

  /** The program, for shell(). */
  readonly node = process.execPath;
  readonly main = join(root, 'src/cli/main.ts');

  /** Runs a command line in the folder. */
  shell(line: string): void {
    execFileSync('sh', ['-c', line], { cwd: this.folder, stdio: ['ignore', 'ignore', 'pipe'], timeout: PATIENCE });
  }

  /** Starts tideover. */
  begin(...args: string[]): ChildProcess {
    const child = spawn(process.execPath, [join(root, 'src/cli/main.ts'), ...args], { stdio: 'ignore' });
    this.#children.add(child);
    return child;
  }

  /** Checkpoints, lets the original die and restores it. @param between done while there is nothing but the image */
  async moveOn(pid: number, between?: () => unknown): Promise<void> {
    const saved = this.tideover('checkpoint', '-t', `${pid}`, '-D', this.image, '--file-locks');
    if (saved.status !== 0) throw new Error(`checkpoint: ${saved.stderr}`);
    await this.gone(pid);
    await between?.();
    const restored = this.tideover('restore', '-D', this.image, '-d', '--file-locks');
    if (restored.status !== 0) throw new Error(`restore: ${restored.stderr}`);
  }

  /** Ends what is left, and removes the folder. */
  async dispose(): Promise<void> {
    for (const pid of this.#pids) killTree(pid);
    for (const pid of runningFrom(this.folder)) killTree(pid);
    for (const child of this.#children) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    for (let i = 0; i < 5; i++) {
      try {
        rmSync(this.folder, { recursive: true, force: true });
        return;
      } catch {
        await setTimeout(50);
      }
    }
  }
}

/** Processes whose program is in a folder: also those that have lost the parent that was started. */
function runningFrom(folder: string): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/exe`).startsWith(`${folder}/`);
    } catch {
      return false;
    }
  });
}

/** Kills a process and all below it, if they are there. */
export function killTree(pid: number): void {
  let tasks: string;
  try {
    tasks = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  } catch {
    return;
  }
  for (const child of tasks.match(/\d+/g) ?? []) killTree(Number(child));
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended meanwhile.
  }
}

/**
 * Waits until nothing is left of what tideover made for itself, which ends when it has done what there is to do after the end of
 * tideover. It may be that of another test.
 */
export async function noneAbandoned(): Promise<void> {
  await until(
    () => abandoned().length === 0,
    () => `left behind: ${abandoned()}`,
  );
}

/** Processes that tideover made for itself and that somebody else has inherited. A zombie of them only waits for that one. */
function abandoned(): string[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => {
    try {
      if (field(pid, 'Name') !== 'memfd:tideover' || zombie(pid)) return false;
      const parent = readlinkSync(`/proc/${field(pid, 'PPid')}/exe`);
      return parent !== process.execPath && !parent.startsWith('/memfd:tideover');
    } catch {
      return false;
    }
  });
}

/** Ids of a process and of all below it, with their threads; of those that end meanwhile, none. */
export function idsBelow(pid: number): number[] {
  try {
    if (zombie(pid)) return [pid];
    return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
      const children = readFileSync(`/proc/${pid}/task/${tid}/children`, 'utf8').match(/\d+/g) ?? [];
      return [Number(tid), ...children.flatMap((child) => idsBelow(Number(child)))];
    });
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/** A line of /proc/ID/status. */
export function field(id: number | string, name: string): string {
  const status = readFileSync(`/proc/${id}/status`, 'utf8');
  return new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)![1]!;
}

export const zombie = (id: number | string) => field(id, 'State') === 'Z';

/** Waits until a process stands still: one that got its signal does when it has the processor next. */
export async function stopped(pid: number): Promise<void> {
  await until(() => field(pid, 'State') === 'T', `process ${pid} does not stop`);
}

/** Waits until nobody has these ids; init waits for orphans when it likes. */
export async function free(ids: readonly number[]): Promise<void> {
  const left = () => ids.filter((id) => existsSync(`/proc/${id}`));
  await until(
    () => left().length === 0,
    () => `still there: ${left().map((id) => `${id} ${field(id, 'State')} of ${field(id, 'PPid')}`)}`,
  );
}

/** Whether a process that was to be killed is still there. */
export const isEnding = (id: number) => existsSync(`/proc/${id}`) && isGoing(id);
