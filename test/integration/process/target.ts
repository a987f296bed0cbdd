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
  async says(text: string | RegExp, seconds = 120): Promise<string> {
    const deadline = performance.now() + 1000 * seconds;
    while (!(typeof text === 'string' ? this.log.includes(text) : text.test(this.log))) {
      if (performance.now() > deadline) throw new Error(`no ${text} in the log:\n${this.log}`);
      await setTimeout(10);
    }
    return this.log;
  }

  /** Waits until a process is gone, its zombie too. */
  async gone(pid: number): Promise<void> {
    for (let i = 0; existsSync(`/proc/${pid}`); i++) {
      if (i > 6000) throw new Error(`process ${pid} is still there`);
      await setTimeout(10);
    }
  }

  /** Runs tideover to its end. */
  tideover(...args: string[]): { status: number | null; stderr: string; stdout: string } {
    const { status, stderr, stdout } = spawnSync(process.execPath, [join(root, 'src/cli/main.ts'), ...args], {
      encoding: 'utf8',
      timeout: 300_000,
      killSignal: 'SIGKILL',
    });
    return { status, stderr, stdout };
  }

  /** The program, for shell(). */
  readonly node = process.execPath;
  readonly main = join(root, 'src/cli/main.ts');

  /** Runs a command line in the folder. */
  shell(line: string): void {
    execFileSync('sh', ['-c', line], { cwd: this.folder, stdio: ['ignore', 'ignore', 'pipe'], timeout: 300_000 });
  }

  /** Starts tideover. */
  begin(...args: string[]): ChildProcess {
    const child = spawn(process.execPath, [join(root, 'src/cli/main.ts'), ...args], { stdio: 'ignore' });
    this.#children.add(child);
    return child;
  }

  /** Checkpoints, lets the original die and restores it. @param between done while there is nothing but the image */
  async moveOn(pid: number, between?: () => void): Promise<void> {
    const saved = this.tideover('checkpoint', '-t', `${pid}`, '-D', this.image, '--file-locks');
    if (saved.status !== 0) throw new Error(`checkpoint: ${saved.stderr}`);
    await this.gone(pid);
    between?.();
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

/** Processes that tideover made for itself and that somebody else has inherited. A zombie of them only waits for init. */
export function abandoned(): string[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      return /^Name:\tmemfd:tideover$/m.test(status) && /^PPid:\t1$/m.test(status) && !/^State:\tZ/m.test(status);
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

/** Waits until nobody has these ids; init waits for orphans when it likes. */
export async function free(ids: readonly number[]): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (ids.some((id) => existsSync(`/proc/${id}`))) {
    const left = ids.filter((id) => existsSync(`/proc/${id}`));
    if (performance.now() > deadline) {
      throw new Error(`still there: ${left.map((id) => `${id} ${field(id, 'State')} of ${field(id, 'PPid')}`)}`);
    }
    await setTimeout(5);
  }
}
