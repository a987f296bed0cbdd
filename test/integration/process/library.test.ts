/** Checkpoint and restore as a program calls them, on others and on itself. */
import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { checkpoint, type Progress, preDump, restore, UnsupportedError } from '../../../src/process/index.ts';
import { rootTest as test } from '../root.ts';
import { Bench, killTree, program, stopped } from './target.ts';

test('a checkpoint and a restore, with what they tell', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('state'));
  await target.says('ready');
  const seen: Progress[] = [];
  const saved = await checkpoint({
    pid,
    images: target.image,
    fileLocks: true,
    onProgress: (progress) => seen.push(progress),
  });
  assert.equal(saved.state, 'continued');
  assert.ok(saved.state === 'continued' && saved.processes === 1 && saved.memory > 0 && saved.frozen > 0);
  for (const { bytes } of seen) assert.ok(bytes >= 0);
  await target.gone(pid);
  const result = await restore({ images: target.image, fileLocks: true });
  assert.deepEqual(result, { pid, processes: 1, threads: saved.threads });
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('an error is that of the part that found it', async (t) => {
  const target = Bench.of(t);
  await assert.rejects(checkpoint({ pid: 1, images: target.image, outcome: 'run' }), (error) => {
    assert.ok(error instanceof UnsupportedError && error instanceof Error);
    assert.equal(error.pid, 1);
    assert.match(error.remedy, /./);
    return true;
  });
  mkdirSync(target.image);
  await assert.rejects(restore({ images: target.image }), { code: 'format' });
});

test('an abort, before and in the middle: the program goes on, and there is no image', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', BIG]);
  await target.says('ready');
  const reason = new Error('changed my mind');
  await assert.rejects(
    checkpoint({ pid, images: target.image, signal: AbortSignal.abort(reason) }),
    (error) => error === reason,
  );
  const early = new AbortController();
  setImmediate(() => early.abort(reason));
  await assert.rejects(checkpoint({ pid, images: target.image, signal: early.signal }), (error) => error === reason);
  // It may be done before this process gets to aborting it.
  for (let done = true; done; ) {
    const controller = new AbortController();
    let bytes = -1;
    const running = checkpoint({
      pid,
      images: target.image,
      outcome: 'run',
      signal: controller.signal,
      onProgress(progress) {
        bytes = progress.bytes;
        controller.abort(reason);
      },
    });
    done = await running.then(
      () => true,
      (error) => {
        assert.equal(error, reason);
        return false;
      },
    );
    assert.ok(done || bytes >= 0, 'it had begun to write');
    if (done) rmSync(target.image, { recursive: true });
  }
  assert.ok(!existsSync(target.image));
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

const BIG = `
import signal
signal.signal(signal.SIGTERM, lambda *_: None)
big = bytes(range(1, 256)) * (400 << 12)
print('ready', flush=True)
signal.pause()
print('ok' if big.count(7) == 400 << 12 else 'faults', flush=True)
`;

test('files that are not part of the image are brought by this process', async (t) => {
  const target = Bench.of(t);
  const { image: images } = target;
  const pid = target.start('python3', [program('external.py')]);
  const said = /outside (\d+) (\d+) into (\d+) config (\d+) ready/.exec(await target.says('ready'))!;
  const [outside, out, into, config] = said.slice(1).map(Number) as [number, number, number, number];
  t.after(() => killTree(outside));
  const inode = (of: number, fd: number) => statSync(`/proc/${of}/fd/${fd}`).ino;
  const mount = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${config}`, 'utf8'))![1]!;
  const file = `file[${Number(mount).toString(16)}:${inode(pid, config).toString(16)}]`;
  const pipe = `pipe[${inode(pid, into)}]`;
  await assert.rejects(checkpoint({ pid, images, external: [file, pipe] }), { code: 'unsupported' });
  await checkpoint({ pid, images, external: [file, pipe], externalSockets: 'all' });
  await target.gone(pid);
  await assert.rejects(restore({ images }), /it is not part of the image/);
  await assert.rejects(restore({ images, inherit: { [pipe]: 9999 } }), { code: 'EBADF' });
  writeFileSync(join(target.folder, 'other'), 'brought');
  const [end, other] = [openSync(`/proc/${outside}/fd/${out}`, 'w'), openSync(join(target.folder, 'other'), 'r+')];
  await restore({ images, inherit: { [pipe]: end, [file]: other } });
  closeSync(end);
  closeSync(other);
  process.kill(pid, 'SIGTERM');
  await target.says('ok\n');
});

test('a connection: refused, or kept, or closed', async (t) => {
  const target = Bench.of(t);
  const { image: images } = target;
  const pid = target.start('python3', ['-c', CONNECTED]);
  await target.says('ready');
  await assert.rejects(checkpoint({ pid, images }), /--tcp-established/);
  await checkpoint({ pid, images, connections: 'kept' });
  await target.gone(pid);
  await restore({ images, stopped: true });
  await stopped(pid);
  await assert.rejects(checkpoint({ pid, images }), /--tcp-established/);
  await checkpoint({ pid, images, connections: 'kept' });
  await target.gone(pid);
  await restore({ images, connections: 'closed' });
  process.kill(pid, 'SIGCONT');
  process.kill(pid, 'SIGTERM');
  await target.says('closed\n');
});

const CONNECTED = `
import signal, socket
signal.signal(signal.SIGTERM, lambda *_: None)
server = socket.create_server(('127.0.0.1', 0))
one = socket.create_connection(server.getsockname())
other, _ = server.accept()
print('ready', flush=True)
signal.pause()
try:
    one.sendall(b'text')
    print('kept' if other.recv(9) == b'text' else 'closed', flush=True)
except OSError:
    print('closed', flush=True)
`;

test('memory before and after, with what is told to scripts', async (t) => {
  const target = Bench.of(t);
  const [images, first] = [target.image, join(target.folder, 'first')];
  const [script, moments] = [join(target.folder, 'script'), join(target.folder, 'moments')];
  writeFileSync(script, `#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION >> ${moments}\n`, { mode: 0o755 });
  const actionScripts = [script];
  const pid = target.start('python3', ['-c', BIG]);
  await target.says('ready');
  const before = await preDump({ pid, images: first, timeout: 5000 });
  assert.ok(before!.memory > 400 << 20 && before!.unchanged === 0, JSON.stringify(before));
  const both = { pid, images, parent: '../first', actionScripts };
  const saved = await checkpoint({ ...both, outcome: 'run', trackMemory: true });
  assert.ok(saved.state === 'continued' && saved.unchanged > 400 << 20, JSON.stringify(saved));
  process.kill(pid, 'SIGKILL');
  await target.gone(pid);
  await restore({ images, lazyPages: true, ignoreCgroups: true, actionScripts });
  process.kill(pid, 'SIGTERM');
  await target.says('ok\n');
  const told = ['pre-dump', 'post-dump', 'pre-restore', 'post-restore', 'pre-resume', 'post-resume'];
  assert.deepEqual(readFileSync(moments, 'utf8').trim().split('\n'), told);
});

test('what no command takes is refused as it is there', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', CONNECTED]);
  await target.says('ready');
  const of = { pid, images: target.image, connections: 'kept', skipInFlight: true } as const;
  await assert.rejects(checkpoint({ ...of, freezeGroup: '/nowhere' }), /\/nowhere/);
  await assert.rejects(checkpoint({ ...of, parent: '../nowhere' }), /nowhere/);
  mkdirSync(target.image);
  const vethPairs = { eth0: { name: 'host0', bridge: 'br@0' } };
  await assert.rejects(restore({ images: target.image, vethPairs }), /eth0=host0@br@0 is not of the form/);
  const mounts = { root: target.folder, external: ['mnt[data]:'], skippedMounts: ['/tmp'] };
  await assert.rejects(
    restore({ images: target.image, ...mounts }),
    /mnt\[data\]: is not of the form mnt\[KEY\]:VALUE/,
  );
});

for (const outcome of ['run', 'kill'] as const) {
  test(`a program that checkpoints itself, and goes on as ${outcome === 'run' ? 'both' : 'the restored one'}`, async (t) => {
    const target = Bench.of(t);
    const temporary = join(target.folder, 'temporary');
    mkdirSync(temporary);
    const line = [process.execPath, '--input-type=module', '-e', SELF, target.image, outcome];
    const pid = target.start('env', [`TMPDIR=${temporary}`, ...line]);
    if (outcome === 'run') {
      await target.says('continued: 1 process\n');
      process.kill(pid, 'SIGKILL');
    }
    await target.gone(pid);
    assert.doesNotMatch(target.log, /restored/);
    // The image has it as it was then.
    truncateSync(join(target.folder, 'log'));
    const { status, stderr } = target.tideover('restore', '-D', target.image, '-d');
    assert.equal(status, 0, stderr);
    await target.says(`restored as ${pid}, 1000 steps, ok\n`);
    assert.deepEqual(readdirSync(temporary), []);
  });
}

const LIBRARY = new URL('../../../src/process/index.ts', import.meta.url).href;

const SELF = `
import { checkpoint } from '${LIBRARY}';
const [images, outcome] = process.argv.slice(1);
let steps = 0;
while (steps < 1000) steps++;
const before = process.hrtime.bigint();
const result = await checkpoint({ pid: process.pid, images, outcome });
if (result.state === 'continued') console.log('continued: ' + result.processes + ' process');
else console.log('restored as ' + process.pid + ', ' + steps + ' steps, ' + (process.hrtime.bigint() > before ? 'ok' : 'faults'));
setInterval(() => undefined, 1000);
`;

test('a program that checkpoints the tree that it is in', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', PARENT, process.execPath, TREE, target.image]);
  await target.gone(pid);
  const { status, stderr } = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(status, 0, stderr);
  assert.match(await target.says(/restored below \d+\n(.*\n)*child ended with 7\n/), new RegExp(`below ${pid}\n`));
});

const PARENT = `
import subprocess, sys
child = subprocess.run([sys.argv[1], '--input-type=module', '-e', sys.argv[2], sys.argv[3]])
print('child ended with', child.returncode, flush=True)
`;

const TREE = `
import { checkpoint } from '${LIBRARY}';
const result = await checkpoint({ pid: process.ppid, images: process.argv[1] });
console.log(result.state + ' below ' + process.ppid);
process.exit(7);
`;
