/** Memory that is written to the image while the program goes on, and an image that could not be made to last. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Foresight } from '../../../src/process/foresight.ts';
import { readFlaggedMaps } from '../../../src/sys/maps.ts';
import { until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Bench } from './target.ts';

/** More than tideover copies, and more than it may use. */
const MEBIBYTES = 200;
const LIMIT_KIB = 150_000;

/** Runs a program and prints the most memory that it had, in KiB. */
const MEASURED = `
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
`;

test('large memory is that of one moment, though the program goes on writing; tideover itself stays small', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('large'), [`${MEBIBYTES}`]);
  await target.says('ready');
  const line = [
    target.node,
    target.main,
    'checkpoint',
    '-t',
    `${pid}`,
    '-D',
    target.image,
    '--leave-running',
    '--json',
  ];
  const { status, stdout, stderr } = spawnSync('python3', ['-c', MEASURED, ...line], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const [, json, most] = /^(\{.*\})\n(\d+)\n$/s.exec(stdout)!;
  assert.ok(JSON.parse(json!).memory > MEBIBYTES << 20);
  assert.ok(Number(most) < LIMIT_KIB, `${most} KiB`);
  await noOthers(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
  await target.gone(pid);
  truncateSync(join(target.folder, 'log'), 'ready\n'.length);
  const again = ['-c', MEASURED, target.node, target.main, 'restore', '-D', target.image, '-d'];
  const restored = spawnSync('python3', again, { encoding: 'utf8' });
  assert.equal(restored.status, 0, restored.stderr);
  assert.ok(Number(restored.stdout) < LIMIT_KIB, `${restored.stdout} KiB`);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('large memory beside small, of other kinds and with holes, comes back as it was', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', NEIGHBOURS]);
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

/** One piece of memory in mappings that touch: 8 MiB without holes, 1 MiB, and 8 MiB of which every second page is there. */
const NEIGHBOURS = `
import hashlib, mmap, os, signal
signal.signal(signal.SIGTERM, lambda *_: None)
MIB = 1 << 20
memory = mmap.mmap(-1, 17 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_DONTDUMP, 8 * MIB, MIB)
memory[:9 * MIB] = os.urandom(9 * MIB)
for at in range(9 * MIB, 17 * MIB, 8192): memory[at:at + 4096] = os.urandom(4096)
before = hashlib.sha256(memory).digest()
print('ready', flush=True)
signal.pause()
print('ok' if hashlib.sha256(memory).digest() == before else 'faults', flush=True)
`;

test('flags that change all the time are those of the moment at which the program stood still', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', TOGGLES]);
  await target.says('ready');
  for (let round = 0; round < 3; round++) await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

/** Changes the flags of a large mapping and looks whether it has them, until it is told to end. */
const TOGGLES = `
import ctypes, mmap, signal
wanted = []
signal.signal(signal.SIGTERM, lambda *_: wanted.append('end'))
memory = mmap.mmap(-1, 48 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory.write(b'x' * len(memory))
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
def isLeftOut():
    with open('/proc/self/smaps') as maps:
        found = False
        for line in maps:
            if line.startswith(f'{address:x}-'): found = True
            if found and line.startswith('VmFlags'): return 'dd' in line.split()
print('ready', flush=True)
right = True
while right and not wanted:
    memory.madvise(mmap.MADV_DONTDUMP)
    right = isLeftOut() is True
    memory.madvise(mmap.MADV_DODUMP)
    right = isLeftOut() is False and right
print('ok' if right else 'faults', flush=True)
`;

test('flags of mappings that change before a process stops are not those that it is taken to have', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', ADVISES]);
  await target.says('ready');
  const foresight = Foresight.bySnapshots();
  foresight.note(pid, readFlaggedMaps(pid));
  const foreseen = foresight.mappings(pid)!;
  assert.deepEqual(foreseen, readFlaggedMaps(pid));
  assert.ok(foresight.sizeOf(pid)! > 40 << 20);
  assert.ok(foresight.wasRight(pid, pid));
  const asking = Foresight.byAsking('large');
  t.after(() => asking[Symbol.dispose]());
  asking.note(pid, foreseen);
  assert.deepEqual(asking.mappings(pid), foreseen);
  asking.prepare();
  asking.ask('large');
  assert.ok(asking.wereRight('large'));
  process.kill(pid, 'SIGUSR1');
  await target.says('advised');
  assert.ok(!foresight.wasRight(pid, pid));
  const late = Foresight.byAsking('large');
  t.after(() => late[Symbol.dispose]());
  late.note(pid, foreseen);
  late.mappings(pid);
  late.prepare();
  late.ask('large');
  assert.ok(!late.wereRight('large'));
  // What is locked is not foreseen at all.
  process.kill(pid, 'SIGUSR2');
  await target.says('locked');
  foresight.note(pid, readFlaggedMaps(pid));
  assert.equal(foresight.mappings(pid), undefined);
});

test('the flags of a small process, too, are asked for by another thread', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', ADVISES.replace('48 << 20', '1 << 20')]);
  await target.says('ready');
  const noted = readFlaggedMaps(pid);
  const right = () => {
    const asking = Foresight.byAsking('small', 'large');
    t.after(() => asking[Symbol.dispose]());
    asking.note(pid, noted);
    asking.prepare();
    assert.deepEqual(asking.mappings(pid), noted);
    for (const size of ['small', 'large'] as const) asking.ask(size);
    assert.ok(asking.wereRight('large'), 'it is none');
    return asking.wereRight('small');
  };
  assert.ok(right());
  process.kill(pid, 'SIGUSR1');
  await target.says('advised');
  assert.ok(!right());
});

const ADVISES = `
import ctypes, mmap, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
memory = mmap.mmap(-1, 48 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(b'x' * len(memory))
print('ready', flush=True)
signal.sigwait([signal.SIGUSR1])
memory.madvise(mmap.MADV_DONTDUMP)
print('advised', flush=True)
signal.sigwait([signal.SIGUSR2])
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).mlock(ctypes.c_void_p(address), ctypes.c_size_t(4096)) == 0
print('locked', flush=True)
signal.pause()
`.replace('memory = mmap', 'signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])\nmemory = mmap');

const KILLS = process.env.TIDEOVER_FULL ? 100 : 10;

test(`kill -9 of tideover at ${KILLS} moments while there is a snapshot`, async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('large'), ['64']);
  await target.says('ready');
  const line = ['checkpoint', '-t', `${pid}`, '-D', target.image, '--leave-running'];
  const started = performance.now();
  assert.equal(target.tideover(...line).status, 0);
  const duration = performance.now() - started;
  for (let round = 0; round < KILLS; round++) {
    const child = target.begin(...line);
    const ended = once(child, 'exit');
    await setTimeout(duration * (0.5 + (0.5 * round) / KILLS));
    child.kill('SIGKILL');
    await ended;
  }
  await noOthers(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

/** Waits until what was made of a process has come to its end. */
async function noOthers(pid: number): Promise<void> {
  await until(
    () => others(pid).length === 0,
    () => `left behind: ${others(pid)}`,
  );
}

/** Processes that run the same file. A zombie of them only waits for init. */
function others(pid: number): number[] {
  const name = (of: number | string) => {
    const status = readFileSync(`/proc/${of}/status`, 'utf8');
    const file = readFileSync(`/proc/${of}/cmdline`, 'utf8');
    return /^State:\tZ/m.test(status) ? '' : file;
  };
  const wanted = name(pid);
  return readdirSync('/proc')
    .map(Number)
    .filter((each) => {
      try {
        return each > 0 && each !== pid && name(each) === wanted;
      } catch {
        return false;
      }
    });
}

test('a disk that fails when the program has ended: its image is kept, and said where', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['2']);
  await target.says('ready');
  const line = ['--input-type=module', '-e', FAILING, `${pid}`, target.image];
  const { stdout, stderr } = spawnSync(target.node, line, { cwd: import.meta.dirname, encoding: 'utf8' });
  assert.match(stdout, /^partial: .*the processes have ended/, stderr);
  const kept = /stays in (\S+)/.exec(stdout)![1]!;
  assert.ok(kept.startsWith(join(target.image, 'unsynced-')));
  await target.gone(pid);
  const restored = target.tideover('restore', '-D', kept, '-d');
  assert.equal(restored.status, 0, restored.stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a store that finds no room at the end: the program goes on', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['2']);
  await target.says('ready');
  const line = ['--input-type=module', '-e', NO_ROOM, `${pid}`];
  const { stdout, stderr } = spawnSync(target.node, line, { cwd: import.meta.dirname, encoding: 'utf8' });
  assert.equal(stdout, 'ENOSPC\n', stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

const NO_ROOM = `
import { SyscallError } from '../../../src/errors.ts';
import { MemoryStore } from '../../../src/image/store.ts';
import { checkpoint } from '../../../src/process/checkpoint.ts';
const pid = Number(process.argv[1]);
const commit = () => {
  throw new SyscallError('write', 'write(node)', 28);
};
const options = { pid, outcome: 'kill', shellJob: false, timeout: 10_000, ghostLimit: 1 << 20, fileLocks: false };
try {
  checkpoint(options, { ...new MemoryStore().draft(), commitsAtOnce: true, commit });
} catch (error) {
  console.log(error.errnoName);
}
`;

const FAILING = `
import { SyscallError } from '../../../src/errors.ts';
import { createDirectory } from '../../../src/image/directory.ts';
import { checkpoint } from '../../../src/process/checkpoint.ts';
const [pid, image] = process.argv.slice(1);
const syncfs = () => {
  throw new SyscallError('syncfs', 'syncfs(image)', 5);
};
const options = { pid: Number(pid), outcome: 'kill', shellJob: false, timeout: 10_000, ghostLimit: 1 << 20, fileLocks: false };
try {
  checkpoint(options, createDirectory(image, undefined, { syncfs }));
} catch (error) {
  console.log(error.code + ': ' + error.message);
}
`;
