/** The init of a workload as an ordinary program: what it does as process 1 is in test/integration/cli/run.test.ts. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { AT_FDCWD, O_NOCTTY, O_RDWR } from '../../../src/abi/fcntl.ts';
import { TIOCGPTPEER, TIOCSPTLCK } from '../../../src/abi/termios.ts';
import { initProgram, NOT_EXECUTED } from '../../../src/asm/init.ts';
import { ioctl, openat } from '../../../src/sys/files.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-init-'));
after(() => rmSync(folder, { recursive: true }));
const program = join(folder, 'init');
writeFileSync(program, initProgram(), { mode: 0o755 });

/** Starts the init with /bin/sh below it. @param terminal master and slave */
function start(
  t: TestContext,
  script: string,
  output: number | 'pipe' = 'pipe',
  terminal: number[] = [],
): ChildProcess {
  const [master, slave] = terminal;
  const stdio = ['ignore', output, 'inherit', master ?? 'ignore', slave ?? 'ignore'] as const;
  // Node gives /dev/null for what is ignored; the init takes an open descriptor 3 for a terminal.
  const closed = terminal.length > 0 ? [] : ['-c', 'exec "$0" "$@" 3>&- 4>&-'];
  const argv = [program, 'init', '/bin/sh', 'sh', '-c', script];
  const child =
    terminal.length > 0
      ? spawn(program, argv.slice(2), { stdio: [...stdio] })
      : spawn('/bin/sh', [...closed, program, ...argv.slice(2)], { stdio: [...stdio] });
  // To the command, with which it ends.
  t.after(() => child.kill('SIGQUIT'));
  return child;
}

async function textOf(child: ChildProcess): Promise<string> {
  let text = '';
  for await (const part of child.stdout!) text += part;
  return text;
}

test('it ends with the status of its command, or 128 and the signal', async (t) => {
  for (const [script, status] of [
    ['exit 0', 0],
    ['exit 7', 7],
    ['kill -KILL $$', 128 + 9],
    ['kill -SEGV $$', 128 + 11],
  ] as const) {
    assert.deepEqual(await once(start(t, script), 'exit'), [status, null], script);
  }
});

test('a command that cannot be executed gives 127', async () => {
  const child = spawn('/bin/sh', ['-c', `exec "$0" "$@" 3>&- 4>&-`, program, '/nonexistent', 'x'], { stdio: 'ignore' });
  assert.deepEqual(await once(child, 'exit'), [NOT_EXECUTED, null]);
});

test('the command leads a session, and has its arguments, its environment and every signal as by default', async (t) => {
  const child = start(t, 'echo $0 "$(ps -o sid= -p $$)" $$ $(grep -E "Sig(Blk|Ign)" /proc/self/status)');
  const [name, session, pid, ...signals] = (await textOf(child)).trim().split(/\s+/);
  assert.deepEqual([name, session], ['sh', pid]);
  assert.deepEqual(signals, ['SigBlk:', '0'.repeat(16), 'SigIgn:', '0'.repeat(16)]);
});

test('signals go to the command, also those that come before it is there', async (t) => {
  const child = start(
    t,
    'for s in TERM HUP INT USR1 WINCH; do trap "echo $s" $s; done; echo ready; while :; do sleep 0.01; done',
  );
  let text = '';
  child.stdout!.on('data', (part) => {
    text += part;
  });
  const says = async (what: string) => {
    while (!text.includes(what)) await setTimeout(5);
  };
  await says('ready');
  for (const signal of ['TERM', 'HUP', 'INT', 'USR1', 'WINCH'] as const) {
    child.kill(`SIG${signal}`);
    await says(signal);
  }
  assert.equal(child.exitCode, null);
  const early =
    'import os, signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, [15])\nos.kill(os.getpid(), 15)\nos.closerange(3, 10)\nos.execv(sys.argv[1], sys.argv[1:])';
  const waits = spawn('python3', ['-c', early, program, '/bin/sleep', 'sleep', '1000']);
  t.after(() => waits.kill('SIGQUIT'));
  assert.deepEqual(await once(waits, 'exit'), [128 + 15, null]);
});

test('orphans that come to it are reaped', async (t) => {
  const subreaper = join(folder, 'subreaper.py');
  // PR_SET_CHILD_SUBREAPER stays over execve.
  writeFileSync(
    subreaper,
    'import ctypes, os, sys\nctypes.CDLL(None).prctl(36, 1)\nos.closerange(3, 10)\nos.execv(sys.argv[1], sys.argv[1:])\n',
  );
  const script =
    'for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.0$i & echo child $!); done; sleep 0.2; echo done; cat >/dev/null';
  const child = spawn('python3', [subreaper, program, '/bin/sh', 'sh', '-c', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGQUIT'));
  let text = '';
  child.stdout!.on('data', (part) => {
    text += part;
  });
  while (!text.includes('done')) await setTimeout(5);
  const children = () => readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ');
  while (children().length > 1) await setTimeout(5);
  assert.equal(text.match(/child/g)!.length, 9);
  assert.equal(child.exitCode, null);
  child.stdin!.end();
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('a terminal: what the command writes goes to the output, to the last byte, and keys reach the command', async (t) => {
  const master = openat({ dirfd: AT_FDCWD, pathname: '/dev/ptmx', flags: O_RDWR | O_NOCTTY, mode: 0 });
  ioctl({ fd: master, request: TIOCSPTLCK, arg: new Uint8Array(4) });
  const slave = ioctl({ fd: master, request: TIOCGPTPEER, arg: O_RDWR | O_NOCTTY });
  const log = join(folder, 'log');
  const output = openSync(log, 'a');
  const script =
    'stty -echo; tty; echo ready; read line; echo "got $line"; for n in 3 4; do [ -e /proc/$$/fd/$n ] || echo $n closed; done; seq 20000; exit 3';
  const child = start(t, script, output, [master, slave]);
  for (const fd of [output, slave]) closeSync(fd);
  t.after(() => closeSync(master));
  const text = () => readFileSync(log, 'utf8');
  while (!text().includes('ready')) await setTimeout(5);
  writeSync(master, 'keys\n');
  assert.deepEqual(await once(child, 'exit'), [3, null]);
  const lines = text().split('\r\n');
  assert.match(lines[0]!, /^\/dev\/pts\/\d+$/);
  assert.equal(lines[2], 'got keys');
  // Of the pair the command has no more than its standard descriptors.
  assert.deepEqual(lines.slice(3, 5), ['3 closed', '4 closed']);
  const numbers = execFileSync('seq', ['20000'], { encoding: 'utf8' }).trim().split('\n');
  assert.deepEqual(lines.slice(5, -1), numbers);
});
