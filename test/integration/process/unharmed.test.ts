/** Whatever goes wrong, the program goes on as if nothing had been. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Bench, free, idsBelow, noneAbandoned } from './target.ts';

/** State of every thread of a process and of those below it. */
function threads(pid: number): { pid: number; state: string; tracer: string; blocked: string }[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
    const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)![1]!;
    const children = readFileSync(`/proc/${pid}/task/${tid}/children`, 'utf8').match(/\d+/g) ?? [];
    const own = { pid: Number(tid), state: field('State'), tracer: field('TracerPid'), blocked: field('SigBlk') };
    return [own, ...(own.state === 'Z' ? [] : children.flatMap((child) => threads(Number(child))))];
  });
}

const KILLS = process.env.TIDEOVER_FULL ? 200 : 20;

test(`kill -9 of tideover at ${KILLS} moments of a checkpoint`, async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['4', '4']);
  await target.says('ready');
  const arguments_ = ['checkpoint', '-t', `${pid}`, '-D', target.image, '--leave-running'];
  const started = performance.now();
  assert.equal(target.tideover(...arguments_).status, 0);
  const duration = performance.now() - started;
  const before = threads(pid).map(({ pid, blocked }) => ({ pid, blocked }));
  let killed = 0;
  for (let round = 0; round < KILLS; round++) {
    const child = target.begin(...arguments_);
    const ended = once(child, 'exit');
    await setTimeout(duration * (0.4 + (0.6 * round) / KILLS));
    if (child.kill('SIGKILL')) killed++;
    await ended;
    // Each goes back to where it was when it has the processor.
    const stands = () => threads(pid).filter(({ state, tracer }) => tracer !== '0' || state === 'T' || state === 't');
    const now = () => threads(pid).map(({ pid, blocked }) => ({ pid, blocked }));
    await until(
      () => stands().length === 0 && isDeepStrictEqual(now(), before),
      () => `${JSON.stringify(stands())} do not go on, or are other ones: ${JSON.stringify([before, now()])}`,
    );
  }
  assert.ok(killed > 0);
  // What tideover practises on ends with it.
  await noneAbandoned();
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('what cannot be saved is refused, by process and descriptor, and is not touched', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', SOCKET]);
  const [, fd] = /ready (\d+)/.exec(await target.says(/ready \d+\n/))!;
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image);
  assert.equal(status, 3);
  assert.match(stderr, new RegExp(`process ${pid}, descriptor ${fd}: .*socket`));
  assert.ok(!existsSync(target.image));
  process.kill(pid, 'SIGTERM');
  await target.says('ok\n');
});

const SOCKET = `
import signal, socket
signal.signal(signal.SIGTERM, lambda *_: None)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
print('ready', s.fileno(), flush=True)
signal.pause()
print('ok', flush=True)
`;

test('a tree in which processes come and go all the time, with memory that they share', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('forking'));
  await target.says('ready');
  for (let i = 0; i < 5; i++) {
    const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', `${target.image}${i}`, '-R');
    assert.equal(status, 0, stderr);
  }
});

test('tideover refuses to checkpoint the tree that it runs in', (t) => {
  const { status, stderr } = Bench.of(t).tideover('checkpoint', '-t', `${process.pid}`, '-D', '/nowhere');
  assert.equal(status, 3);
  assert.match(stderr, /tideover itself/);
});

test('no room for the image: nothing is changed', async (t) => {
  const target = new Bench();
  const full = join(target.folder, 'full');
  mkdirSync(full);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'none', full]);
  t.after(async () => {
    execFileSync('umount', ['-l', full]);
    await target.dispose();
  });
  const pid = target.start(target.compile('state'));
  await target.says('ready');
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', join(full, 'image'));
  assert.equal(status, 1, stderr);
  assert.match(stderr, /ENOSPC/);
  assert.deepEqual(readdirSync(full), []);
  const line = `${target.node} ${target.main} checkpoint -t ${pid} -D - > /dev/full`;
  const stream = spawnSync('sh', ['-c', line], { encoding: 'utf8', timeout: 300_000 });
  assert.equal(stream.status, 1, stream.stderr);
  assert.match(stream.stderr, /ENOSPC/);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a process id that is taken, and a damaged image: nothing is left of the restore', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['3']);
  await target.says('ready');
  assert.equal(target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--leave-running').status, 0);
  const ids = idsBelow(pid);
  const taken = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(taken.status, 3);
  assert.match(taken.stderr, new RegExp(`process id ${pid}`));
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
  await free(ids);
  truncateSync(join(target.folder, 'log'), 'ready\n'.length);
  const pages = readdirSync(target.image).find((file) => /^pages-3\.img$/.test(file))!;
  const whole = readFileSync(join(target.image, pages));
  const flipped = Buffer.from(whole);
  flipped[flipped.length >> 1]! ^= 0x10;
  writeFileSync(join(target.image, pages), flipped);
  const wrong = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(wrong.status, 5, wrong.stderr);
  assert.match(wrong.stderr, /CRC-32 of .*pages-3\.img/);
  assert.ok(!existsSync(`/proc/${pid}`));
  writeFileSync(join(target.image, pages), whole);
  truncateSync(join(target.image, pages), 4096);
  const damaged = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(damaged.status, 5, damaged.stderr);
  assert.match(damaged.stderr, /pages-3\.img/);
  assert.ok(!existsSync(`/proc/${pid}`));
});

test('a program of 32 bits is refused', async (t) => {
  const target = Bench.of(t);
  const bare = ['-m32', '-nostdlib', '-static', '-ffreestanding', '-fno-stack-protector', '-fno-pie', '-no-pie'];
  const pid = target.start(target.compile('bits32', ...bare));
  await target.says('ready');
  const refused = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--shell-job');
  assert.equal(refused.status, 3, refused.stderr);
  assert.match(refused.stderr, new RegExp(`process ${pid}: program: it runs 32-bit code`));
  process.kill(pid, 'SIGUSR1');
  await target.says('going on');
});

const UNKEPT = {
  undo: /SEM_UNDO/,
  mdwe: /PR_SET_MDWE/,
  dispatch: /PR_SET_SYSCALL_USER_DISPATCH/,
  fanotify: /fanotify/,
  compat: /thread \d+: it runs 32-bit code/,
  leader: /a thread leader that has ended/,
  ring: /an event descriptor is registered/,
  clocks: /time namespace: its children would be in another one/,
  gone: /file \/proc\/\d+: it tells of a process that is gone/,
  traced: /process \d+ traces it/,
  ended: /its root has ended/,
  outside: /shared descriptors: process \d+, its parent, has the very same/,
};

for (const [kind, said] of Object.entries(UNKEPT)) {
  test(`what cannot be kept is refused by its name: ${kind}`, async (t) => {
    const target = Bench.of(t);
    const pid = target.start(target.compile('unkept'), [kind]);
    await target.says('ready');
    const child = /child (\d+)/.exec(target.log)?.[1];
    const refused = target.tideover('checkpoint', '-t', child ?? `${pid}`, '-D', target.image, '--shell-job');
    assert.equal(refused.status, 3, refused.stderr);
    assert.match(refused.stderr, said);
    assert.ok(!existsSync(target.image));
    process.kill(pid, 'SIGUSR1');
    await target.says('going on');
  });
}
