/** Options by which CRIU's callers join it to their own programs. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  lchownSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { rootTest as test } from '../root.ts';
import { Bench, killTree, program, stopped } from './target.ts';

/** A program that waits for SIGTERM. */
async function waiting(t: TestContext): Promise<{ target: Bench; pid: number; script: (body: string) => string }> {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', WAITS]);
  await target.says('ready');
  const script = (body: string) => {
    const file = join(target.folder, 'script');
    writeFileSync(file, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    return file;
  };
  return { target, pid, script };
}

const WAITS = `
import os, signal
signal.signal(signal.SIGTERM, lambda *_: None)
print('ready', flush=True)
signal.pause()
print('ok, child of', os.getppid(), flush=True)
`;

test('action scripts are told the moment, the image and the process, which is stopped meanwhile', async (t) => {
  const { target, pid, script } = await waiting(t);
  const seen = join(target.folder, 'seen');
  const state = "sed -n 's/^State:.\\(.\\).*/\\1/p' /proc/$CRTOOLS_INIT_PID/status";
  const file = script(
    `echo $CRTOOLS_SCRIPT_ACTION $CRTOOLS_IMAGE_DIR $CRTOOLS_INIT_PID $(${state}) >> ${seen}; echo said`,
  );
  const dumped = target.tideover('dump', '-t', `${pid}`, '-D', target.image, '--action-script', file, '--json');
  assert.equal(dumped.status, 0, dumped.stderr);
  assert.equal(JSON.parse(dumped.stdout).processes, 1);
  await target.gone(pid);
  const pidfile = join(target.folder, 'pid');
  const restored = target.tideover('restore', '-D', target.image, '-d', '--action-script', file, '--pidfile', pidfile);
  assert.equal(restored.status, 0, restored.stderr);
  assert.equal(readFileSync(pidfile, 'utf8'), `${pid}`);
  const lines = readFileSync(seen, 'utf8').trim().split('\n');
  // On a busy machine it may not have begun to wait.
  const goesOn = (line: string, moment: string) =>
    assert.match(line, new RegExp(`^${moment} ${target.image} ${pid} [^tT]$`));
  goesOn(lines[0]!, 'pre-dump');
  assert.deepEqual(lines.slice(1, 5), [
    `post-dump ${target.image} ${pid} t`,
    `pre-restore ${target.image}`,
    `post-restore ${target.image} ${pid} t`,
    `pre-resume ${target.image} ${pid} t`,
  ]);
  goesOn(lines[5]!, 'post-resume');
  process.kill(pid, 'SIGTERM');
  await target.says('ok');
});

test('a script that fails undoes it', async (t) => {
  const { target, pid, script } = await waiting(t);
  const fails = (moment: string) => script(`[ $CRTOOLS_SCRIPT_ACTION != ${moment} ]`);
  for (const moment of ['pre-dump', 'post-dump']) {
    const dumped = target.tideover('dump', '-t', `${pid}`, '-D', target.image, '--action-script', fails(moment));
    assert.equal(dumped.status, 1, dumped.stderr);
    assert.match(dumped.stderr, new RegExp(`script at ${moment}`));
    assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^State:\t[^tT]/m);
  }
  assert.equal(target.tideover('dump', '-t', `${pid}`, '-D', target.image).status, 0);
  await target.gone(pid);
  const pidfile = join(target.folder, 'pid');
  const restore = ['restore', '-D', target.image, '-d', '--pidfile', pidfile, '--action-script'];
  for (const moment of ['pre-restore', 'post-restore', 'pre-resume']) {
    const restored = target.tideover(...restore, fails(moment));
    assert.equal(restored.status, 1, restored.stderr);
    assert.ok(!existsSync(pidfile));
    await target.gone(pid);
  }
  // There is no folder for it.
  const nowhere = target.tideover('restore', '-D', target.image, '-d', '--pidfile', join(target.folder, 'none', 'pid'));
  assert.equal(nowhere.status, 1, nowhere.stderr);
  await target.gone(pid);
  assert.equal(target.tideover('restore', '-D', target.image, '-d').status, 0);
  process.kill(pid, 'SIGTERM');
  await target.says('ok');
});

test('a script that fails at post-dump keeps the processes from ending, and whoever reads the stream from going on with them', async (t) => {
  const { target, pid, script } = await waiting(t);
  const { main, node, folder } = target;
  const shell = (line: string) => spawnSync('sh', ['-c', line], { cwd: folder, encoding: 'utf8', timeout: 300_000 });
  const dump = (body: string, to: string) =>
    shell(`${node} ${main} dump -t ${pid} -D - --action-script ${script(body)} >${to}`);
  const failed = dump('[ $CRTOOLS_SCRIPT_ACTION != post-dump ]', 'endless');
  assert.equal(failed.status, 1, failed.stderr);
  assert.match(failed.stderr, /script at post-dump/);
  assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^State:\t[^tT]/m);
  const dumped = dump('true', 'whole');
  assert.equal(dumped.status, 0, dumped.stderr);
  await target.gone(pid);
  const restore = (from: string) => shell(`${node} ${main} restore -D - -d <${from}`);
  const refused = restore('endless');
  assert.equal(refused.status, 5, refused.stderr);
  assert.match(refused.stderr, /the end of the stream/);
  const restored = restore('whole');
  assert.equal(restored.status, 0, restored.stderr);
  process.kill(pid, 'SIGTERM');
  await target.says('ok');
});

test('--restore-sibling and --exec-cmd choose the parent', async (t) => {
  const { target, pid } = await waiting(t);
  assert.equal(target.tideover('dump', '-t', `${pid}`, '-D', target.image, '-R').status, 0);
  process.kill(pid, 'SIGKILL');
  await target.gone(pid);
  const parent = ({ stdout }: { stdout: string }) => /^PPid:\t(\d+)$/m.exec(stdout)![1];
  // The shell waits for its unknown child when it ends.
  const show = `grep PPid: /proc/${pid}/status; echo me $$; kill -9 ${pid}; wait`;
  const { node, main } = target;
  const sibling = spawnSync('sh', ['-c', `${node} ${main} restore -D ${target.image} -d -S; ${show}`], {
    encoding: 'utf8',
  });
  assert.equal(parent(sibling), /me (\d+)/.exec(sibling.stdout)![1], sibling.stderr);
  await target.gone(pid);

  const command = ['restore', '-D', target.image, '--exec-cmd', '--', 'sh', '-c', show];
  const become = spawnSync(node, [main, ...command], { encoding: 'utf8' });
  assert.equal(parent(become), /me (\d+)/.exec(become.stdout)![1], become.stderr);
  await target.gone(pid);

  for (const wrong of [['-S'], ['--exec-cmd'], ['-d', 'sh']]) {
    assert.equal(target.tideover('restore', '-D', target.image, ...wrong).status, 2);
  }
});

test('the log, the work directory and the statistics', async (t) => {
  const { target, pid } = await waiting(t);
  const work = join(target.folder, 'elsewhere');
  execFileSync('mkdir', [work]);
  const line = [
    '-D',
    target.image,
    '-W',
    work,
    '-o',
    'log',
    '-v4',
    '--display-stats',
    '--log-pid',
    '--no-default-config',
  ];
  const dumped = target.tideover('dump', '-t', `${pid}`, ...line, '-s');
  assert.equal(dumped.status, 0, dumped.stderr);
  assert.match(dumped.stdout, /^freezing [\d.]+ ms, frozen [\d.]+ ms\nmemory \d+ bytes, \d+ pages\n$/);
  assert.match(readFileSync(join(work, 'log'), 'utf8'), /checkpoint: \{"processes":1,/);
  await stopped(pid);
  process.kill(pid, 'SIGKILL');
  await target.gone(pid);
  const restored = target.tideover('restore', ...line, '-d', '-s', '--pidfile', 'pid');
  assert.equal(restored.status, 0, restored.stderr);
  assert.equal(restored.stdout, '1 process, 1 thread\n');
  assert.ok(existsSync(join(work, 'pid')));
  await stopped(pid);
  // It comes before pause(2) is made again, and must end it all the same.
  process.kill(pid, 'SIGTERM');
  process.kill(pid, 'SIGCONT');
  await target.says('ok');
});

test('--link-remap keeps files that lost one of their names', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', LINKS]);
  await target.says('ready');
  const work = join(target.folder, 'work');
  const refused = target.tideover('dump', '-t', `${pid}`, '-D', target.image);
  assert.equal(refused.status, 3);
  assert.match(refused.stderr, /work\/gone: .*--link-remap/);
  const script = join(target.folder, 'script');
  writeFileSync(script, '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]\n', { mode: 0o755 });
  const dump = ['dump', '-t', `${pid}`, '-D', target.image, '--link-remap'];
  // It fails when all is written.
  const failed = target.tideover(...dump, '--action-script', script);
  assert.equal(failed.status, 1, failed.stderr);
  assert.match(failed.stderr, /post-dump/);
  assert.deepEqual(readdirSync(work).sort(), ['other', 'replaced']);
  assert.ok(!existsSync(target.image));
  const before = target.tideover(...dump.with(4, `${target.image}-before`), '--leave-running');
  assert.equal(before.status, 0, before.stderr);
  const names = readdirSync(work).sort();
  const dumped = target.tideover(...dump);
  assert.equal(dumped.status, 0, dumped.stderr);
  await target.gone(pid);
  const restored = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(restored.status, 0, restored.stderr);
  // Those of the image before are its own.
  assert.deepEqual(readdirSync(work).sort(), names);
  for (const name of names.filter((each) => each.startsWith('link_remap.'))) rmSync(join(work, name));
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

const LINKS = `
import os, signal
signal.signal(signal.SIGTERM, lambda *_: None)
gone, second, replaced = open('gone', 'w+'), open('gone', 'r'), open('replaced', 'w+')
gone.write('text'); gone.flush()
os.link('gone', 'other'); os.unlink('gone')
os.link('replaced', 'hidden'); os.unlink('replaced'); os.rename('hidden', 'replaced2')
open('replaced', 'w').write('another')
os.link('replaced2', 'other2'); os.unlink('replaced2'); os.rename('other2', '../elsewhere')
print('ready', flush=True)
signal.pause()
same = os.fstat(gone.fileno()).st_ino == os.stat('other').st_ino == os.fstat(second.fileno()).st_ino
same = same and os.fstat(replaced.fileno()).st_ino == os.stat('../elsewhere').st_ino and os.fstat(replaced.fileno()).st_nlink == 1
same = same and os.fstat(gone.fileno()).st_nlink == 1 and os.readlink('/proc/self/fd/%d' % gone.fileno()).endswith('/gone (deleted)')
print('ok' if same and second.read() == 'text' and open('replaced').read() == 'another' else 'faults', flush=True)
`;

test('a symbolic link in place of a file is followed where root has put it there, and nobody else', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', ['-c', READS]);
  await target.says('ready');
  assert.equal(target.tideover('dump', '-t', `${pid}`, '-D', target.image).status, 0);
  await target.gone(pid);
  const [file, secret] = ['file', 'secret'].map((name) => join(target.folder, 'work', name)) as [string, string];
  renameSync(file, `${file}.old`);
  writeFileSync(secret, 'SECRET');
  symlinkSync('../work/secret', file);
  lchownSync(file, 65_534, 65_534);
  const refused = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(refused.status, 3, refused.stderr);
  assert.match(refused.stderr, /work\/file is a symbolic link of user 65534 now/);
  lchownSync(file, 0, 0);
  const followed = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(followed.status, 0, followed.stderr);
  process.kill(pid, 'SIGTERM');
  await target.says('SECRET');
});

const READS = `
import signal
file = open('file', 'w+')
file.write('public'); file.flush()
signal.signal(signal.SIGTERM, lambda *_: None)
print('ready', flush=True)
signal.pause()
file.seek(0)
print(file.read(), flush=True)
`;

test('a pipe, a socket and a file that are not part of the image', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('python3', [program('external.py')]);
  const said = /outside (\d+) (\d+) into (\d+) config (\d+) ready/.exec(await target.says('ready'))!;
  const [outside, out, into, config] = said.slice(1).map(Number) as [number, number, number, number];
  t.after(() => killTree(outside));
  const inode = (fd: number) => inodeOf(pid, fd);
  const mount = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${config}`, 'utf8'))![1]!;
  const file = `file[${Number(mount).toString(16)}:${inode(config).toString(16)}]`;
  const checkpoint = ['checkpoint', '-t', `${pid}`, '-D', target.image];
  const all = [...checkpoint, '--external', file, '--ext-unix-sk', '--external', `pipe[${inode(into)}]`];
  for (const [args, status, why] of [
    [checkpoint, 3, /pipe:\[\d+\].*--external 'pipe:/],
    [all.slice(0, 7), 3, /--external 'pipe:/],
    [[...checkpoint, '--external', `pipe[${inode(into)}]`], 3, /--ext-unix-sk/],
    [[...checkpoint, '--external', 'net[1]:x'], 3, /--external net/],
    [[...checkpoint, '--external', 'nothing'], 2, /is not file\[MNT:INODE\]/],
    [all, 0, /^/],
  ] as const) {
    const result = target.tideover(...args);
    assert.equal(result.status, status, result.stderr);
    assert.match(result.stderr, why);
  }
  await target.gone(pid);
  for (const [args, status, why] of [
    [[], 3, /--inherit-fd 'fd\[N\]:/],
    [['--inherit-fd', 'fd[999]:pipe[1]'], 2, /without a descriptor 999/],
  ] as const) {
    const result = target.tideover('restore', '-D', target.image, '-d', ...args);
    assert.equal(result.status, status, result.stderr);
    assert.match(result.stderr, why);
  }
  writeFileSync(join(target.folder, 'other'), 'brought');
  const pipe = `--inherit-fd 'fd[5]:pipe:[${inodeOf(outside, out)}]' 5>/proc/${outside}/fd/${out}`;
  target.shell(
    `${target.node} ${target.main} restore -D ${target.image} -d ${pipe} --inherit-fd '${`fd[6]:${file}`}' 6<other`,
  );
  process.kill(pid, 'SIGTERM');
  await target.says('ok\n');
});

function inodeOf(pid: number, fd: number): number {
  return statSync(`/proc/${pid}/fd/${fd}`).ino;
}
