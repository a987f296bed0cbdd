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

test('each part of the library is imported by name, with its types, and works', (t) => {
  const folder = checkout(t);
  npm(['pack', '--pack-destination', folder], join(folder, 'source'));
  const user = join(folder, 'user');
  mkdirSync(user);
  writeFileSync(join(user, 'package.json'), '{"name": "user", "type": "module"}');
  npm(['install', '--prefer-offline', `../tideover-${version}.tgz`], user);

  const names = Object.keys(exportsOf(root)).filter((name) => name !== './package.json');
  writeFileSync(join(user, 'all.js'), names.map((name) => `import 'tideover${name.slice(1)}';`).join('\n'));
  assert.deepEqual(outcome(spawnSync(process.execPath, ['all.js'], { cwd: user, encoding: 'utf8' })), NOTHING);

  writeFileSync(join(user, 'typed.ts'), TYPED);
  const options = ['--strict', '--module', 'nodenext', '--target', 'es2024', '--lib', 'es2024,esnext.disposable'];
  const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules/@types')];
  const tsc = spawnSync(join(root, 'node_modules/.bin/tsc'), [...options, ...types, 'typed.ts'], {
    cwd: user,
    encoding: 'utf8',
  });
  assert.deepEqual(outcome(tsc), NOTHING);
  const run = spawnSync(process.execPath, ['typed.js'], { cwd: user, encoding: 'utf8' });
  assert.deepEqual(outcome(run), { ...NOTHING, stdout: 'no such process\n' });
});

const NOTHING = { status: 0, stdout: '', stderr: '' };

function exportsOf(folder: string): Record<string, unknown> {
  return (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { exports: Record<string, unknown> })
    .exports;
}

/** What a program of somebody else looks like: it is refused a property that does not exist, and gets its errors typed. */
const TYPED = `
import { openDirectory } from 'tideover/image';
import type { KexecStatus } from 'tideover/kexec';
import type { NodeInfo } from 'tideover/pkram';
import { type CheckpointResult, checkpoint, SyscallError } from 'tideover/process';

export type Used = KexecStatus | NodeInfo | ReturnType<typeof openDirectory>;
// @ts-expect-error: there is no such option
const wrong = () => checkpoint({ pid: 1, images: 'x', leaveRuning: true });
void wrong;
const told = (result: CheckpointResult) => (result.state === 'continued' ? result.processes : 0);
try {
  console.log(told(await checkpoint({ pid: 0x3ffffff, images: 'nowhere', outcome: 'run' })));
} catch (error) {
  console.log(error instanceof Error && /ENOENT|ESRCH/.test(error.message) ? 'no such process' : error);
}
void SyscallError;
`;

function outcome({ status, stdout, stderr }: { status: number | null; stdout: string; stderr: string }) {
  return { status, stdout, stderr };
}
