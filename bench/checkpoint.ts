/**
 * How long programs stand still for a checkpoint, and are away between a checkpoint and their restore: ours beside CRIU's.
 *
 * TIDEOVER_CRIU is the CRIU to compare with, Debian's newest without it; TMPDIR is where images lie. Needs root.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { fetchCriu } from '../lab/criu.ts';
import { removeTemporary, temporaryFolder } from '../lab/temporary.ts';
import { openDirectory } from '../src/image/directory.ts';
import { readEntry } from '../src/image/file.ts';
import { withSource } from '../src/image/store.ts';
import { fileName, images } from '../src/image/types.ts';
import { type BenchResult, type Comparison, median } from './bench.ts';

export const name = 'checkpoint';
export const summary = 'how long programs stand still and are away, against CRIU';

const loads = [
  { kind: 'counter', count: 0, small: 0, rounds: 11, what: () => 'counter' },
  { kind: 'memory', count: 1024, small: 16, rounds: 5, what: (count: number) => `${count} MiB of random pages` },
  { kind: 'tree', count: 200, small: 10, rounds: 5, what: (count: number) => `tree of ${count} processes` },
  { kind: 'threads', count: 200, small: 10, rounds: 11, what: (count: number) => `${count} threads` },
] as const;

/** In ms. */
interface Times {
  /**
   * From the first thread that is stopped to the last that is let go or killed, as the tool says; for a program that is left running, and
   * for one that is killed.
   */
  readonly running: number;
  readonly killed: number;
  /** What the program saw: left running; killed and restored by a second command. */
  readonly stop: number;
  readonly outage: number;
}

/** Command lines of a tool. */
interface Tool {
  readonly leave: string;
  readonly kill: string;
  readonly restore: string;
  /** How long a checkpoint says that it took, in ms. */
  frozen(image: string, stdout: string): number;
}

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const folder = temporaryFolder();
  const program = join(folder, 'load');
  const source = new URL('programs/load.c', import.meta.url).pathname;
  execFileSync('gcc', ['-O2', '-Wall', '-pthread', '-o', program, source]);
  const own = new URL('../bin/tideover', import.meta.url).pathname;
  const criu = process.env.TIDEOVER_CRIU ?? (await fetchCriu()).command.join(' ');
  const tools: Record<'tideover' | 'CRIU', Tool> = {
    tideover: {
      leave: `${own} checkpoint -t $PID -D $IMAGE --leave-running --json`,
      kill: `${own} checkpoint -t $PID -D $IMAGE --json`,
      restore: `${own} restore -D $IMAGE -d`,
      // The image is complete before anything is killed, and cannot tell how long that took.
      frozen: (_, stdout) => (JSON.parse(stdout) as { frozen: number }).frozen,
    },
    CRIU: {
      leave: `${criu} dump -t $PID -D $IMAGE --leave-running`,
      kill: `${criu} dump -t $PID -D $IMAGE`,
      restore: `${criu} restore -D $IMAGE -d`,
      frozen: frozenTime,
    },
  };
  const place = await warmPlace();
  const comparisons: Comparison[] = [];
  try {
    for (const load of loads) {
      const count = small ? load.small : load.count;
      const times: Record<keyof typeof tools, Times[]> = { tideover: [], CRIU: [] };
      const moves: number[] = [];
      const [line, at] = [[program, load.kind, `${count}`], join(folder, 'at')];
      const tries = small ? 1 : TRIES;
      for (let round = 0; round < (small ? 1 : load.rounds); round++) {
        for (const tool of Object.keys(tools) as (keyof typeof tools)[]) {
          times[tool].push(await undisturbed(tries, () => measure(line, tools[tool], at, place.pid!)));
        }
        moves.push(await undisturbed(tries, () => move(line, own, at, place.pid!)));
      }
      const row = (measured: string, of: keyof Times, values = times.tideover.map((each) => each[of])): Comparison => {
        const ours = median(values);
        const theirs = median(times.CRIU.map((each) => each[of]));
        const what = `${load.what(count)}: ${measured}`;
        return { what, reference: 'CRIU', unit: 'ms', ours, theirs, ratio: ours / theirs };
      };
      const wanted = [
        row('frozen, left running', 'running'),
        row('frozen, killed', 'killed'),
        row('stop that it sees', 'stop'),
        row('outage, moved as a stream', 'outage', moves),
      ];
      comparisons.push(...wanted.map((each) => ({ ...each, goal: 1 })), row('outage, two commands', 'outage'));
    }
  } finally {
    place.kill();
    removeTemporary(folder);
  }
  const notes = [
    'medians; what a hypervisor disturbed is measured once more, and the less disturbed one counts',
    'frozen: from the first thread that is stopped to the last that is let go or killed: freezing_time and frozen_time of CRIU',
    'moved as a stream: checkpoint -D - | restore -D -, both started before; against two commands of CRIU',
    'two commands: checkpoint, then restore, whose Node starts when the program is gone already. It shows what that start costs (bench startup) and has no goal',
  ];
  return { comparisons, notes };
}

const TRIES = 2;

/** What was measured while a hypervisor took least of the processors, for both tools alike: at once where it took none. */
async function undisturbed<T>(tries: number, measured: () => Promise<T>): Promise<T> {
  let best: { value: T; stolen: number } | undefined;
  for (let left = tries; left > 0 && best?.stolen !== 0; left--) {
    const before = stolen();
    const value = await measured();
    const now = stolen() - before;
    if (best === undefined || now < best.stolen) best = { value, stolen: now };
  }
  return best!.value;
}

/** Ticks of a hundredth of a second that a hypervisor took since the start. proc_stat(5) */
function stolen(): number {
  return Number(/^cpu +(?:\d+ +){7}(\d+)/.exec(readFileSync('/proc/stat', 'latin1'))![1]);
}

/**
 * A mount namespace in which /run is a tmpfs: CRIU keeps there what it has found out about the kernel, and asks it all anew at
 * each start where it cannot.
 */
export async function warmPlace(): Promise<ChildProcess> {
  const command = 'mount -t tmpfs none /run && echo ready && exec sleep infinity';
  const place = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', command], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve, reject) => place.stdout!.once('data', resolve).once('end', reject));
  return place;
}

/** Waits until all that was killed is reaped: CRIU does not wait for process ids to be free. */
const gone = 'while read -r left </proc/$KEEPER/task/$KEEPER/children; [ -n "$left" ]; do :; done';

/** A program that runs, and its folder. */
interface Running {
  readonly keeper: ChildProcess;
  readonly folder: string;
  readonly report: string;
  readonly inside: readonly string[];
  /** Its root. */
  pid: number;
}

async function start(program: readonly string[], folder: string, place: number): Promise<Running> {
  mkdirSync(folder);
  const report = join(folder, 'report');
  const inside = ['--mount', '-t', `${place}`];
  const [file, kind, count, ...own] = program;
  const line = [...inside, '--', file!, kind!, count!, report, ...own];
  const keeper = spawn('nsenter', line, { stdio: ['ignore', 'pipe', 'inherit'] });
  const running = { keeper, folder, report, inside, pid: 0 };
  try {
    const [first] = await new Promise<string[]>((resolve) =>
      keeper.stdout.once('data', (text) => resolve(`${text}`.split('\n'))),
    );
    running.pid = Number(first);
    await reported(report);
    await setTimeout(50);
    await ask(running);
    return running;
  } catch (error) {
    await end(running);
    throw error;
  }
}

async function end({ keeper, folder, pid }: Running): Promise<void> {
  if (pid > 0) await ended(pid);
  keeper.kill();
  rmSync(folder, { recursive: true });
}

/** The longest gap since it was asked last, in ms. */
async function ask({ pid, report }: Running): Promise<number> {
  rmSync(report);
  process.kill(pid, 'SIGUSR1');
  return reported(report);
}

/** @returns its standard output */
async function shell({ inside, pid, keeper }: Running, command: string, image: string): Promise<string> {
  mkdirSync(image, { recursive: true });
  const env = { ...process.env, PID: `${pid}`, KEEPER: `${keeper.pid}`, IMAGE: image };
  return (await promisify(execFile)('nsenter', [...inside, '--', 'sh', '-c', command], { env })).stdout;
}

/** One program from its start to its end. */
async function measure(program: readonly string[], tool: Tool, folder: string, place: number): Promise<Times> {
  const running = await start(program, folder, place);
  try {
    const [first, second] = [join(folder, 'first'), join(folder, 'second')];
    const left = await shell(running, tool.leave, first);
    await setTimeout(20);
    const stop = await ask(running);
    const killed = await shell(running, `${tool.kill} && ${gone} && ${tool.restore}`, second);
    await setTimeout(20);
    const outage = await ask(running);
    return { running: tool.frozen(first, left), killed: tool.frozen(second, killed), stop, outage };
  } finally {
    await end(running);
  }
}

/** The outage of a program that goes from one tideover to another one. */
async function move(program: readonly string[], own: string, folder: string, place: number): Promise<number> {
  const running = await start([...program, 'own'], folder, place);
  try {
    const to = join(folder, 'to');
    await shell(running, `${own} checkpoint -t $PID -D - | ${own} restore -D - -d --pidfile $IMAGE/pid`, to);
    running.pid = Number(readFileSync(join(to, 'pid'), 'latin1'));
    await setTimeout(20);
    return await ask(running);
  } finally {
    await end(running);
  }
}

/** Waits for a report. @returns the longest gap in ms */
async function reported(report: string): Promise<number> {
  for (let waited = 0; waited < 60_000; waited += 2) {
    const text = existsSync(report) && statSync(report).size > 0 ? readFileSync(report, 'latin1') : '';
    const [, gap, ok] = /^gap=(\d+) ok=(\d)\n$/.exec(text) ?? [];
    if (ok === '0') throw new Error('the program is not what it was');
    if (gap !== undefined) return Number(gap) / 1000;
    await setTimeout(2);
  }
  throw new Error('the program does not report');
}

async function ended(pid: number): Promise<void> {
  try {
    process.kill(pid, 'SIGTERM');
  } catch {
    return;
  }
  const runs = () => !/^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  while (existsSync(`/proc/${pid}`) && runs()) await setTimeout(2);
}

/**
 * How long programs stood still, by the statistics of an image: CRIU's `frozen_time` begins when the last thread has stopped, and
 * `freezing_time` when the first one is asked to.
 *
 * @returns ms
 */
export function frozenTime(image: string): number {
  const store = openDirectory(image);
  const stats = withSource(store, fileName(images.STATS, 'dump'), (source) => readEntry(source, images.STATS));
  return (stats.dump!.freezing_time + stats.dump!.frozen_time) / 1000;
}
