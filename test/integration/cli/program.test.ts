/** The program as it is installed: launcher, bundle and Node. `node scripts/build.ts` builds it. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { isSupported } from '../../../src/cli/node-version.ts';

const root = new URL('../../..', import.meta.url).pathname;
const launcher = `${root}tideover`;
const bundle = `${root}dist/tideover.mjs`;

function run(command: string, args: string[]) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  return { status, stdout, stderr };
}

test('the version is that of the package', () => {
  const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
  const expected = { status: 0, stdout: `${version}\n`, stderr: '' };
  assert.deepEqual(run(launcher, ['--version']), expected);
  assert.deepEqual(run(launcher, ['-V', '--json']), expected);
});

test('links to the launchers start the program, from any folder', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-links-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
  for (const target of [launcher, `${root}bin/tideover`]) {
    const link = join(folder, 'tideover');
    rmSync(link, { force: true });
    symlinkSync(target, link);
    assert.deepEqual(run(link, ['--version']), { status: 0, stdout: `${version}\n`, stderr: '' });
  }
});

test('a Node that is too old is named in one line, before anything else happens', () => {
  const pretend = `
    Object.defineProperty(process, 'version', { value: 'v20.1.0' });
    Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.1.0' } });`;
  const preload = `data:text/javascript,${encodeURIComponent(pretend)}`;
  for (const args of [['check'], ['--version'], ['--nonsense']]) {
    const { status, stdout, stderr } = run(process.execPath, ['--import', preload, bundle, ...args]);
    assert.equal(status, 2);
    assert.equal(stdout, '');
    assert.match(stderr, /^tideover: needs Node \^24\.11\.0 \|\| >=26, but this is Node v20\.1\.0 \([^\n]*\n$/);
  }
});

test("the machine's own Node, where it is too old, gets as far as saying so", () => {
  // Only some machines have one; what it must do is the same as above.
  for (const node of ['/usr/bin/node', '/usr/local/bin/node'].filter(existsSync)) {
    const version = run(node, ['--version']).stdout.trim();
    if (isSupported(version.slice(1))) continue;
    const { status, stdout, stderr } = run(node, [bundle, 'check']);
    assert.deepEqual([status, stdout], [2, '']);
    assert.ok(stderr.startsWith(`tideover: needs Node ^24.11.0 || >=26, but this is Node ${version} (`), stderr);
    assert.equal(stderr.split('\n').length, 2);
  }
});

test('a wrong command is suggested a right one, exit 2', () => {
  assert.deepEqual(run(launcher, ['chek']), {
    status: 2,
    stdout: '',
    stderr: "tideover: unknown command 'chek'; did you mean 'check'?\n",
  });
});

test('a pipe with an image is left as it is: waited for if it does not block, and blocking if it does', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-pipe-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const set = 'import fcntl, os; fcntl.fcntl(3, fcntl.F_SETFL, os.O_RDWR';
  const restore = `"${launcher}" restore -D - -d --pidfile pid <&3; echo $?; grep flags: /proc/self/fdinfo/3`;
  for (const [also, flags] of [
    ['', '0100002'],
    [' | os.O_NONBLOCK', '0104002'],
  ]) {
    const line = `rm -f pipe; mkfifo pipe; exec 3<>pipe; python3 -c '${set}${also})'
      { sleep 0.5; head -c 512 /dev/zero | tr '\\0' x >&3; } & ${restore}; wait`;
    const { status, stdout, stderr } = spawnSync('sh', ['-c', line], { cwd: folder, encoding: 'utf8' });
    assert.deepEqual([status, stdout], [0, `5\nflags:\t${flags}\n`], stderr);
    assert.match(stderr, /^tideover: stdin/);
  }
});

test('a reader that goes away is no failure', async () => {
  const child = spawn(launcher, ['check', '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.destroy();
  let stderr = '';
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  const [status] = await once(child, 'close');
  assert.deepEqual([status, stderr], [0, '']);
});

/** A command that waits until it is aborted and then needs a while to put things in order. */
function waiting(tidyUp: number) {
  const app = new URL('../../../src/cli/app.ts', import.meta.url).href;
  const source = `
    import { main } from ${JSON.stringify(app)};
    import { setTimeout } from 'node:timers/promises';
    const run = async (io) => {
      console.log('waiting');
      await setTimeout(60_000, undefined, { signal: io.signal }).finally(() => setTimeout(${tidyUp}));
    };
    const program = { name: 'prog', summary: '', commands: [{ name: 'wait', summary: '', run }] };
    const { stdout, stderr, env } = process;
    process.exitCode = await main(['wait'], { stdout, stderr, env }, program);`;
  return spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['ignore', 'pipe', 'pipe'] });
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} aborts the command, exit 130`, async () => {
    const child = waiting(0);
    let stderr = '';
    child.stderr.on('data', (text) => {
      stderr += text;
    });
    await once(child.stdout, 'data');
    child.kill(signal);
    const [status] = await once(child, 'close');
    assert.deepEqual([status, stderr], [130, 'tideover: interrupted\n']);
  });
}

test('a second signal ends what does not end', async () => {
  const child = waiting(60_000);
  await once(child.stdout, 'data');
  const again = setInterval(() => child.kill('SIGINT'), 50);
  const [status] = await once(child, 'close');
  clearInterval(again);
  assert.equal(status, 130);
});
