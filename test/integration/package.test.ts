/** The package as others get it: packed, installed beside an older Node, started. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

const root = new URL('../..', import.meta.url).pathname;
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

/** A checkout of its own, so that other tests' dist/ stays as it is. */
function checkout(t: test.TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-package-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const source = join(folder, 'source');
  const left = new Set(['node_modules', 'dist', '.git'].map((name) => join(root, name)));
  cpSync(root, source, { recursive: true, filter: (path) => !left.has(path) });
  symlinkSync(join(root, 'node_modules'), join(source, 'node_modules'));
  return folder;
}

/** npm, which brings a shell script's idea of Node: whatever is first on PATH. */
function npm(args: string[], cwd: string): void {
  execFileSync('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], { cwd, stdio: 'pipe' });
}

test('the packed package runs on the Node it brings, whatever Node the machine has', (t) => {
  const folder = checkout(t);
  npm(['pack', '--pack-destination', folder], join(folder, 'source'));
  const prefix = join(folder, 'prefix');
  npm(['install', '--global', '--prefix', prefix, '--prefer-offline', `./tideover-${version}.tgz`], folder);

  const old = join(folder, 'old');
  mkdirSync(old);
  writeFileSync(join(old, 'node'), '#!/bin/sh\necho "the machine\'s old Node was started" >&2\nexit 99\n');
  chmodSync(join(old, 'node'), 0o755);
  const env = { ...process.env, PATH: `${join(prefix, 'bin')}:${old}:/usr/bin:/bin` };
  const run = (...args: string[]) => spawnSync('tideover', args, { cwd: folder, env, encoding: 'utf8' });

  assert.deepEqual({ ...outcome(run('--version')) }, { status: 0, stdout: `${version}\n`, stderr: '' });
  const check = run('check', '--json');
  assert.equal(check.status, 0, check.stderr);
  // A system call was made, so koffi.node was found.
  const rows = (JSON.parse(check.stdout) as { rows: { id: string; answer: string }[] }).rows;
  assert.ok(rows.some(({ id, answer }) => id === 'kcmp' && answer === 'yes'));

  const installed = join(prefix, 'lib/node_modules/tideover');
  const imported = spawnSync(
    process.execPath,
    ['-e', `import('${installed}/dist/sys/process.js').then((process) => console.log(process.getpid({}) > 0))`],
    { encoding: 'utf8' },
  );
  assert.deepEqual(outcome(imported), { status: 0, stdout: 'true\n', stderr: '' });
});

function outcome({ status, stdout, stderr }: { status: number | null; stdout: string; stderr: string }) {
  return { status, stdout, stderr };
}
