import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { CommandError, run } from '../../../lab/command.ts';

test('stdout, lines of both outputs, directory and environment', async () => {
  const lines: string[] = [];
  const script = 'echo "$PWD $A $(printenv B || echo unset)"; echo oops >&2; printf last';
  process.env.B = 'set';
  const stdout = await run(['sh', '-c', script], {
    cwd: '/usr',
    env: { A: 'a', B: undefined },
    onLine: (line) => lines.push(line),
  });
  assert.equal(stdout, '/usr a unset\nlast');
  assert.deepEqual(lines.sort(), ['/usr a unset', 'last', 'oops']);
});

test('arguments arrive as they are, and stdin is empty', async () => {
  assert.equal(await run(['printf', '%s|', 'a b', '$HOME', '"']), 'a b|$HOME|"|');
  assert.equal(await run(['cat']), '');
});

test('a failure names the command, its status and what it said', async () => {
  await assert.rejects(run(['sh', '-c', 'echo why >&2; exit 7']), (error) => {
    return (
      error instanceof CommandError &&
      error.status === 7 &&
      error.message.endsWith('failed with status 7:\nwhy\n'.trimEnd())
    );
  });
  await assert.rejects(run(['/nowhere/program']), { status: 127 });
});

test('a program and its children end when the process that ran it is killed', async () => {
  const script = `
    import { run } from ${JSON.stringify(import.meta.resolve('../../../lab/command.ts'))};
    const onLine = (line) => console.log(line);
    await run(['sh', '-c', 'sleep 1000 & echo $! $$; wait'], { onLine });`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const pids = await new Promise<string[]>((resolve) => {
    parent.stdout.once('data', (text) => resolve(String(text).trim().split(' ')));
  });
  assert.equal(pids.length, 2);
  assert.ok(pids.every(alive));
  parent.kill('SIGKILL');
  const end = performance.now() + 300_000;
  while (pids.some(alive) && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(pids.filter(alive), []);
});

/** A zombie that nobody has waited for yet is not alive. */
function alive(pid: string): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
