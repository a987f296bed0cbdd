/** Workloads with real processes: started, kept through a checkpoint, and looked at. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { AT_FDCWD, O_NOCTTY, O_RDWR } from '../../../src/abi/fcntl.ts';
import { TIOCGPTPEER, TIOCSPTLCK, TIOCSWINSZ } from '../../../src/abi/termios.ts';
import { ioctl, openat } from '../../../src/sys/files.ts';
import { readStatus } from '../../../src/sys/stat.ts';
import { takeTurn } from '../../../src/update/turn.ts';
import {
  findWorkload,
  forgetWorkload,
  holdWorkload,
  logOf,
  nodeOfWorkload,
  preservedCheckpoint,
  releaseWorkload,
} from '../../../src/update/workload.ts';
import { rootTest as test } from '../root.ts';

const main = new URL('../../../src/cli/main.ts', import.meta.url).pathname;
let count = 0;

/** A workload with a name of its own, and its own preserved memory in a file. */
class Bench {
  readonly name = `test-${process.pid}-${++count}`;
  readonly folder = mkdtempSync(join(tmpdir(), 'tideover-run-'));
  readonly environment = { ...process.env, TIDEOVER_PKRAM: join(this.folder, 'pkram'), NOTIFY_SOCKET: undefined };
  readonly node = `pkram:${nodeOfWorkload(this.name)}`;

  tideover(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    const options = { encoding: 'utf8', timeout: 120_000, killSignal: 'SIGKILL', env: this.environment } as const;
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], options);
    return { status, stdout, stderr };
  }

  done(...args: string[]): string {
    const { status, stdout, stderr } = this.tideover(...args);
    assert.equal(status, 0, `tideover ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  begin(args: readonly string[], stdio: 'pipe' | (number | 'pipe')[] = 'pipe'): ChildProcess {
    return spawn(process.execPath, [main, ...args], { stdio, env: this.environment });
  }

  get pid(): number | undefined {
    return findWorkload(this.name)?.pid;
  }

  get log(): string {
    return existsSync(logOf(this.name)) ? readFileSync(logOf(this.name), 'utf8') : '';
  }

  async says(text: string | RegExp): Promise<string> {
    while (!(typeof text === 'string' ? this.log.includes(text) : text.test(this.log))) await setTimeout(10);
    return this.log;
  }

  /** Checkpoints it into its node, which ends it. */
  async save(): Promise<void> {
    const pid = this.pid!;
    // It writes to its log all the time, for which a busy disk may take long.
    this.done('checkpoint', '-t', `${pid}`, '-D', this.node, '--timeout', '60');
    while (existsSync(`/proc/${pid}`)) await setTimeout(5);
    assert.equal(this.pid, undefined);
  }

  async dispose(): Promise<void> {
    const { pid } = this;
    if (pid !== undefined) {
      process.kill(pid, 'SIGKILL');
      while (this.pid !== undefined) await setTimeout(5);
    }
    forgetWorkload(this.name);
    rmSync(logOf(this.name), { force: true });
    rmSync(`/run/tideover/turns/${this.name}`, { force: true });
    rmSync(this.folder, { recursive: true });
  }
}

function bench(t: TestContext): Bench {
  const made = new Bench();
  t.after(() => made.dispose());
  return made;
}

const COUNTER =
  'echo "ids $$ $(cut -d" " -f4 /proc/self/stat)"; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done';

/** What a counter says: each number once, in turn. @returns the last */
function counted(log: string): number {
  const numbers = log
    .split('\n')
    .filter((line) => /^\d+$/.test(line))
    .map(Number);
  assert.deepEqual(
    numbers,
    numbers.map((_, i) => i + 1),
  );
  return numbers.at(-1) ?? 0;
}

test('run NAME again goes on from its checkpoint, with the same ids in its namespace, twice', async (t) => {
  const work = bench(t);
  work.done('run', '-d', work.name, '--', 'sh', '-c', COUNTER);
  const first = work.pid!;
  assert.deepEqual(readStatus(first).NSpid.slice(1), [1]);
  assert.match(readFileSync(`/proc/${first}/cgroup`, 'utf8'), new RegExp(`^0::/.*tideover/${work.name}$`, 'm'));
  await work.says(/\n5\n/);
  for (const round of [1, 2]) {
    await work.save();
    const before = counted(work.log);
    const said = JSON.parse(work.done('run', '-d', work.name, '--json', '--', 'sh', '-c', COUNTER));
    assert.deepEqual(said, { name: work.name, pid: work.pid, log: logOf(work.name), restored: work.node }, `${round}`);
    await work.says(new RegExp(`\n${before + 5}\n`));
    counted(work.log);
    assert.match(readFileSync(`/proc/${work.pid}/cgroup`, 'utf8'), new RegExp(`^0::/.*tideover/${work.name}$`, 'm'));
    const [child] = readFileSync(`/proc/${work.pid}/task/${work.pid}/children`, 'utf8').trim().split(' ');
    assert.deepEqual(readStatus(Number(child)).NSpid.slice(1), [2]);
    // The node is gone: it goes on once.
    assert.doesNotMatch(work.done('pkram', 'ls'), new RegExp(work.name));
  }
  assert.equal(work.log.match(/^ids 2 /gm)!.length, 1);
});

/** MiB of a program that checks its memory when it ends: more than is restored at once. */
const LARGE = 140;

/** A workload that writes its memory all the time, preserved. */
async function saveLarge(t: TestContext): Promise<Bench> {
  const work = bench(t);
  const program = join(work.folder, 'large');
  execFileSync('gcc', ['-O1', '-o', program, new URL('../process/programs/large.c', import.meta.url).pathname]);
  work.done('run', '-d', work.name, '--', program, `${LARGE}`);
  await work.says('ready');
  await work.save();
  return work;
}

/** Processes that bring its memory. */
function bringers({ name }: Bench): number[] {
  const isOne = (pid: string) => {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
      return line.includes('bring') && line.includes(name);
    } catch {
      return false;
    }
  };
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && isOne(pid))
    .map(Number);
}

test('a large one goes on before its memory is there; its checkpoint goes when it is', async (t) => {
  const work = await saveLarge(t);
  const { status, stdout } = work.tideover('run', '-d', work.name, '--json');
  assert.equal(status, 0);
  const { pid, restored } = JSON.parse(stdout);
  assert.deepEqual([pid, restored], [work.pid, work.node]);
  while (bringers(work).length > 0) await setTimeout(10);
  assert.doesNotMatch(work.done('pkram', 'ls'), new RegExp(work.name));
  process.kill(pid, 'SIGTERM');
  assert.match(await work.says(/ok\n|faults\n/), /ok\n$/);
});

test('kill -9 of what brings its memory: it goes on, or is ended, and its checkpoint stays and says so', async (t) => {
  const work = await saveLarge(t);
  let ended = 0;
  let before = '';
  for (const after of [0, 0, 10]) {
    const run = work.begin(['run', '-d', '--on-failure', 'fail', work.name]);
    const exited = once(run, 'exit');
    const note = () => readFileSync(`/run/tideover/turns/${work.name}`, 'utf8');
    while (note() === before || !note().includes('"later":true')) await setTimeout(1);
    before = note();
    await setTimeout(after);
    for (const pid of bringers(work)) process.kill(pid, 'SIGKILL');
    await exited;
    while (bringers(work).length > 0) await setTimeout(5);
    // Decided when the guard is gone.
    const { killed } = turnOf(work);
    assert.equal(isFound(work), work.pid === undefined, `${killed}`);
    if (work.pid !== undefined) await work.save();
    if (killed === undefined) continue;
    ended++;
    assert.match(killed, /killed before all pages were there/);
    const { stderr } = work.tideover('run', '-d', work.name, '--', 'sleep', '1000');
    assert.match(stderr, /is left alone, as it could not be restored: .* killed before all pages/);
    process.kill(work.pid!, 'SIGKILL');
    while (work.pid !== undefined) await setTimeout(5);
  }
  t.diagnostic(`${ended} times it was ended`);
  work.done('run', '-d', '--on-failure', 'fail', work.name);
  while (bringers(work).length > 0) await setTimeout(10);
  process.kill(work.pid!, 'SIGTERM');
  assert.match(await work.says(/ok\n|faults\n/), /ok\n$/);
});

test('one that runs, is held, or has no command is refused', async (t) => {
  const work = bench(t);
  const refused = (why: RegExp, ...command: string[]) => {
    const { status, stderr } = work.tideover('run', '-d', work.name, ...command);
    assert.equal(status, 3, stderr);
    assert.match(stderr, why);
  };
  refused(/nothing of it is preserved/);
  refused(/no such program/, '--', '/nonexistent/program');
  refused(/no such program/, '--', 'tideover-has-no-such-program');
  holdWorkload(work.name);
  refused(/taken to the next kernel/, '--', 'true');
  releaseWorkload(work.name);
  work.done('run', '-d', work.name, '--', 'sleep', '1000');
  refused(/runs already, as process/, '--', 'true');
});

test('a checkpoint that cannot be restored: fail, or start anew and leave it alone', async (t) => {
  const work = bench(t);
  work.done('run', '-d', work.name, '--', 'sh', '-c', COUNTER);
  await work.says(/\n3\n/);
  await work.save();
  const log = logOf(work.name);
  const left = statSync(log, { bigint: true });
  // In its place, as large as it was: what a process has read of it may be otherwise now.
  writeFileSync(log, readFileSync(log));
  const written = work.tideover('run', '-d', work.name, '--on-failure', 'fail', '--', 'true');
  assert.equal(written.status, 3);
  assert.match(written.stderr, /file .*: it was written to since: last at 2.*; tideover restore takes it as it is/);
  assert.equal(statSync(log, { bigint: true }).ino, left.ino);
  appendFileSync(log, 'somebody else wrote into it\n');
  const failed = work.tideover('run', '-d', work.name, '--on-failure', 'fail', '--', 'true');
  assert.equal(failed.status, 3);
  assert.match(failed.stderr, /bytes and has/);
  assert.equal(work.pid, undefined);
  const started = work.tideover('run', '-d', work.name, '--', 'sh', '-c', 'echo anew; sleep 1000');
  assert.equal(started.status, 0);
  assert.match(started.stderr, /CANNOT GO ON.*bytes and has/);
  await work.says('anew');
  assert.match(work.done('pkram', 'ls'), new RegExp(work.name));
  // Nor is it restored behind the back of what was started meanwhile.
  process.kill(work.pid!, 'SIGKILL');
  while (work.pid !== undefined) await setTimeout(5);
  const again = work.tideover('run', work.name, '--', 'echo', 'a third time');
  assert.equal(again.status, 0);
  assert.match(again.stderr, /is left alone/);
  assert.equal(again.stdout, 'a third time\n');
});

test('preserved memory that cannot be read stops nobody from starting, and what it has is not restored behind his back', async (t) => {
  const work = bench(t);
  work.done('run', '-d', work.name, '--', 'sh', '-c', COUNTER);
  await work.says(/\n3\n/);
  await work.save();
  const file = work.environment.TIDEOVER_PKRAM;
  const whole = readFileSync(file);
  writeFileSync(file, Buffer.from(whole).fill(0xff, 0, 128 << 10));
  const failed = work.tideover('run', '-d', work.name, '--on-failure', 'fail', '--', 'true');
  assert.equal(failed.status, 3);
  assert.match(failed.stderr, /cannot be read/);
  const started = work.tideover('run', '-d', work.name, '--', 'sleep', '1000');
  assert.equal(started.status, 0, started.stderr);
  assert.match(started.stderr, /cannot be read.*HAS A CHECKPOINT/s);
  process.kill(work.pid!, 'SIGKILL');
  while (work.pid !== undefined) await setTimeout(5);
  writeFileSync(file, whole);
  const again = work.tideover('run', work.name, '--', 'echo', 'a third time');
  assert.match(again.stderr, /is left alone/);
  assert.equal(again.stdout, 'a third time\n');
});

/** Ends this process at a point of `tideover run`: as the note is made, when it is written, before the checkpoint is removed. */
const KILLED = `
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
const [point, source, ...args] = process.argv.slice(1);
const die = () => process.kill(process.pid, 'SIGKILL');
const { writeSync } = fs;
fs.writeSync = (fd, data) => {
  const isNote = typeof data === 'string' && data.includes('"from"');
  if (isNote && point === 'before') die();
  const written = writeSync(fd, data);
  if (isNote && point === 'written') die();
  return written;
};
syncBuiltinESMExports();
const { Pkram } = await import(source + '/pkram/pkram.ts');
const { remove } = Pkram.prototype;
Pkram.prototype.remove = function (...of) {
  if (point === 'remove') die();
  return remove.apply(this, of);
};
process.argv.splice(1, process.argv.length, source + '/cli/main.ts', ...args);
await import(source + '/cli/main.ts');
`;

/** Waits until nobody else has its turn. */
function turnOf({ name, environment }: Bench): { killed: string | undefined } {
  using turn = takeTurn({
    name,
    node: nodeOfWorkload(name),
    place: { kind: 'file', path: environment.TIDEOVER_PKRAM },
  });
  return { killed: turn.killed };
}

/** Whether there is a checkpoint, when whoever was killed leaves it alone for certain. */
function isFound({ name, environment }: Bench): boolean {
  const place = { kind: 'file', path: environment.TIDEOVER_PKRAM } as const;
  using _ = takeTurn({ name, node: nodeOfWorkload(name), place });
  return preservedCheckpoint(place, name) !== undefined;
}

test('kill -9 of run before, in and after the moment when it goes on: its checkpoint is there, there, and not', async (t) => {
  const work = bench(t);
  work.done('run', '-d', work.name, '--', 'sh', '-c', COUNTER);
  await work.says(/\n3\n/);
  await work.save();
  const source = new URL('../../../src', import.meta.url).pathname;
  for (const [point, goesOn] of [
    ['before', false],
    ['written', false],
    ['remove', true],
  ] as const) {
    const run = ['--input-type=module', '-e', KILLED, point, source, 'run', '-d', work.name];
    const { signal, stderr } = spawnSync(process.execPath, run, { encoding: 'utf8', env: work.environment });
    assert.equal(signal, 'SIGKILL', `${point}: ${stderr}`);
    assert.equal(isFound(work), !goesOn, point);
    assert.equal(work.pid !== undefined, goesOn, point);
  }
  assert.match(work.tideover('run', '-d', work.name).stderr, /runs already, as process/);
  await work.says(new RegExp(`\n${counted(work.log) + 3}\n`));
  counted(work.log);
  // Where it ends now it does not begin again from there.
  process.kill(work.pid!, 'SIGKILL');
  while (work.pid !== undefined) await setTimeout(5);
  assert.match(work.tideover('run', '-d', work.name).stderr, /nothing of it is preserved/);
});

const KILLS = process.env.TIDEOVER_FULL ? 100 : 6;

test(`kill -9 at ${KILLS} moments of run: it goes on, or its checkpoint is there`, async (t) => {
  const work = bench(t);
  work.done('run', '-d', work.name, '--', 'sh', '-c', 'sleep 1000 & sleep 1000');
  await work.save();
  const started = performance.now();
  work.done('run', '-d', work.name);
  const duration = performance.now() - started;
  await work.save();
  let ran = 0;
  for (let round = 0; round < KILLS; round++) {
    const child = work.begin(['run', '-d', work.name]);
    const ended = once(child, 'exit');
    await setTimeout(duration * (0.5 + (0.7 * round) / KILLS));
    child.kill('SIGKILL');
    await ended;
    const found = isFound(work);
    assert.equal(work.pid === undefined, found);
    if (found) continue;
    ran++;
    await work.save();
  }
  t.diagnostic(`${ran} times it ran, ${KILLS - ran} times it waited`);
  work.done('run', '-d', work.name);
});

test('of several at once one goes on from the checkpoint, and the others say that it runs', async (t) => {
  const work = bench(t);
  work.done('run', '-d', work.name, '--', 'sh', '-c', COUNTER);
  await work.says(/\n3\n/);
  await work.save();
  const runs = [1, 2, 3].map(() => work.begin(['run', '-d', work.name]));
  const said = await Promise.all(
    runs.map(async (child) => {
      let stderr = '';
      child.stderr!.on('data', (data) => {
        stderr += data;
      });
      const [code] = await once(child, 'close');
      return { code, stderr };
    }),
  );
  assert.deepEqual(said.map(({ code }) => code).sort(), [0, 3, 3], JSON.stringify(said));
  for (const { code, stderr } of said) if (code !== 0) assert.match(stderr, /runs already/);
  const before = counted(work.log);
  await work.says(new RegExp(`\n${before + 5}\n`));
  counted(work.log);
});

test('in the foreground: output, exit code and signals', async (t) => {
  const work = bench(t);
  const { status, stdout } = work.tideover('run', work.name, '--', 'sh', '-c', 'seq 3; exit 42');
  assert.deepEqual([status, stdout], [42, '1\n2\n3\n']);
  const child = work.begin([
    'run',
    work.name,
    '--',
    'sh',
    '-c',
    'trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.01; done',
  ]);
  await work.says('ready');
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [9, null]);
  assert.match(work.log, /caught\n$/);
});

test('a terminal: typed into from another one, left, kept, and typed into again', async (t) => {
  const work = bench(t);
  const shell = ['env', 'PS1=', 'bash', '--norc', '--noprofile', '--noediting', '-i'];
  work.done('run', '-dt', work.name, '--', ...shell);
  const user = new User(work);
  t.after(() => user.dispose());
  user.type('x=kept; echo in $(tty) by $$; stty size\n');
  await work.says(/in \/dev\/pts\/\d+ by 2\r\n33 99\r\n/);
  await user.leave();
  await work.save();
  work.done('run', '-d', work.name);
  const later = new User(work);
  t.after(() => later.dispose());
  later.type('echo still $x by $$; exit 7\n');
  await work.says('still kept by 2\r\n');
  assert.deepEqual(await once(later.child, 'exit'), [0, null]);
  assert.equal(work.pid, undefined);
});

/** Somebody who runs tideover attach in a terminal of 33 lines and 99 columns. */
class User {
  readonly child: ChildProcess;
  readonly #master: number;

  constructor(work: Bench) {
    this.#master = openat({ dirfd: AT_FDCWD, pathname: '/dev/ptmx', flags: O_RDWR | O_NOCTTY, mode: 0 });
    ioctl({ fd: this.#master, request: TIOCSPTLCK, arg: new Uint8Array(4) });
    const slave = ioctl({ fd: this.#master, request: TIOCGPTPEER, arg: O_RDWR | O_NOCTTY });
    ioctl({ fd: slave, request: TIOCSWINSZ, arg: Uint8Array.of(33, 0, 99, 0, 0, 0, 0, 0) });
    this.child = work.begin(['attach', work.name], [slave, slave, slave]);
    closeSync(slave);
  }

  type(text: string): void {
    writeSync(this.#master, text);
  }

  async leave(): Promise<void> {
    this.type('\x1c');
    assert.deepEqual(await once(this.child, 'exit'), [0, null]);
  }

  dispose(): void {
    this.child.kill('SIGKILL');
    closeSync(this.#master);
  }
}
