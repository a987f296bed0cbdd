/** Programs of nothing but system calls, run by this kernel. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { AT_FDCWD, O_CREAT, O_RDWR } from '../../../src/abi/fcntl.ts';
import { NR } from '../../../src/abi/unistd.ts';
import { batchProgram, type Call } from '../../../src/asm/program.ts';

const folder = mkdtempSync(join(tmpdir(), 'program-'));
after(() => rmSync(folder, { recursive: true }));

function run(name: string, calls: readonly Call[]) {
  const file = join(folder, name);
  writeFileSync(file, batchProgram(calls), { mode: 0o755 });
  return spawnSync(file, { encoding: 'utf8' });
}

test('performs its calls, with the descriptor that one of them got, and becomes another program', () => {
  const file = join(folder, 'file');
  const open: Call = { nr: NR.openat, args: [AT_FDCWD, file, O_CREAT | O_RDWR, 0o600], orSay: 'no file\n' };
  const { status, stdout } = run('all', [
    { nr: NR.close, args: [99] },
    open,
    { nr: NR.write, args: [{ resultOf: open }, Buffer.from('written'), 7] },
    {
      nr: NR.execve,
      args: ['/bin/sh', ['sh', '-c', `echo "$VALUE $(cat ${file})"`], ['VALUE=5', 'PATH=/bin:/usr/bin']],
    },
  ]);
  assert.equal(stdout, '5 written\n');
  assert.equal(status, 0);
});

test('says what could not be done, and ends there with the errno', () => {
  const missing: Call = { nr: NR.openat, args: [AT_FDCWD, join(folder, 'none'), 0], orSay: 'there is no such file\n' };
  const later: Call = { nr: NR.execve, args: ['/bin/true', ['true'], []], orSay: 'later\n' };
  const { status, stderr } = run('fails', [{ nr: NR.getpid, args: [] }, missing, later]);
  assert.equal(stderr, 'there is no such file\n');
  assert.equal(status, 2);
});

test('ends with 0 behind its last call', () => {
  assert.equal(run('ends', [{ nr: NR.getpid, args: [], orSay: 'no PID' }]).status, 0);
});
