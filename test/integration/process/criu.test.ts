/** CRIU restores what tideover saved, and tideover what CRIU did: programs that check themselves go on in both directions. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, type TestContext } from 'node:test';
import { type Criu, fetchCriu } from '../../../lab/criu.ts';
import { openDirectory } from '../../../src/image/directory.ts';
import { storeToJson } from '../../../src/image/json.ts';
import { MemoryStore } from '../../../src/image/store.ts';
import { isRaw, typeOfFile } from '../../../src/image/types.ts';
import { until } from '../patience.ts';
import { isRoot, rootTest as test } from '../root.ts';
import { Bench, field, free, idsBelow, killTree } from './target.ts';

let debian: Criu;

before(async () => {
  if (isRoot) debian = await fetchCriu();
});

const OPTIONS = ['--file-locks', '--ghost-limit', '1M', '-v4'];

/** Runs CRIU; its log says why it fails. */
function criu(target: Bench, what: 'dump' | 'restore', ...args: string[]): void {
  const log = join(target.folder, `${what}.log`);
  try {
    debian.criu(what, '-D', target.image, '-o', log, ...OPTIONS, ...args);
  } catch (error) {
    throw new Error(
      `criu ${what}: ${readFileSync(log, 'latin1')
        .match(/^.*(Error|Warn).*$/gm)
        ?.join('\n')}`,
      { cause: error },
    );
  }
}

const tideover = {
  save(target: Bench, pid: number) {
    const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--file-locks');
    assert.equal(status, 0, stderr);
  },
  restore(target: Bench) {
    const { status, stderr } = target.tideover('restore', '-D', target.image, '-d', '--file-locks');
    assert.equal(status, 0, stderr);
  },
};

const byCriu = {
  save(target: Bench, pid: number) {
    mkdirSync(target.image);
    criu(target, 'dump', '-t', `${pid}`);
  },
  restore: (target: Bench) => criu(target, 'restore', '-d'),
};

type Tool = typeof tideover;

async function move(t: TestContext, saver: Tool, restorer: Tool, file: string, args: string[]): Promise<string> {
  const target = Bench.of(t);
  const pid = target.start(file.endsWith('3') ? file : target.compile(file), args);
  await target.says('ready');
  const ids = idsBelow(pid);
  saver.save(target, pid);
  await free(ids);
  restorer.restore(target);
  await waiting(ids);
  process.kill(pid, 'SIGTERM');
  return target.says(/ok\n|faults\n/);
}

/**
 * Waits until all threads that are not stopped have made the system call again in which they were. A signal that comes before would have its handler run
 * first, and pause(2) wait for ever: tideover sees to that, CRIU does not.
 */
async function waiting(ids: readonly number[]): Promise<void> {
  const left = new Set(ids);
  const all = () => {
    for (const id of left) {
      // CRIU returns before the last one has been stopped.
      if ('ZT'.includes(field(id, 'State')) || /^\d/.test(readFileSync(`/proc/${id}/syscall`, 'latin1')))
        left.delete(id);
    }
    return left.size === 0;
  };
  await until(all, () => `not in a system call: ${[...left]}`);
}

/** CRIU does not keep that an eventfd is a semaphore, that SIGTRAP is ignored, nor that a timerfd that has gone off will again. */
const CRIUS_OWN = /^not as it was: (read\(sem|signal\(SIGTRAP|timerfd_gettime\(again).*\n/gm;

const PYTHON = `
import signal, threading, time, queue
done = threading.Event()
# It is for the first thread alone.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
work, counts = queue.Queue(), [0] * 4
def run(i):
    while not done.is_set():
        counts[i] += 1
        work.put(time.monotonic())
        time.sleep(0.002)
threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
time.sleep(0.2)
print('ready', flush=True)
signal.sigwait([signal.SIGTERM])
done.set()
for thread in threads: thread.join()
times = list(work.queue)
print('ok' if len(times) == sum(counts) and max(times) - min(times) < 3600 else 'faults', flush=True)
`;

const programs = [
  { what: 'memory, files, signals and timers of one process', file: 'state', args: [] },
  { what: 'a tree with threads, a zombie, sessions and groups', file: 'tree', args: ['5', '4'] },
  { what: 'shared tables, locks, memfd, ghosts, a stopped child, a robust mutex', file: 'more', args: [] },
  { what: 'python3 with threads', file: 'python3', args: ['-c', PYTHON] },
] as const;

for (const { what, file, args } of programs) {
  for (const [name, saver, restorer] of [
    ['CRIU saved, tideover restores', byCriu, tideover],
    ['tideover saved, CRIU restores', tideover, byCriu],
  ] as const) {
    test(`${name}: ${what}`, async (t) => {
      const log = await move(t, saver, restorer, file, [...args]);
      const left = log.replace(CRIUS_OWN, '');
      assert.ok(/ok\n$/.test(log) || (left !== log && !left.includes('not as it was')), log);
    });
  }
}

/** CRIU's tar fills holes, and has whole seconds alone. */
const TARS_OWN = /^not as it was: lstat\("t\/(holes|d)".*\n|^not as it was: readlink\("t\/soft".*\n/gm;

for (const [name, saver, restorer] of [
  ['CRIU saved, tideover restores', 'criu', 'tideover'],
  ['tideover saved, CRIU restores', 'tideover', 'criu'],
] as const) {
  test(`${name}: mounts, files in tmpfs and a root directory of its own`, async (t) => {
    const target = new Bench();
    const root = join(target.folder, 'work/root');
    const pidfile = join(target.folder, 'pid');
    const inits: number[] = [];
    t.after(async () => {
      for (const init of inits) killTree(init);
      await target.dispose();
    });
    target.start(target.compile('mounts', '-static'), ['pdbst']);
    const init = Number(/init (\d+)/.exec(await target.says('init'))![1]);
    inits.push(init);
    const log = join(root, 'log');
    const says = async (text: RegExp) => {
      await until(() => existsSync(log) && text.test(readFileSync(log, 'utf8')), `no ${text} in the log`);
      return readFileSync(log, 'utf8');
    };
    await says(/ready/);
    const ids = idsBelow(init);
    if (saver === 'criu') byCriu.save(target, init);
    else tideover.save(target, init);
    await free(ids);
    const how = ['-d', '--pidfile', pidfile, '--root', root];
    if (restorer === 'tideover') {
      const { status, stderr } = target.tideover('restore', '-D', target.image, '--file-locks', ...how);
      assert.equal(status, 0, stderr);
    } else {
      // CRIU's new root has to be a mount.
      target.shell('mount --bind work/root work/root');
      try {
        criu(target, 'restore', ...how);
      } finally {
        target.shell('umount work/root');
      }
    }
    const pid = Number(readFileSync(pidfile, 'utf8'));
    inits.push(pid);
    await waiting(idsBelow(pid));
    process.kill(pid, 'SIGTERM');
    const said = await says(/ok\n|faults\n/);
    const left = said.replace(TARS_OWN, '');
    assert.ok(/ok\n$/.test(said) || (left !== said && !left.includes('not as it was')), said);
  });
}

/** Kinds of images that CRIU does not have: their magics begin with TD. */
function isOurs(file: string): boolean {
  return typeOfFile(file)!.magic >>> 16 === 0x5444;
}

test('crit shows every file of a checkpoint that CRIU has too, as it is shown here', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('more'));
  await target.says('ready');
  tideover.save(target, pid);
  const json = new MemoryStore();
  const draft = json.draft();
  storeToJson(openDirectory(target.image), draft);
  draft.commit();
  const files = readdirSync(target.image).filter(
    (file) => !isRaw(file) && !file.startsWith('tideover.') && !isOurs(file),
  );
  assert.ok(files.length > 30, `${files.length} files`);
  const plain = (text: string) => JSON.parse(text.replaceAll('\\n', ''));
  for (const [i, theirs] of debian.decode(files.map((file) => join(target.image, file))).entries()) {
    const ours = Buffer.from(json.files.get(`${files[i]}.json`)!).toString();
    assert.deepEqual(asFarAs(plain(ours), plain(theirs)), plain(theirs), files[i]);
  }
  assert.match(debian.crit('show', join(target.image, 'pstree.img')), new RegExp(`"pid": ${pid},`));
  assert.match(debian.crit('x', target.image, 'ps'), /more/);
});

/** A value without the fields that the other one does not have: crit leaves out those that are not of CRIU. */
function asFarAs(value: unknown, other: unknown): unknown {
  if (typeof value !== 'object' || value === null || typeof other !== 'object' || other === null) return value;
  if (Array.isArray(value)) return value.map((each, i) => asFarAs(each, (other as unknown[])[i]));
  const known = Object.entries(value).filter(([name]) => name in other);
  return Object.fromEntries(known.map(([name, each]) => [name, asFarAs(each, other[name as keyof typeof other])]));
}
