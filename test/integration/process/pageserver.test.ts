/** Memory that goes to a page server while it is saved: ours and CRIU's, each with what the other one sends. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { fetchCriu } from '../../../lab/criu.ts';
import { rootTest as test } from '../root.ts';
import { Bench, field } from './target.ts';

/** Starts what waits for a checkpoint. @returns its port, and its end */
async function waiting(
  t: TestContext,
  [file, ...args]: readonly [string, ...string[]],
  says: RegExp,
): Promise<{ port: string; ended: Promise<unknown[]>; said(): string }> {
  const child: ChildProcess = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  // What it says at last comes before this.
  const ended = once(child, 'close');
  let text = '';
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (part) => (text += part));
  while (!says.test(text)) {
    assert.ok(child.exitCode === null, text);
    await setTimeout(5);
  }
  return { port: says.exec(text)![1]!, ended, said: () => text };
}

type Server = (t: TestContext, target: Bench, directory: string, parent?: string) => ReturnType<typeof waiting>;

const prev = (parent: string | undefined) => (parent === undefined ? [] : ['--prev-images-dir', parent]);

const ours: Server = (t, target, directory, parent) => {
  const line = [target.node, target.main, 'page-server', '-D', directory, '--port', '0', ...prev(parent)] as const;
  return waiting(t, line, /waiting on 127\.0\.0\.1 port (\d+)/);
};

const theirs: Server = async (t, target, directory, parent) => {
  const { command } = await fetchCriu();
  target.shell(`mkdir -p ${directory}`);
  const line = [...command, 'page-server', '-D', directory, '--address', '127.0.0.1', '-v3', ...prev(parent)];
  return waiting(t, line as [string, ...string[]], /Using (\d+) port/);
};

async function started(t: TestContext, program: string): Promise<{ target: Bench; pid: number }> {
  const target = Bench.of(t);
  const pid = target.start(target.compile(program));
  await target.says('ready');
  return { target, pid };
}

/** Where the image is put together. */
const placeOf = (target: Bench) => join(target.folder, 'pages');
const bring = (target: Bench, from: string, to: string) => target.shell(`cp -af ${from}/. ${to}`);

/** The restored program has all that it had. */
async function isWell(target: Bench, pid: number, image: string): Promise<void> {
  const restored = target.tideover('restore', '-D', image, '-d');
  assert.equal(restored.status, 0, restored.stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
}

for (const [whose, server, program] of [
  ['ours, shared memory too', ours, 'state'],
  ['that of CRIU', theirs, 'written'],
] as const) {
  test(`a checkpoint sends memory to a page server, and what comes is restored: ${whose}`, async (t) => {
    const { target, pid } = await started(t, program);
    const { port, ended, said } = await server(t, target, placeOf(target));
    const to = ['--page-server', '--address', '127.0.0.1', '--port', port];
    const saved = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, ...to);
    assert.equal(saved.status, 0, saved.stderr);
    assert.deepEqual(await ended, [0, null], said());
    await target.gone(pid);
    assert.deepEqual(
      readdirSync(target.image).filter((file) => /^page/.test(file)),
      [],
    );
    assert.equal(
      readdirSync(placeOf(target)).some((file) => /^pagemap-shmem-/.test(file)),
      program === 'state',
    );
    bring(target, target.image, placeOf(target));
    const verified = target.tideover('image', 'verify', placeOf(target));
    assert.equal(verified.status, 0, verified.stderr);
    await isWell(target, pid, placeOf(target));
  });

  test(`pre-dumps and a checkpoint that build on one another, through a page server: ${whose}`, async (t) => {
    const target = Bench.of(t);
    const pid = target.start('python3', ['-c', PARTLY]);
    await target.says('ready');
    for (const step of [1, 2, 3]) {
      const [here, there] = ['here', 'there'].map((side) => join(target.folder, side, `${step}`)) as [string, string];
      const parent = step === 1 ? undefined : `../${step - 1}`;
      const { port, ended, said } = await server(t, target, there, parent);
      const what = step === 3 ? 'checkpoint' : 'pre-dump';
      const to = ['--page-server', '--port', port, ...prev(parent)];
      const saved = target.tideover(what, '-t', `${pid}`, '-D', here, '--json', ...to);
      assert.equal(saved.status, 0, saved.stderr);
      assert.deepEqual(await ended, [0, null], said());
      const { memory, unchanged, unwatched } = JSON.parse(saved.stdout);
      assert.equal(unwatched, false);
      assert.ok(memory > 1 << 20 && unchanged > 6 << 20 === step > 1, saved.stdout);
      bring(target, here, there);
      if (step === 3) break;
      process.kill(pid, 'SIGUSR1');
      await target.says(`wrote ${step}\n`);
    }
    await target.gone(pid);
    await isWell(target, pid, join(target.folder, 'there', '3'));
  });
}

/** Has 8 MiB, of which it writes the second one when it is told to, and knows what is in them. */
const PARTLY = `
import hashlib, mmap, os, signal
MIB = 1 << 20
memory = mmap.mmap(-1, 8 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
signals = [signal.SIGUSR1, signal.SIGTERM]
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
memory[:] = os.urandom(8 * MIB)
wrote, wanted = 0, hashlib.sha256(memory).digest()
print('ready', flush=True)
while signal.sigwait(signals) == signal.SIGUSR1:
    memory[MIB:2 * MIB] = os.urandom(MIB)
    wrote, wanted = wrote + 1, hashlib.sha256(memory).digest()
    print('wrote', wrote, flush=True)
print('ok' if hashlib.sha256(memory).digest() == wanted else 'faults', flush=True)
`;

test('CRIU sends to our page server, and what comes is restored', async (t) => {
  const { criu } = await fetchCriu();
  const { target, pid } = await started(t, 'written');
  const server = await ours(t, target, placeOf(target));
  target.shell(`mkdir -p ${target.image}`);
  const to = ['--page-server', '--address', '127.0.0.1', '--port', server.port];
  criu('dump', '-t', `${pid}`, '-D', target.image, ...to);
  assert.deepEqual(await server.ended, [0, null], server.said());
  await target.gone(pid);
  bring(target, target.image, placeOf(target));
  await isWell(target, pid, placeOf(target));
});

/** Restores lazily in a PID namespace, as the process ids are not free here, and ends what was restored. */
const ELSEWHERE = `
$OURS restore -D $IMAGE -d 2>../refused && exit 3
$LAZY -D $IMAGE --page-server --address 127.0.0.1 --port $PORT &
lazy=$!
# The name is there before it listens (__SO_ACCEPTCON).
until [ -S lazy-pages.socket ] && grep -q ' 00010000 .*lazy-pages.socket$' /proc/net/unix; do sleep 0.01; done
$RESTORE -D $IMAGE --lazy-pages -d || exit 1
wait $lazy || exit 2
kill -TERM $PID
while kill -0 $PID 2>/dev/null; do sleep 0.01; done
`;

for (const whose of ['ours', 'those of CRIU']) {
  test(`memory that stays where it is until it is asked for: lazy-pages and restore are ${whose}`, async (t) => {
    const target = Bench.of(t);
    // One that moves and drops memory meanwhile is lost with CRIU's lazy-pages, also where CRIU itself has dumped it.
    const pid = whose === 'ours' ? target.start(target.compile('written')) : target.start('python3', ['-c', PARTLY]);
    await target.says('ready');
    const save = ['checkpoint', '-t', `${pid}`, '-D', target.image, '--lazy-pages', '--port', '0'];
    const line = [target.node, target.main, ...save] as const;
    const { port, ended, said } = await waiting(t, line, /waiting on 127\.0\.0\.1 port (\d+)/);
    // It has the image and stands still.
    assert.equal(field(pid, 'State'), 't');
    const ours = `${target.node} ${target.main}`;
    const tool = whose === 'ours' ? ours : (await fetchCriu()).command.join(' ');
    execFileSync('unshare', ['--pid', '--fork', '--mount-proc', 'sh', '-c', ELSEWHERE], {
      cwd: target.image,
      env: {
        ...process.env,
        OURS: ours,
        ...{ LAZY: `${tool} lazy-pages`, RESTORE: `${tool} restore`, IMAGE: target.image, PORT: port, PID: `${pid}` },
      },
      stdio: 'pipe',
      timeout: 120_000,
    });
    assert.deepEqual(await ended, [0, null], said());
    await target.gone(pid);
    assert.match(target.log, /ok\n$/);
    assert.match(readFileSync(join(target.folder, 'refused'), 'utf8'), /a page server has them.*--lazy-pages/);
  });
}

test('memory that nobody asks for to its end stays, and its program goes on', async (t) => {
  const { target, pid } = await started(t, 'written');
  const save = ['checkpoint', '-t', `${pid}`, '-D', target.image, '--lazy-pages', '--port', '0'];
  const line = [target.node, target.main, ...save] as const;
  const { port, ended, said } = await waiting(t, line, /waiting on 127\.0\.0\.1 port (\d+)/);
  createConnection(Number(port), '127.0.0.1').end();
  assert.deepEqual(await ended, [1, null], said());
  assert.match(said(), /closed the connection/);
  assert.notEqual(field(pid, 'State'), 't');
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('what builds on an image that the page server has not is refused, and goes on', async (t) => {
  const { target, pid } = await started(t, 'written');
  const [first, second] = ['1', '2'].map((name) => join(target.folder, name)) as [string, string];
  assert.equal(target.tideover('pre-dump', '-t', `${pid}`, '-D', first).status, 0);
  const server = await ours(t, target, placeOf(target));
  const to = ['--page-server', '--port', server.port, '--prev-images-dir', '../1'];
  const refused = target.tideover('checkpoint', '-t', `${pid}`, '-D', second, ...to);
  assert.equal(refused.status, 3, refused.stderr);
  assert.match(refused.stderr, /no earlier image.*--prev-images-dir/);
  assert.notDeepEqual(await server.ended, [0, null]);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a page server that goes away, or is none, changes nothing; one whose client goes away leaves nothing', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('state'));
  await target.says('ready');
  const server = await ours(t, target, placeOf(target));
  const client = createConnection(Number(server.port), '127.0.0.1');
  client.write(Buffer.alloc(48));
  client.end();
  assert.notDeepEqual(await server.ended, [0, null]);
  assert.deepEqual(readdirSync(placeOf(target)), []);
  const to = ['--page-server', '--port', server.port];
  const saved = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, ...to);
  assert.equal(saved.status, 1, saved.stderr);
  assert.match(saved.stderr, /connect.*ECONNREFUSED/);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});
