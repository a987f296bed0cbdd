import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';

/** A machine on which dpkg-query and apt-get are the scripts that a test writes there. */
let machine: string;

beforeEach(() => {
  machine = mkdtempSync(join(tmpdir(), 'tideover-packages-'));
});
afterEach(() => rmSync(machine, { recursive: true }));

function program(name: string, script: string): void {
  writeFileSync(join(machine, name), `#!/bin/sh\ncd ${machine}\n${script}\n`);
  chmodSync(join(machine, name), 0o755);
}

/** What requirePackages('kernels') does there for this effective user: its error's message, or ''. */
function require(euid: number): string {
  const script = `
    import { requirePackages } from ${JSON.stringify(import.meta.resolve('../../../lab/packages.ts'))};
    process.geteuid = () => ${euid};
    await requirePackages('kernels').catch((error) => console.log(error.message));`;
  const env = { ...process.env, PATH: `${machine}:${process.env.PATH}`, TIDEOVER_LAB_CACHE: join(machine, 'cache') };
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], { env, encoding: 'utf8' });
  assert.equal(child.status, 0, child.stderr);
  return child.stdout.trim();
}

const installed = (...names: string[]) =>
  names.map((name) => `echo 'ii  ${name}:amd64  1.0-1  amd64  text'\n`).join('');

test('all there: nothing is done', () => {
  program('dpkg-query', installed('kmod', 'xz-utils', 'zstd'));
  program('apt-get', 'touch called');
  assert.equal(require(0), '');
  assert.equal(existsSync(join(machine, 'called')), false);
});

test('without root: the line that installs what is missing, and removed packages are missing', () => {
  program('dpkg-query', `${installed('xz-utils')}echo 'rc  kmod  1.0-1  amd64  text'\nexit 1`);
  program('apt-get', 'touch called');
  assert.match(require(1000), /install with: sudo apt-get install --no-install-recommends kmod zstd$/);
  assert.equal(existsSync(join(machine, 'called')), false);
});

test('as root: installed without a question', () => {
  program('dpkg-query', `${installed('xz-utils', 'kmod')}exit 1`);
  program('apt-get', 'echo "$DEBIAN_FRONTEND $*" >> called');
  assert.equal(require(0), '');
  const calls = readFileSync(join(machine, 'called'), 'utf8').trim().split('\n');
  assert.equal(calls.length, 1);
  assert.match(calls[0]!, /^noninteractive .*-y .*install --no-install-recommends zstd$/);
});

test('as root with stale package lists: they are brought up to date, once', () => {
  program('dpkg-query', `${installed('xz-utils', 'kmod')}exit 1`);
  program('apt-get', 'for last; do :; done; echo "$last" >> called; [ "$last" = update ] && touch fresh; [ -e fresh ]');
  assert.equal(require(0), '');
  assert.equal(readFileSync(join(machine, 'called'), 'utf8'), 'zstd\nupdate\nzstd\n');
});

test('what cannot be installed is an error with what apt-get said', () => {
  program('dpkg-query', `${installed('xz-utils', 'kmod')}exit 1`);
  program('apt-get', 'echo E: no such package >&2; exit 100');
  assert.match(require(0), /apt-get .*failed with status 100:\nE: no such package$/);
});
