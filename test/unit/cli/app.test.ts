import assert from 'node:assert/strict';
import test from 'node:test';
import { main } from '../../../src/cli/app.ts';
import { wantsColor } from '../../../src/cli/color.ts';
import { type Command, command } from '../../../src/cli/command.ts';
import { UnsupportedError } from '../../../src/errors.ts';

const program: Command = {
  name: 'prog',
  summary: 'A program',
  commands: [
    command({
      name: 'good',
      summary: 'Works',
      async run(io) {
        io.info('info');
        io.detail('detail');
        io.debug('debug');
        io.warn('careful\x1b[2J');
        return { json: { answer: 42 }, text: ({ paint }) => [`the answer is ${paint('green', '42')}`] };
      },
    }),
    command({
      name: 'refuses',
      summary: 'Refuses',
      async run() {
        throw new UnsupportedError({ what: '\x1b]0;x\x07io_uring', pid: 7, why: 'busy', remedy: 'wait' });
      },
    }),
    command({
      name: 'works',
      summary: 'Takes a while',
      async run(io) {
        const progress = io.progress({ label: 'saving', unit: 'items' });
        progress.update(1);
        io.warn('slow');
        io.info('still');
        progress.end();
        return { json: {}, text: () => [] };
      },
    }),
    command({
      name: 'quotes',
      summary: 'Shows what others wrote',
      async run() {
        return { json: { name: 'a\x1b[2J\x9b2J\u202e\n' }, text: () => [] };
      },
    }),
    command({
      name: 'breaks',
      summary: 'Has a bug',
      async run() {
        throw new TypeError('oops', { cause: new Error('deeper') });
      },
    }),
  ],
};

async function run(line: string, { terminal = false, env = {} } = {}) {
  const got = { stdout: '', stderr: '', exit: -1 };
  const stream = (name: 'stdout' | 'stderr') => ({
    isTTY: terminal,
    columns: 60,
    write: (text: string) => {
      got[name] += text;
    },
  });
  got.exit = await main(line.split(' '), { stdout: stream('stdout'), stderr: stream('stderr'), env }, program);
  return got;
}

test('the result goes to stdout, all else to stderr', async () => {
  const { stdout, stderr, exit } = await run('good');
  assert.equal(exit, 0);
  assert.equal(stdout, 'the answer is 42\n');
  assert.equal(stderr, 'info\ntideover: warning: careful\n');
});

test('how much is said', async () => {
  assert.equal((await run('good -q')).stderr, 'tideover: warning: careful\n');
  assert.match((await run('good -v')).stderr, /^info\ndetail\ntideover/);
  assert.match((await run('good -vv')).stderr, /^info\ndetail\ndebug\ntideover/);
});

test('messages do not run into the line of progress', async () => {
  const { stderr } = await run('works', { terminal: true, env: { NO_COLOR: '1' } });
  assert.equal(stderr, '\rsaving: 1\x1b[K\r\x1b[Ktideover: warning: slow\nstill\n');
  assert.equal((await run('works')).stderr, 'tideover: warning: slow\nstill\n');
});

test('with --json stdout is one document, result or error', async () => {
  assert.deepEqual(JSON.parse((await run('good --json')).stdout), { answer: 42 });
  const refused = await run('refuses --json');
  assert.equal(refused.exit, 3);
  const { error } = JSON.parse(refused.stdout);
  assert.deepEqual([error.code, error.exit, error.pid, error.remedy], ['unsupported', 3, 7, 'wait']);
  assert.match(refused.stderr, /^tideover: process 7: io_uring: busy; wait\n$/);
  assert.equal(JSON.parse((await run('--json god')).stdout).error.code, 'usage');
});

test('a JSON document holds the text of others whole, and cannot steer the terminal either', async () => {
  const { stdout } = await run('quotes --json');
  assert.match(stdout, /^[\n\x20-\x7e]*$/);
  assert.deepEqual(JSON.parse(stdout), { name: 'a\x1b[2J\x9b2J\u202e\n' });
});

test('errors are one line, and cannot steer the terminal', async () => {
  assert.deepEqual(await run('refuses'), {
    stdout: '',
    stderr: 'tideover: process 7: io_uring: busy; wait\n',
    exit: 3,
  });
  assert.deepEqual(await run('god'), {
    stdout: '',
    stderr: "tideover: unknown command 'god'; did you mean 'good'?\n",
    exit: 2,
  });
});

test('a bug says that it is one; its place comes with -vv', async () => {
  const short = await run('breaks');
  assert.equal(short.exit, 1);
  assert.match(short.stderr, /^tideover: this is a bug in tideover: oops .*\n$/);
  assert.match((await run('breaks -vv')).stderr, /TypeError: oops\n {4}at [\s\S]*Error: deeper\n {4}at /);
});

test('help goes to stdout', async () => {
  const { stdout, stderr, exit } = await run('good --help');
  assert.equal(exit, 0);
  assert.match(stdout, /^Usage: prog good/);
  assert.equal(stderr, '');
});

test('colour only on a terminal, unless something else is said', async () => {
  const green = /\x1b\[32m42/;
  assert.match((await run('good', { terminal: true })).stdout, green);
  assert.doesNotMatch((await run('good')).stdout, /\x1b/);
  assert.doesNotMatch((await run('good', { terminal: true, env: { NO_COLOR: '1' } })).stdout, /\x1b/);
  assert.doesNotMatch((await run('good --color never', { terminal: true })).stdout, /\x1b/);
  assert.match((await run('--color=always good', { env: { NO_COLOR: '1' } })).stdout, green);
  assert.equal(wantsColor('auto', { isTTY: true }, { NO_COLOR: '' }), true);
  assert.equal(wantsColor('auto', { isTTY: true }, { TERM: 'dumb' }), false);
});
