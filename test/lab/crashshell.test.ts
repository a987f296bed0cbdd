/** The shell of `tideover crash VMCORE`: commands out of a pipe, and typed on a terminal; and the page of a real dump in a browser. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { crashDump } from '../../lab/crashes.ts';
import { dumps } from '../../lab/dumps.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import { withPage } from '../browser.ts';

const tideover = new URL('../../bin/tideover', import.meta.url).pathname;
const folder = temporaryFolder();
after(() => removeTemporary(folder));
const TIMEOUT = 600_000;

const { vmcore } = await dumps({ kernel: '6.12', cpus: 1, levels: 4 });

function script(lines: readonly string[], ...args: string[]) {
  const input = lines.map((line) => `${line}\n`).join('');
  return spawnSync(tideover, ['crash', vmcore, ...args], { input, encoding: 'utf8', cwd: folder, timeout: TIMEOUT });
}

test('commands out of a pipe do what they do alone', () => {
  const alone = (...args: string[]) => {
    const [name, ...others] = args as [string, ...string[]];
    return spawnSync(tideover, ['crash', name, vmcore, ...others], { encoding: 'utf8', timeout: TIMEOUT }).stdout;
  };
  const { stdout, stderr, status } = script([
    'ps',
    '',
    '# a remark',
    'bt 1',
    'mod | grep -c virtio',
    'log > log',
    'sys >> log',
    'quit',
    'ps',
  ]);
  assert.deepEqual([stderr, status], ['', 0]);
  assert.equal(stdout, `${alone('ps')}${alone('bt', '1')}4\n`);
  assert.equal(readFileSync(join(folder, 'log'), 'utf8'), alone('log') + alone('sys'));
  assert.equal(statSync(join(folder, 'log')).mode & 0o777, 0o600);
});

test('what fails is told of, and the next goes on', () => {
  const { stdout, stderr, status } = script([
    'nosuch',
    'bt 99999',
    'ps "',
    'struct task_struct.comm init_task',
    'filter x',
  ]);
  assert.equal(stdout, 'task_struct.comm = "swapper/0"\n');
  assert.match(stderr, /unknown command 'nosuch'.*\n.*no task '99999'.*\n.*has no end.*\n.*unknown command 'filter'/);
  assert.equal(status, 2);
  const json = script(['sym nosuch', 'sym panic'], '--json');
  const [first, second] = JSON.parse(json.stdout);
  assert.deepEqual([first.command, first.exit, first.result.error.code], ['sym nosuch', 2, 'usage']);
  assert.deepEqual([second.exit, second.result[0].name], [0, 'panic']);
  assert.equal(json.status, 2);
  assert.equal(spawnSync(tideover, ['crash', '/nonexistent'], { input: '' }).status, 2);
});

test('on a terminal: completion, Ctrl-C, history, programs behind a pipe', { timeout: TIMEOUT }, async () => {
  const env = { ...process.env, XDG_STATE_HOME: folder, TERM: 'xterm', TIDEOVER: tideover, VMCORE: vmcore };
  // script(1) gives it a terminal of its own.
  const shell = spawn('script', ['-qfec', 'stty cols 1000; exec "$TIDEOVER" crash "$VMCORE"', '/dev/null'], {
    env,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const ended = once(shell, 'exit');
  let seen = '';
  let waiting: (() => void) | undefined;
  shell.stdout.setEncoding('utf8').on('data', (text: string) => {
    seen += text;
    waiting?.();
  });
  /** What was printed since the last time, up to where it says so. */
  const until = async (pattern: RegExp): Promise<string> => {
    for (;;) {
      const found = pattern.exec(seen);
      if (found !== null) {
        const end = found.index + found[0].length;
        const text = seen.slice(0, end);
        seen = seen.slice(end);
        return text;
      }
      const more = Promise.withResolvers<void>();
      waiting = more.resolve;
      await more.promise;
    }
  };
  const prompt = /crash> \x1b\[8G/;
  const type = (text: string) => shell.stdin.write(text);
  try {
    assert.match(await until(prompt), /PANIC: Kernel panic[\s\S]*STATE: R/);
    type('sym sysrq_handle_cra');
    await until(/handle_cra/);
    type('\t');
    await until(/sh/);
    type('\r');
    assert.match(await until(prompt), /[0-9a-f]{16} sysrq_handle_crash/);
    // A type and its member.
    type('struct task_struct.real_par');
    await until(/real_par/);
    type('\t');
    await until(/ent/);
    type('\r');
    assert.match(await until(prompt), /struct task_struct \*/);
    // What is typed is forgotten; what runs ends; the shell goes on.
    type('no such line\x03');
    await until(prompt);
    // Each word of memory is compared with 300 values, which takes many times longer than to say that it is enough.
    type(`search ${Array.from({ length: 300 }, (_, i) => `12345678${i + 100}`).join(' ')}\r`);
    await until(/12345678399\r*\n/);
    type('\x03');
    assert.match(await until(prompt), /^\^C/);
    type('ps | grep -c sh\r');
    assert.match(await until(prompt), /\n\d+\r*\n/);
    type(`sys | cat >${join(folder, 'piped')}\r`);
    await until(prompt);
    assert.match(readFileSync(join(folder, 'piped'), 'utf8'), /RELEASE: 6\.12/);
    type('quit\r');
    await ended;
  } finally {
    if (shell.exitCode === null) shell.kill('SIGKILL');
    await ended;
  }
  const history = join(folder, 'tideover/crash_history');
  assert.equal(statSync(history).mode & 0o777, 0o600);
  const lines = readFileSync(history, 'utf8').split('\n');
  assert.equal(lines[0], 'sym sysrq_handle_crash');
  assert.ok(!lines.includes('no such line'));
});

test('the page of a dump', { timeout: TIMEOUT }, async () => {
  const { vmcore } = await crashDump('oops');
  const page = join(folder, 'report.html');
  const report = (...args: string[]) =>
    spawnSync(tideover, ['crash', 'report', vmcore, '-o', page, ...args], { encoding: 'utf8', timeout: TIMEOUT });
  const { stdout, stderr, status } = report('--json');
  assert.deepEqual([stderr, status], ['', 0]);
  const { tasks, stacks, lines } = JSON.parse(stdout);
  assert.equal(statSync(page).mode & 0o777, 0o600);
  assert.equal(report().status, 2);
  assert.equal(report('-f').status, 0);
  await withPage(`file://${page}`, { width: 1280, height: 900 }, async (browser) => {
    const count = (selector: string) => browser.evaluate<number>(`document.querySelectorAll('${selector}').length`);
    assert.deepEqual([await count('.l'), await count('details.stack')], [lines, stacks]);
    assert.equal(await browser.evaluate(`document.querySelector('#tasks h2 .count').textContent`), `${tasks}`);
    assert.match(
      await browser.evaluate<string>(`document.querySelector('.stack.crashed').textContent`),
      /fault_oops\+0x/,
    );
    assert.match(await browser.evaluate<string>(`document.querySelector('h1').textContent`), /^A NULL pointer/);
    // Two tasks, two locks.
    assert.deepEqual([await count('.edge.deadlock'), await count('.node.deadlock')], [4, 4]);
    assert.deepEqual(
      browser.events.filter(({ method }) => /^Log\.|exceptionThrown/.test(method)),
      [],
    );
  });
  assert.ok(!existsSync(`${page}.partial-${process.pid}`));
});
