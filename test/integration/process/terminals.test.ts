/** Terminals, sessions and job control through a checkpoint, the death of the original, and a restore. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { requirePackages } from '../../../lab/packages.ts';
import { readStat } from '../../../src/sys/stat.ts';
import { until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Bench, idsBelow } from './target.ts';
import { through } from './through.ts';

before(() => requirePackages('programs under test', 'terminals'));

test('pairs with settings, what waits in both directions, ends that are gone or hung up, and a session', async (t) => {
  const target = Bench.of(t);
  const pid = target.start(target.compile('terminals'));
  await target.says('ready');
  for (let round = 0; round < 2; round++) await target.moveOn(pid);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('bash in a terminal, with a stopped and a running job', async (t) => {
  const target = Bench.of(t);
  target.shell('mkdir work && mkfifo work/in && touch work/count');
  // script(1) is the terminal: it types what comes through the FIFO, which is open for both so that it does not end.
  const bash = 'env PS1= bash --norc --noprofile --noediting -i';
  const pid = target.start('sh', ['-c', `exec script -qfc "${bash}" /dev/null <>in`]);
  const fifo = join(target.folder, 'work', 'in');
  const type = (text: string) => writeFileSync(fifo, text);
  const count = () => Number(readFileSync(join(target.folder, 'work', 'count'), 'utf8'));
  type('trap "" HUP; echo begun\n');
  await target.says('\nbegun');
  type('sleep 1000\n');
  await foreground(pid, 'sleep');
  type('\x1a');
  await target.says('Stopped');
  type('i=0; while sleep 0.02; do i=$((i+1)); echo $i > next; mv next count; done &\n');
  while (count() === 0) await setTimeout(10);
  let round = 0;
  await through(target, pid, async () => {
    const before = count();
    while (count() === before) await setTimeout(10);
    type(`jobs; echo round $((${++round}))\n`);
    await target.says(`\nround ${round}\r`);
  });
  assert.equal(target.log.match(/\[1\]\+ +Stopped +sleep 1000\r\n\[2\]- +Running/g)!.length, round, target.log);
  assert.equal(target.log.match(/Stopped/g)!.length, 1 + round, target.log);
  type('fg %1\n');
  await foreground(pid, 'sleep');
  type('\x03');
  await foreground(pid, 'bash');
  type('echo ended with $?; kill %2; wait; echo jobs: $(jobs) none\n');
  await target.says('\nended with 130');
  await target.says('\njobs: none');
  type('exit\n');
  await target.gone(pid);
});

test('vim in tmux', async (t) => {
  const target = Bench.of(t);
  const pid = target.start('tmux', ['-D', '-u', '-S', '../socket', '-f', '/dev/null']);
  const tmux = (...args: string[]) =>
    execFileSync('tmux', ['-N', '-S', join(target.folder, 'socket'), ...args], { encoding: 'utf8', stdio: 'pipe' });
  const screen = (text: string) =>
    until(
      () => tmux('capture-pane', '-p').includes(text),
      () => tmux('capture-pane', '-p'),
    );
  const answers = () => {
    try {
      return tmux('start-server') === '';
    } catch {
      return false;
    }
  };
  await until(answers, 'tmux does not answer');
  const edited = join(target.folder, 'work', 'text');
  tmux('new-session', '-d', '-x', '80', '-y', '24', `vim.tiny -u NONE -N ${edited}`);
  await screen('~');
  tmux('send-keys', 'ione and ');
  await screen('one and');
  let typed = 'one and ';
  await through(target, pid, async () => {
    await screen(typed.trim());
    typed += `${typed.length} `;
    tmux('send-keys', typed.slice(typed.lastIndexOf(' ', typed.length - 2) + 1));
    await screen(typed.trim());
  });
  tmux('resize-window', '-x', '60', '-y', '20');
  tmux('send-keys', 'Escape', ':set columns? lines?', 'Enter');
  await screen('columns=60');
  tmux('send-keys', 'Enter', 'Escape', ':wq', 'Enter');
  const written = () => (existsSync(edited) ? readFileSync(edited, 'utf8') : '');
  await until(
    () => written() === `${typed}\n`,
    () => `vim wrote '${written()}'`,
  );
});

test('a terminal whose other end is outside of the tree: that of the restore stands for it', async (t) => {
  const target = Bench.of(t);
  target.shell('mkdir work && mkfifo work/in');
  const within = (command: string) => target.start('sh', ['-c', `exec script -qfc '${command}' /dev/null <>in`]);
  writeFileSync(join(target.folder, 'work', 'keys.py'), KEYS);
  const outer = within('exec python3 keys.py');
  await target.says('ready');
  const [, pid] = idsBelow(outer);
  const refused = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image);
  assert.equal(refused.status, 3, refused.stderr);
  assert.match(refused.stderr, /\/dev\/pts\/\d+.*outside of the tree.*--shell-job/);
  assert.equal(target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '-j').status, 0);
  await target.gone(outer);
  const detached = target.tideover('restore', '-D', target.image, '-j', '-d');
  assert.equal(detached.status, 3, detached.stderr);
  assert.match(detached.stderr, /run tideover in the terminal/);
  const again = within(`exec ${target.node} ${target.main} restore -D ${target.image} -j`);
  await target.says('goes on');
  writeFileSync(join(target.folder, 'work', 'in'), 'x');
  await target.says("got b'x', mine True, lines False, leader True");
  await target.gone(again);
});

const KEYS = `
import os, termios, tty
tty.setcbreak(0)
print('ready', flush=True)
key = os.read(0, 1)
lines = bool(termios.tcgetattr(0)[3] & termios.ICANON)
terminal = os.open('/dev/tty', os.O_RDWR)
print(f'got {key}, mine {os.tcgetpgrp(terminal) == os.getpgrp()}, lines {lines}, leader {os.getsid(0) == os.getpid()}', flush=True)
`;

/** Waits until a program is in the foreground of the terminal that the child of a process has. */
async function foreground(pid: number, name: string): Promise<void> {
  const [, child] = idsBelow(pid);
  const inFront = () => {
    const { tpgid } = readStat(child!);
    try {
      return readStat(tpgid).comm;
    } catch {
      // Its leader has ended in between.
      return undefined;
    }
  };
  await until(() => inFront() === name, `${name} is not in the foreground`);
}
