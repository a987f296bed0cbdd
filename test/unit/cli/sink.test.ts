import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import test from 'node:test';

const module = new URL('../../../src/cli/sink.ts', import.meta.url).href;

/** Runs `code` with a sink on a pipe (of a shell, as a pipe of Node is a socket). */
function child(code: string, reader: string) {
  const source = `
    const { sink } = await import(${JSON.stringify(module)});
    const stdout = sink(1, () => process.stdout);
    ${code}`;
  const line = '"$0" --input-type=module -e "$1" | eval "$2"';
  return spawn('bash', ['-o', 'pipefail', '-c', line, process.execPath, source, reader], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

const MEGABYTE = "'0123456789abcdef'.repeat(65536)";

test('all that is written arrives in its order, also where the pipe does not block and is full', async () => {
  // As a stream of Node it does not block from then on.
  for (const first of ['', 'process.stdout;']) {
    const run = child(
      `${first} stdout.write('first\\n'); stdout.write(${MEGABYTE}); stdout.write('last');`,
      'sleep 0.2; cat',
    );
    const [got, errors, [status]] = await Promise.all([text(run.stdout), text(run.stderr), once(run, 'close')]);
    assert.deepEqual([status, errors], [0, '']);
    assert.equal(got, `first\n${'0123456789abcdef'.repeat(65536)}last`);
  }
});

test('where nobody reads any more the work goes on', async () => {
  const code = `for (let i = 0; i < 4; i++) stdout.write(${MEGABYTE}); process.exitCode = 7;`;
  for (const first of ['', 'process.stdout;']) {
    const run = child(`${first} ${code}`, 'head -c 1');
    const [got, errors, [status]] = await Promise.all([text(run.stdout), text(run.stderr), once(run, 'close')]);
    assert.deepEqual([got, errors, status], ['0', '', 7]);
  }
});
