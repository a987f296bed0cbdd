/** Programs that check themselves: checkpoint, death of the original, restore. */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { LOCK_EX } from '../../../src/abi/fcntl.ts';
import { openDirectory } from '../../../src/image/directory.ts';
import { readTree } from '../../../src/image/tree.ts';
import { flock } from '../../../src/sys/files.ts';
import { readHugePagePool } from '../../../src/sys/hugepages.ts';
import { cgroup2Mount, readMountinfo } from '../../../src/sys/mountinfo.ts';
import { removeGroups } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Bench, killTree, program } from './target.ts';

test('memory, files, pipes, events, signals, timers, limits and clocks of one process', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('state'));
  await target.says('ready');
  await target.moveOn(pid);
  await setTimeout(100);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('twice in a row', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('state'));
  await target.says('ready');
  for (let round = 0; round < 2; round++) {
    await target.moveOn(pid);
    await setTimeout(50);
  }
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('left running, nothing is different and nothing of ours stays', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('state'));
  await target.says('ready');
  const look = () => ({
    maps: readFileSync(`/proc/${pid}/maps`, 'utf8'),
    files: readdirSync(`/proc/${pid}/fd`).map((fd) => [fd, readlinkSync(`/proc/${pid}/fd/${fd}`)]),
    status: /^(SigBlk|SigIgn|SigCgt|TracerPid):.*$/gm.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![0],
  });
  const before = look();
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--leave-running');
  assert.equal(status, 0, stderr);
  assert.deepEqual(look(), before);
  for (const file of readdirSync(target.image)) assert.equal(statSync(join(target.image, file)).mode & 0o777, 0o600);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a tree with threads, a zombie, sessions, groups and what they share', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['6', '12']);
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('orphans of sessions that have lost their leader, or have it elsewhere', async (t) => {
  const target = Bench.of(t);
  const leader = target.start('python3', [program('sessions.py')]);
  const pid = Number(/ready (\d+)/.exec(await target.says(/ready \d+\n/))![1]);
  t.after(() => killTree(pid));
  await target.gone(leader);
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('how memory is locked, advised and named, and what threads are allowed and how they are scheduled', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('attributes'));
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('calls that wait for a time end when they would have', async (t) => {
  const target = Bench.of(t);
  // Of the clock by which they wait.
  const now = () => Number(process.hrtime.bigint()) / 1e9;
  const started = now();
  target.tideover('--version');
  // So long that they still wait when they are saved, also on a slow machine.
  const seconds = Math.ceil(14 + 25 * (now() - started));
  const pid = target.start(target.compile('waits'), [`${seconds}`]);
  await target.says('ready');
  await setTimeout(6000);
  let gone = 0;
  await target.moveOn(pid, () => {
    gone = now();
  });
  const restored = now();
  const log = await target.says(/ok\n|faults\n/);
  assert.match(log, /ok\n$/);
  const times = [...log.matchAll(/^(.*): ([\d.]+) to ([\d.]+)$/gm)];
  assert.equal(times.length, 9, log);
  // Made anew with all of it they would end no sooner than so long after they were gone.
  const latest = Math.max(gone + seconds, restored + 10);
  for (const [, call, began, ended] of times) {
    assert.ok(
      Number(ended) - Number(began) > seconds - 0.002 && Number(ended) < latest,
      `${call}: ${gone} to ${restored}\n${log}`,
    );
  }
});

test('of short waits beside each other no more is left than all of their time', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', SHORT_WAITS]);
  await target.says('ready');
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--leave-running');
  assert.equal(status, 0, stderr);
  const { threads } = readTree(openDirectory(target.image)).tasks[0]!;
  for (const { core } of threads) assert.ok((core.thread_core!.attributes!.call_left ?? 0n) <= 200_000_000n);
});

const SHORT_WAITS = `
import select, threading, time
def wait():
  while True: select.poll().poll(200)
for each in range(20):
  threading.Thread(target=wait).start()
  time.sleep(0.01)
print('ready', flush=True)
`;

test('signals by which our own work in a process ends wait on in it', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', WAITING_SIGNALS]);
  await target.says('ready');
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--leave-running');
  assert.equal(status, 0, stderr);
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|Error/), /ok\n/);
});

const WAITING_SIGNALS = `
import os, signal
quiet = {signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, quiet | {signal.SIGTERM})
for each in quiet: os.kill(os.getpid(), each)
print('ready', flush=True)
signal.sigwait([signal.SIGTERM])
assert signal.sigpending() >= quiet, signal.sigpending()
print('ok', flush=True)
`;

test('filters on system calls, of all threads and of some', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('seccomp'));
  await target.says('ready');
  for (let round = 0; round < 2; round++) await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('control groups, of which one is gone meanwhile', async (t) => {
  const target = Bench.of(t);
  const mounts = readMountinfo('self').filter(({ type, root }) => type.startsWith('cgroup') && root === '/');
  const mount = cgroup2Mount(mounts) ?? mounts[0]!;
  const group = join(mount.mountPoint, `tideover-test-${process.pid}`);
  const inner = join(group, 'inner');
  t.after(async () => {
    await target.dispose();
    await removeGroups([inner, group]);
  });
  mkdirSync(inner, { recursive: true });
  const pid = target.start(target.compile('tree'), ['2', '2']);
  await target.says('ready');
  writeFileSync(join(inner, 'cgroup.procs'), `${pid}`);
  const child = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')[0]);
  writeFileSync(join(group, 'cgroup.procs'), `${child}`);
  const groups = () => [pid, child].map((each) => readFileSync(`/proc/${each}/cgroup`, 'utf8'));
  const before = groups();
  await target.moveOn(pid, () => removeGroups([inner]));
  assert.deepEqual(groups(), before);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('settings of a control group within another one, which are both gone meanwhile', async (t) => {
  const target = Bench.of(t);
  const mount = cgroup2Mount(readMountinfo('self'))!.mountPoint;
  const control = (folder: string, text: string) => writeFileSync(join(folder, 'cgroup.subtree_control'), text);
  const has = (name: string) => readFileSync(join(mount, 'cgroup.controllers'), 'utf8').includes(name);
  const [controller, setting, value] = has('pids')
    ? ['pids', 'pids.max', '77']
    : ['hugetlb', 'hugetlb.2MB.max', '4194304'];
  const group = join(mount, `tideover-set-${process.pid}`);
  const inner = join(group, 'inner');
  t.after(async () => {
    await target.dispose();
    await removeGroups([inner, group]);
  });
  control(mount, `+${controller}`);
  mkdirSync(inner, { recursive: true });
  control(group, `+${controller}`);
  writeFileSync(join(inner, setting), value);
  const line = `echo $$ > ${inner}/cgroup.procs; exec ${target.compile('tree')} 2 2`;
  const pid = target.start('sh', ['-c', line]);
  await target.says('ready');
  await target.moveOn(pid, async () => {
    await removeGroups([inner, group]);
    // One that comes to nothing leaves none.
    const script = join(target.folder, 'script');
    writeFileSync(script, '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ]\n', { mode: 0o755 });
    const failed = target.tideover('restore', '-D', target.image, '-d', '--action-script', script);
    assert.equal(failed.status, 1, failed.stderr);
    assert.ok(!existsSync(group));
  });
  assert.equal(readFileSync(join(inner, setting), 'utf8').trimEnd(), value);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('deleted files of all kinds have owners, modes and times, and nothing of them stays', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', DELETED]);
  await target.says('ready');
  await target.moveOn(pid);
  assert.deepEqual(readdirSync(join(target.folder, 'work')), []);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults.*\n/), /ok\n$/);
});

const DELETED = `
import os, signal
signal.signal(signal.SIGTERM, lambda *_: None)
os.mkdir('sub')
os.mkfifo('sub/fifo')
os.symlink('nowhere', 'sub/link')
files = [os.open('sub/file', os.O_RDWR | os.O_CREAT), os.open('sub', os.O_RDONLY), os.open('sub/fifo', os.O_RDWR),
  os.open('sub/link', os.O_PATH | os.O_NOFOLLOW)]
for i, (fd, mode) in enumerate(zip(files[:3], [0o4751, 0o3775, 0o622])):
    os.fchown(fd, 10 + i, 20 + i)
    os.fchmod(fd, mode)
os.chown('sub/link', 13, 23, follow_symlinks=False)
os.utime(files[0], (1000, 2000))
for name in 'file', 'fifo', 'link': os.unlink('sub/' + name)
os.rmdir('sub')
def state():
    found = [os.fstat(fd) for fd in files]
    return [(each.st_mode, each.st_uid, each.st_gid) for each in found] + [found[0].st_mtime]
before = state()
print('ready', flush=True)
signal.pause()
print('ok' if state() == before else 'faults %s %s' % (before, state()), flush=True)
`;

test('a vfork in progress is waited for', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', VFORK]);
  await target.says('ready');
  await setTimeout(300);
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

/** The child waits for two seconds before it executes its program, as long as it takes to open a pipe that has no other end. */
const VFORK = `
import ctypes, os, signal, threading, time
term = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: term.set())
os.mkfifo('gate')
libc = ctypes.CDLL(None, use_errno=True)
class Actions(ctypes.Structure): _fields_ = [('room', ctypes.c_char * 128)]
actions, pid = Actions(), ctypes.c_int()
libc.posix_spawn_file_actions_init(ctypes.byref(actions))
libc.posix_spawn_file_actions_addopen(ctypes.byref(actions), 5, b'gate', os.O_RDONLY, 0)
argv = (ctypes.c_char_p * 3)(b'sleep', b'1000', None)
result = []
thread = threading.Thread(target=lambda: result.append(libc.posix_spawn(ctypes.byref(pid), b'/bin/sleep', ctypes.byref(actions), None, argv, None)))
threading.Timer(2, lambda: os.close(os.open('gate', os.O_WRONLY))).start()
thread.start()
print('ready', flush=True)
while not term.is_set(): time.sleep(0.01)
thread.join()
name = open(f'/proc/{pid.value}/comm').read().strip()
os.kill(pid.value, signal.SIGKILL)
print('ok' if result == [0] and name == 'sleep' and os.waitpid(pid.value, 0)[0] == pid.value else 'faults', flush=True)
`;

test('huge pages of hugetlbfs', async (t) => {
  const target = Bench.of(t);
  // Whoever changes what may be taken beyond the pool locks this, and puts back what was there: src/sys/hugepages.ts.
  const file = '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages';
  const fd = openSync(file, 'r');
  flock({ fd, operation: LOCK_EX });
  const before = readFileSync(file, 'utf8');
  t.after(async () => {
    await target.dispose();
    writeFileSync(file, before);
    closeSync(fd);
  });
  writeFileSync(file, `${readHugePagePool().surplus + 24}`);
  const pid = target.start(target.compile('hugepages'));
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('watches of files, leases on files, and processes as descriptors', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('watches'));
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

for (const [when, again] of [
  ['still there', false],
  ['gone meanwhile', true],
] as const) {
  test(`System V shared memory and semaphores that are ${when}`, async (t) => {
    const target = Bench.of(t);
    const pid = target.start(target.compile('sysv'));
    const [, shm, sem] = /ids (\d+) (\d+)/.exec(await target.says('ready'))!;
    // Of a test that fails.
    t.after(() => spawnSync('ipcrm', ['-m', shm!, '-s', sem!]));
    await target.moveOn(pid, () => {
      if (again) execFileSync('ipcrm', ['-m', shm!, '-s', sem!]);
    });
    process.kill(pid, 'SIGTERM');
    assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
  });
}

test('pages that parent and child share until one writes, and what processes share that are not threads', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('sharing'));
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('pages that are shared with a parent by one whose child is another program at the same addresses', async (t) => {
  const target = Bench.of(t);
  const build = (size: number) => target.compile('apart', '-static', '-no-pie', `-DSIZE=${size}`);
  const other = join(target.folder, 'other');
  renameSync(build(1 << 20), other);
  const pid = target.start(build(1 << 16), [other]);
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a tree of 200 processes', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['197']);
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a stream from one to the other', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['3', '3']);
  await target.says('ready');
  const { main, node } = target;
  target.shell(`${node} ${main} checkpoint -t ${pid} -D - > stream`);
  await target.gone(pid);
  target.shell(`cat stream | ${node} ${main} restore -D - -d`);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

/** What its time namespace adds to CLOCK_MONOTONIC, in seconds. */
function clockOffset(pid: number | 'self'): number {
  const text = readFileSync(`/proc/${pid}/timens_offsets`, 'utf8');
  const [, seconds, nanoseconds] = /^monotonic\s+(-?\d+)\s+(\d+)$/m.exec(text)!;
  return Number(seconds) + Number(nanoseconds) / 1e9;
}

for (const [what, file, ...args] of [
  ['a small tree', 'tree', '3', '3'],
  ['more than a pipe takes', 'large', '48'],
] as const) {
  test(`a stream to a restore beside it, of ${what}: it waits until those that have the ids end`, async (t) => {
    const target = Bench.of(t);
    const pid = target.start(target.compile(file), args);
    await target.says('ready');
    const { main, node, folder } = target;
    // All but the end is written then, and they are still there.
    const script = '#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-dump ] || sleep 0.3\n';
    writeFileSync(join(folder, 'slow.sh'), script, { mode: 0o755 });
    const line = `${node} ${main} checkpoint -t ${pid} -D - --action-script ./slow.sh | ${node} ${main} restore -D - -d`;
    const { stderr } = await promisify(execFile)('sh', ['-c', line], { cwd: folder, timeout: 300_000 });
    assert.match(stderr, new RegExp(`process ${pid} goes on`));
    assert.ok(clockOffset(pid) - clockOffset('self') <= -0.3, 'its clock has not gone on while it was waited for');
    process.kill(pid, 'SIGTERM');
    assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
  });
}

test('a process of another user', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', [program('user.py')], { uid: 65534, gid: 65534 });
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('python3 with threads', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', [program('threads.py')]);
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('sqlite in the middle of a transaction', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', [program('sqlite.py')]);
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('Node with timers and files, whose rings are idle', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(process.execPath, [program('timers.mjs')]);
  await target.says('ready');
  await setTimeout(300);
  await target.moveOn(pid);
  await setTimeout(200);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('make -j2 in the middle of compiling', async (t) => {
  const target = Bench.of(t);
  // All shells are at the same addresses, so that each may have its memory of the one before.
  const pid = target.start('setarch', ['-R', 'sh', program('make.sh')]);
  await target.says('ready');
  await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});
