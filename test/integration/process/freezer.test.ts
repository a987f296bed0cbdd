/** Trees that are stopped at once, by their control group. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { cgroup2Mount, readMountinfo } from '../../../src/sys/mountinfo.ts';
import { rootTest as test } from '../root.ts';
import { Bench } from './target.ts';

let groups = 0;

/** A program in a control group that it has for itself. */
async function start(t: TestContext): Promise<{ target: Bench; pid: number; group: string }> {
  const target = new Bench();
  const group = join(cgroup2Mount(readMountinfo('self'))!.mountPoint, `tideover-freezer-${process.pid}-${groups++}`);
  mkdirSync(group);
  t.after(async () => {
    writeFileSync(join(group, 'cgroup.freeze'), '0');
    await target.dispose();
    for (let i = 0; /^populated 1$/m.test(events(group)); i++) {
      assert.ok(i < 1000, 'a process stays in the group');
      await setTimeout(10);
    }
    rmdirSync(group);
  });
  const pid = target.start('python3', ['-c', FORKS]);
  await target.says('begun');
  writeFileSync(join(group, 'cgroup.procs'), `${pid}`);
  process.kill(pid, 'SIGUSR1');
  await target.says('ready');
  return { target, pid, group };
}

const events = (group: string) => readFileSync(join(group, 'cgroup.events'), 'utf8');

/** Makes children all the time, each of which makes one and ends; on SIGTERM says whether all of them went well. */
const FORKS = `
import os, signal, sys
term = []
signal.signal(signal.SIGTERM, lambda *_: term.append(1))
signal.signal(signal.SIGUSR1, lambda *_: None)
os.setsid() if os.getsid(0) != os.getpid() else None
print('begun', flush=True)
signal.pause()
print('ready', flush=True)
good = True
while not term:
    child = os.fork()
    if child == 0:
        inner = os.fork()
        if inner == 0: os._exit(3)
        os._exit(4 if os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) == 3 else 1)
    good = good and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
print('ok' if good else 'faults', flush=True)
`;

test('a tree that makes processes all the time', async (t) => {
  const { target, pid, group } = await start(t);
  await target.moveOn(pid);
  assert.match(events(group), /^frozen 0$/m);
  assert.match(readFileSync(`/proc/${pid}/cgroup`, 'utf8'), new RegExp(group.split('/').at(-1)!));
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('--freeze-cgroup, with one that has others in it, and one that is frozen', async (t) => {
  const { target, pid, group } = await start(t);
  const checkpoint = (...more: string[]) =>
    target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--leave-running', ...more);
  const other = spawn('sleep', ['60']);
  t.after(() => other.kill('SIGKILL'));
  writeFileSync(join(group, 'cgroup.procs'), `${other.pid}`);
  const shared = checkpoint('--freeze-cgroup', group);
  assert.equal(shared.status, 3, shared.stderr);
  assert.match(shared.stderr, new RegExp(`process ${other.pid} is in it too`));
  other.kill('SIGKILL');
  await once(other, 'exit');
  writeFileSync(join(group, 'cgroup.freeze'), '1');
  const frozen = checkpoint();
  assert.equal(frozen.status, 3, frozen.stderr);
  assert.match(frozen.stderr, /it is frozen/);
  writeFileSync(join(group, 'cgroup.freeze'), '0');
  const { status, stderr } = checkpoint('--freeze-cgroup', group);
  assert.equal(status, 0, stderr);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a group that tideover has frozen goes on when tideover is killed', async (t) => {
  const { target, pid, group } = await start(t);
  const module = new URL('../../../src/process/freezer.ts', import.meta.url).href;
  const code = `const { Freezer } = await import('${module}');
    Freezer.of(${pid}, '${group}').freeze(10_000);
    const { readFileSync, writeFileSync } = await import('node:fs');
    writeFileSync('${target.folder}/seen', readFileSync('${group}/cgroup.events'));
    process.kill(process.pid, 'SIGKILL');`;
  const run = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: 'inherit' });
  assert.deepEqual(await once(run, 'exit'), [null, 'SIGKILL']);
  assert.match(readFileSync(join(target.folder, 'seen'), 'utf8'), /^frozen 1$/m);
  for (let i = 0; !/^frozen 0$/m.test(events(group)); i++) {
    assert.ok(i < 1000, 'it stays frozen');
    await setTimeout(10);
  }
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});
