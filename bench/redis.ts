/**
 * redis with a gigabyte of keys: how long it stands still for a checkpoint, whole and after a pre-dump, and how soon it answers
 * after the restore, with its memory and without waiting for it. Ours beside CRIU's. What brings the pages is started before, as CRIU's
 * has to be. Where the kernel has no soft-dirty bits CRIU has no pre-dump, and what is compared with is its whole dump.
 *
 * TIDEOVER_CRIU is the CRIU to compare with, Debian's newest without it; TMPDIR is where images lie. Needs root.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { fetchCriu } from '../lab/criu.ts';
import { fetchPrograms } from '../lab/fetched.ts';
import { removeTemporary, temporaryFolder } from '../lab/temporary.ts';
import { type BenchResult, type Comparison, median } from './bench.ts';
import { frozenTime, warmPlace } from './checkpoint.ts';

export const name = 'redis';
export const summary = 'redis with a gigabyte of keys: pre-dump and lazy pages, against CRIU';

const VALUE = 1024;
/** Descriptors that this process got from whoever started it are not redis's business. */
const ALONE = `python3 -c 'import os, sys; os.closerange(3, 65536); os.execvp(sys.argv[1], sys.argv[1:])'`;
/** What brings the pages waits for the restore by then, in ms. */
const LAZY_START = 500;
/** Keys that are written between a pre-dump and the checkpoint. */
const CHANGED = 1000;

/** Command lines of a tool; `lazy` goes before `lazyRestore`, and ends by itself. */
interface Tool {
  readonly preDump: string | undefined;
  readonly dump: string;
  readonly restore: string;
  readonly lazy: string;
  readonly lazyRestore: string;
}

/** In ms. */
interface Times {
  readonly frozen: number;
  readonly outage: number;
  readonly frozenAfter: number;
  readonly answer: number;
  readonly lazyAnswer: number;
  /** Of the restore without keys: what it takes whatever the size. */
  readonly emptyAnswer: number;
}

/** What a restore with lazy pages may take longer than one of redis without keys, in ms. */
const LAZY_GOAL = 50;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const keys = ((small ? 16 : 1024) * (1024 * 1024)) / VALUE;
  const folder = temporaryFolder();
  const redis = (await fetchPrograms('redis-server', 'redis-tools')).command('usr/bin/redis-check-rdb');
  const own = new URL('../bin/tideover', import.meta.url).pathname;
  const criu = process.env.TIDEOVER_CRIU ?? (await fetchCriu()).command.join(' ');
  const place = await warmPlace();
  const within = (line: string) =>
    promisify(execFile)('nsenter', ['--mount', '-t', `${place.pid}`, '--', 'sh', '-c', line]);
  const tracks = await within(`${criu} check --feature mem_dirty_track`).then(
    () => true,
    () => false,
  );
  const tools: Record<'tideover' | 'CRIU', Tool> = {
    tideover: {
      preDump: `${own} pre-dump -q -t $PID -D $IMAGE/1`,
      dump: `${own} checkpoint -q -t $PID -D $IMAGE/2`,
      restore: `${own} restore -q -D $IMAGE/2 -d`,
      lazy: `${own} lazy-pages -q -D $IMAGE/2`,
      lazyRestore: `while [ ! -S $IMAGE/2/lazy-pages.socket ]; do :; done; ${own} restore -q -D $IMAGE/2 -d --lazy-pages`,
    },
    CRIU: {
      preDump: tracks ? `${criu} pre-dump -t $PID -D $IMAGE/1` : undefined,
      dump: `${criu} dump${tracks ? ' --track-mem' : ''} -t $PID -D $IMAGE/2`,
      restore: `${criu} restore -D $IMAGE/2 -d`,
      lazy: `${criu} lazy-pages -D $IMAGE/2`,
      lazyRestore: `while [ ! -S $IMAGE/2/lazy-pages.socket ]; do :; done; ${criu} restore -D $IMAGE/2 -d --lazy-pages`,
    },
  };
  const times: Record<keyof typeof tools, Times[]> = { tideover: [], CRIU: [] };
  try {
    for (let round = 0; round < (small ? 1 : 3); round++) {
      for (const tool of Object.keys(tools) as (keyof typeof tools)[]) {
        times[tool].push(await measure(redis, tools[tool], { keys, folder: join(folder, 'at'), place: place.pid! }));
      }
    }
  } finally {
    place.kill();
    removeTemporary(folder);
  }
  const compare = (what: string, of: keyof Times, reference = 'CRIU'): Comparison => {
    const [ours, theirs] = [times.tideover, times.CRIU].map((each) => median(each.map((one) => one[of]))) as [
      number,
      number,
    ];
    return {
      what: `${(keys * VALUE) / 2 ** 20} MiB: ${what}`,
      reference,
      unit: 'ms',
      ours,
      theirs,
      ratio: ours / theirs,
      goal: 1,
    };
  };
  const beyond = median(times.tideover.map(({ lazyAnswer, emptyAnswer }) => lazyAnswer - emptyAnswer));
  return {
    comparisons: [
      compare('frozen, killed', 'frozen'),
      compare('outage to the first answer', 'outage'),
      compare('frozen, killed after a pre-dump', 'frozenAfter', tracks ? 'CRIU' : 'CRIU, whole'),
      compare('restore to the first answer', 'answer'),
      compare('restore with lazy pages to the first answer', 'lazyAnswer'),
      {
        what: `${(keys * VALUE) / 2 ** 20} MiB: the same, beyond the restore without keys`,
        ...{ reference: 'goal', unit: 'ms', ours: beyond, theirs: LAZY_GOAL, ratio: beyond / LAZY_GOAL, goal: 1 },
      },
    ],
  };
}

/** One redis through all of it. */
async function measure(
  redis: readonly string[],
  tool: Tool,
  { keys, folder, place }: { keys: number; folder: string; place: number },
): Promise<Times> {
  mkdirSync(folder);
  const port = await freePort();
  const images = join(folder, 'images');
  const start = (line: string, pid = 0) =>
    spawn('nsenter', ['--mount', '-t', `${place}`, '--', 'sh', '-c', line], {
      env: { ...process.env, PID: `${pid}`, IMAGE: images },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  const shell = async (line: string, pid = 0): Promise<void> => {
    const child = start(line, pid);
    let said = '';
    child.stderr.on('data', (text) => (said += text));
    const code = await new Promise((resolve) => child.once('close', resolve));
    if (code !== 0) throw new Error(`${line}: ${code}\n${said}`);
  };
  // What one tool has left to be written to the disk is not to be waited for by the other.
  const fresh = async () => {
    rmSync(images, { recursive: true, force: true });
    for (const each of ['1', '2']) mkdirSync(join(images, each), { recursive: true });
    await promisify(execFile)('sync', ['-f', images]);
  };
  let pid = 0;
  try {
    const server = [...redis.slice(0, -1), redis.at(-1)!.replace('check-rdb', 'server')].join(' ');
    const options = `--port ${port} --daemonize yes --pidfile ${folder}/pid --dir ${folder} --save '' --enable-debug-command yes`;
    await shell(`${ALONE} ${server} ${options}`);
    await ask(port, 'PING');
    pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
    const gone = async () => {
      while (existsSync(`/proc/${pid}`)) await setTimeout(1);
    };
    /** Until it answers. */
    const timed = async (line: string, question: string, lazy?: string): Promise<number> => {
      const daemon = lazy === undefined ? undefined : start(lazy);
      const ended = daemon && new Promise((resolve) => daemon.once('exit', resolve));
      if (daemon !== undefined) await setTimeout(LAZY_START);
      const before = performance.now();
      const restoring = shell(line);
      await ask(port, question);
      const took = performance.now() - before;
      await restoring;
      await ended;
      return took;
    };
    await fresh();
    await shell(tool.dump, pid);
    await gone();
    const emptyAnswer = await timed(tool.restore, 'PING');
    await ask(port, `DEBUG POPULATE ${keys} key ${VALUE}`);
    const question = `GET key:${keys >> 1}`;
    await fresh();
    const dumping = performance.now();
    await shell(tool.dump, pid);
    const dumped = performance.now() - dumping;
    const frozen = frozenTime(join(images, '2'));
    await gone();
    const answer = await timed(tool.restore, question);
    await fresh();
    if (tool.preDump !== undefined) await shell(tool.preDump, pid);
    await ask(port, `DEBUG POPULATE ${CHANGED} changed ${VALUE}`);
    await shell(`${tool.dump}${tool.preDump === undefined ? '' : ' --prev-images-dir ../1'}`, pid);
    const frozenAfter = frozenTime(join(images, '2'));
    await gone();
    const lazyAnswer = await timed(tool.lazyRestore, question, tool.lazy);
    if ((await ask(port, 'DBSIZE')) !== `:${keys + CHANGED}\r\n`) throw new Error('keys are missing');
    return { frozen, outage: Math.min(frozen, dumped) + answer, frozenAfter, answer, lazyAnswer, emptyAnswer };
  } finally {
    if (pid > 0) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended.
      }
    }
    // What brings its pages ends with it.
    for (let i = 0; i < 100 && existsSync(folder); i++) {
      try {
        rmSync(folder, { recursive: true, force: true });
      } catch {
        await setTimeout(10);
      }
    }
  }
}

/** Asks redis, again and again until it is there. @returns what it answers */
async function ask(port: number, line: string): Promise<string> {
  for (let left = 60_000; ; left--) {
    try {
      return await once(port, line);
    } catch (error) {
      if (left === 0) throw error;
      await setTimeout(1);
    }
  }
}

function once(port: number, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(port, '127.0.0.1');
    let answer = '';
    socket.once('connect', () => socket.write(`${line}\r\n`));
    socket.on('data', (text) => {
      answer += text;
      if (!answer.endsWith('\r\n') || (answer.startsWith('$') && answer.indexOf('\r\n') === answer.length - 2)) return;
      socket.destroy();
      if (answer.startsWith('-')) reject(new Error(answer));
      else resolve(answer);
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed')));
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
