/** Trees in namespaces of their own: checkpoint, death of the original, restore. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { readMountinfo } from '../../../src/sys/mountinfo.ts';
import { PATIENCE, until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Bench, field, free, idsBelow, killTree, noneAbandoned } from './target.ts';

const KILLS = process.env.TIDEOVER_FULL ? 100 : 6;

/** Starts a tree whose init is not a child of what was started. */
async function startTree(
  t: TestContext,
  letters: string,
  program = 'namespaces',
): Promise<{ target: Bench; init: number }> {
  const target = Bench.of(t);
  target.start(target.compile(program), [letters]);
  const init = Number(/init (\d+)/.exec(await target.says('ready'))![1]);
  return { target, init };
}

/** Processes of its program that are the first of their PID namespaces. */
function initsOf(target: Bench): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, 'utf8');
        return /^NSpid:\t\d+\t1$/m.test(status) && readlinkSync(`/proc/${pid}/exe`).startsWith(target.folder);
      } catch {
        return false;
      }
    });
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It is gone.
  }
}

/** @returns the id of the init that goes on */
function restore(target: Bench, ...more: string[]): number {
  const pidfile = join(target.folder, 'pid');
  const { status, stderr } = target.tideover('restore', '-D', target.image, '-d', '--pidfile', pidfile, ...more);
  assert.equal(status, 0, stderr);
  return Number(readFileSync(pidfile, 'utf8'));
}

for (const [letters, what] of [
  ['p', 'PID'],
  ['ui', 'UTS and IPC'],
  ['t', 'time'],
  ['n', 'network'],
  ['puitn', 'PID, UTS, IPC, time and network'],
] as const) {
  test(`a tree in its own ${what} namespace, twice`, async (t) => {
    const { target, init } = await startTree(t, letters);
    let pid = init;
    for (let round = 0; round < 2; round++) {
      const ids = idsBelow(pid);
      const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--tcp-established');
      assert.equal(status, 0, stderr);
      await free(ids);
      pid = restore(target);
      t.after(() => kill(pid));
    }
    for (const name of ['pid', 'uts', 'ipc', 'net']) {
      const own = readlinkSync(`/proc/${pid}/ns/${name}`) !== readlinkSync(`/proc/self/ns/${name}`);
      assert.equal(own, letters.includes(name[0]!), name);
    }
    process.kill(pid, 'SIGTERM');
    assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
  });
}

test(`kill -9 at ${KILLS} moments of a checkpoint of a tree in its own PID, UTS, IPC and network namespace: it goes on`, async (t) => {
  const { target, init } = await startTree(t, 'puin');
  const checkpoint = ['checkpoint', '-t', `${init}`, '-D', target.image, '--tcp-established', '-R'];
  const started = performance.now();
  const first = target.tideover(...checkpoint);
  assert.equal(first.status, 0, first.stderr);
  const duration = performance.now() - started;
  for (let round = 0; round < KILLS; round++) {
    const child = target.begin(...checkpoint);
    const ended = once(child, 'exit');
    await setTimeout(duration * (0.4 + (0.6 * round) / KILLS));
    child.kill('SIGKILL');
    await ended;
    const still = () =>
      idsBelow(init).filter((id) => field(id, 'TracerPid') !== '0' || /^[tT]/.test(field(id, 'State')));
    await until(
      () => still().length === 0,
      () => `${still()} do not go on`,
    );
  }
  // The program says at its end whether all is as it was, and expects to have been restored.
  const ids = idsBelow(init);
  const last = target.tideover(...checkpoint.slice(0, -1));
  assert.equal(last.status, 0, last.stderr);
  await free(ids);
  const pid = restore(target);
  t.after(() => kill(pid));
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

for (const [letters, what] of [
  ['', 'what is mounted outside'],
  ['p', 'a /proc of its own'],
  ['bs', 'bind mounts, and mounts that share what is mounted in them'],
  ['pt', 'files in tmpfs'],
  ['prt', 'a root directory of its own'],
] as const) {
  test(`a tree in its own mount namespace with ${what}, twice`, async (t) => {
    const { target, init } = await startTree(t, letters, 'mounts');
    let pid = init;
    for (let round = 0; round < 2; round++) {
      const ids = idsBelow(pid);
      const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image);
      assert.equal(status, 0, stderr);
      await free(ids);
      pid = restore(target);
      t.after(() => kill(pid));
    }
    assert.notEqual(readlinkSync(`/proc/${pid}/ns/mnt`), readlinkSync('/proc/self/ns/mnt'));
    process.kill(pid, 'SIGTERM');
    assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
  });
}

test('a mount that is left out, one that is brought, and one that nobody brings', async (t) => {
  const { target, init } = await startTree(t, 't', 'mounts');
  const [left, brought] = ['work/sealed', 'work/t/over'].map((name) => join(target.folder, name));
  const ids = idsBelow(init);
  const named = ['--skip-mnt', left!, '--ext-mount-map', `${brought}:over`];
  const saved = target.tideover('checkpoint', '-t', `${init}`, '-D', target.image, ...named);
  assert.equal(saved.status, 0, saved.stderr);
  await free(ids);
  const refused = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(refused.status, 3, refused.stderr);
  assert.match(refused.stderr, /work\/t\/over: it is not part of the image, .*: --external 'mnt\[over\]:PATH'/);
  const pid = restore(target, '--external', `mnt[over]:${target.folder}`);
  t.after(() => killTree(pid));
  const mounts = readMountinfo(pid);
  assert.ok(!mounts.some(({ mountPoint }) => mountPoint === left));
  assert.equal(readFileSync(`/proc/${pid}/root${brought}/log`, 'utf8'), target.log);
});

test('a tmpfs that another mount lies over is refused by its name, and left out where that is said', async (t) => {
  const { target, init } = await startTree(t, 't', 'mounts');
  const twice = join(target.folder, 'twice');
  mkdirSync(twice);
  target.shell(`nsenter -t ${init} -m sh -c 'for i in 1 2; do mount -t tmpfs none ${twice}; done'`);
  const checkpoint = ['checkpoint', '-t', `${init}`, '-D', target.image, '-R'];
  const { status, stderr } = target.tideover(...checkpoint);
  assert.equal(status, 3, stderr);
  assert.match(stderr, /mount \S+\/twice: another one lies over it, .*\(tmpfs\)/);
  assert.equal(target.tideover(...checkpoint, '--skip-mnt', twice).status, 0);
});

test('a network device whose other end is outside, and rules for packets', async (t) => {
  const { target, init } = await startTree(t, 'pN');
  const outer = `tv${process.pid}`;
  const [a, b, c] = [(process.pid >> 14) & 1, (process.pid >> 6) & 255, (process.pid & 63) << 2];
  const host = (n: number) => `198.${18 + a}.${b}.${c + n}`;
  const answers = () => assert.rejects(reach(host(2)), { code: 'ECONNREFUSED' });
  target.shell(`ip link add ${outer} type veth peer name eth0 netns ${init}`);
  target.shell(`ip addr add ${host(1)}/30 dev ${outer}; ip link set ${outer} up`);
  target.shell(`nsenter -t ${init} -n sh -c 'ip addr add ${host(2)}/30 dev eth0; ip link set eth0 up'`);
  const rules = new URL('../../../src/sys/nftables.ts', import.meta.url).href;
  const end = (last: number) => `{ address: Uint8Array.of(10, 0, 0, ${last}), port: 7 }`;
  const code = `(await import('${rules}')).lockPackets('kept', [{ own: ${end(1)}, peer: ${end(2)} }])`;
  within(init, code);
  const look = (pid: number) => within(pid, LOOK_AT_RULES);
  const before = look(init);
  assert.match(before, /kept/);
  await answers();
  const ids = idsBelow(init);
  assert.equal(target.tideover('checkpoint', '-t', `${init}`, '-D', target.image).status, 0);
  await free(ids);
  // Its other end goes with the namespace, to which the kernel sees when it likes.
  await until(() => !existsSync(`/sys/class/net/${outer}`), `${outer} is still there`);
  const refused = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(refused.status, 3, refused.stderr);
  assert.match(refused.stderr, /network device eth0: .*--veth-pair eth0=NAME/);
  const pid = restore(target, '--external', `veth[eth0]:${outer}`);
  t.after(() => kill(pid));
  target.shell(`ip addr add ${host(1)}/30 dev ${outer}`);
  await answers();
  assert.equal(look(pid), before);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

/** Runs code in the network namespace of a process. @returns what it prints */
function within(pid: number, code: string): string {
  const node = [process.execPath, '--input-type=module', '-e', code];
  return execFileSync('nsenter', ['-t', `${pid}`, '-n', ...node], { encoding: 'utf8' });
}

const filter = new URL('../../../src/process/packetfilter.ts', import.meta.url).href;
const LOOK_AT_RULES = `
const { saveRuleSet } = await import('${filter}');
for (const { type, payload } of saveRuleSet()) console.log(type, Buffer.from(payload).toString('latin1').replace(/\\W/g, '.'));`;

/** Connects to a port that nobody listens on: whoever is there says so. */
async function reach(address: string): Promise<void> {
  const socket = connect(9, address);
  socket.setTimeout(PATIENCE, () => socket.destroy(new Error(`${address} does not answer`)));
  await once(socket, 'connect');
}

test('a tree in its own namespaces goes on when it is left running', async (t) => {
  const { target, init } = await startTree(t, 'pui');
  const { status, stderr } = target.tideover('checkpoint', '-t', `${init}`, '-D', target.image, '--leave-running');
  assert.equal(status, 0, stderr);
  process.kill(init, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

for (const [letters, program, what] of [
  ['pui', 'namespaces', 'new namespaces'],
  ['prt', 'mounts', 'new mounts'],
] as const)
  test(`kill -9 of tideover at ${KILLS} moments of a restore into ${what}`, async (t) => {
    const { target, init } = await startTree(t, letters, program);
    const ids = idsBelow(init);
    assert.equal(target.tideover('checkpoint', '-t', `${init}`, '-D', target.image).status, 0);
    await free(ids);
    const started = performance.now();
    let pid = restore(target);
    const duration = performance.now() - started;
    for (let round = 0; round < KILLS; round++) {
      const now = idsBelow(pid);
      kill(pid);
      await free(now);
      const child = target.begin('restore', '-D', target.image, '-d');
      const ended = once(child, 'exit');
      await setTimeout(duration * (0.4 + (0.6 * round) / KILLS));
      child.kill('SIGKILL');
      await ended;
      // It may have come to its end, and in namespaces of its own the tree is in nobody's way.
      for (const init of initsOf(target)) kill(init);
      await until(() => initsOf(target).length === 0, 'a tree does not end');
      pid = restore(target);
    }
    await noneAbandoned();
    assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(target.folder));
    assert.ok(existsSync(`/proc/${pid}`));
    process.kill(pid, 'SIGTERM');
    assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
  });

for (const [what, line, said] of [
  ['user', ['unshare', '--user'], /user namespace: it is another one than that of tideover/],
  [
    'UTS, of a child alone,',
    ['sh', '-c', 'unshare --uts sleep 100 & wait'],
    /uts namespace: it is in another one than/,
  ],
] as const) {
  test(`a ${what} namespace is refused by its name`, async (t) => {
    const target = Bench.of(t);
    const args = line[0] === 'sh' ? line.slice(1) : [...line.slice(1), 'sleep', '100'];
    const pid = target.start(line[0], args);
    await until(() => sleeps(pid), 'it does not begin to sleep');
    const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image);
    assert.equal(status, 3, stderr);
    assert.match(stderr, said);
    assert.ok(existsSync(`/proc/${pid}`));
  });
}

function sleeps(pid: number): boolean {
  try {
    return idsBelow(pid).some((id) => readFileSync(`/proc/${id}/comm`, 'utf8') === 'sleep\n');
  } catch {
    // One of them has just ended.
    return false;
  }
}

test('a message queue of POSIX that nobody has open is refused by its name, and stays', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('unshare', ['--ipc', 'python3', '-c', QUEUE]);
  await target.says('ready');
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image);
  assert.equal(status, 3, stderr);
  assert.match(stderr, /message queue \/waiting: those of POSIX/);
  process.kill(pid, 'SIGTERM');
  await target.says('unlinked 0');
});

const QUEUE = `
import ctypes, os, signal
signal.signal(signal.SIGTERM, lambda *_: None)
libc = ctypes.CDLL(None)
queue = libc.mq_open(b'/waiting', os.O_CREAT | os.O_RDWR, 0o600, None)
print(libc.mq_send(queue, b'message', 7, 0) or 'sent', os.close(queue) or 'ready', flush=True)
signal.pause()
print('unlinked', libc.mq_unlink(b'/waiting'), flush=True)
`;
