/** Trees that are stopped at once, by their control group. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { cgroup2Mount, readMountinfo } from '../../../src/sys/mountinfo.ts';
import { removeGroups, until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Bench, idsBelow } from './target.ts';

let groups = 0;

/** A control group, which goes with what is in it. */
function groupFor(t: TestContext, target: Bench): string {
  const group = join(cgroup2Mount(readMountinfo('self'))!.mountPoint, `tideover-freezer-${process.pid}-${groups++}`);
  mkdirSync(group);
  t.after(async () => {
    writeFileSync(join(group, 'cgroup.freeze'), '0');
    await target.dispose();
    await removeGroups([group]);
  });
  return group;
}

/** A program in a control group that it has for itself. */
async function start(t: TestContext): Promise<{ target: Bench; pid: number; group: string }> {
  const target = Bench.of(t);
  const group = groupFor(t, target);
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
import os, signal, time
term = []
signal.signal(signal.SIGTERM, lambda *_: term.append(1))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.setsid() if os.getsid(0) != os.getpid() else None
print('begun', flush=True)
signal.sigwait([signal.SIGUSR1])
print('ready', flush=True)
good = True
while not term:
    child = os.fork()
    if child == 0:
        inner = os.fork()
        if inner == 0: os._exit(3)
        os._exit(4 if os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) == 3 else 1)
    good = good and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    # Not so many that all process ids are used up while another test needs some of them again.
    time.sleep(0.002)
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
  const other = spawn('sleep', ['1000']);
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

test('a thread that waits in vfork, whose child is frozen before it executes its program, is stopped all the same', async (t) => {
  const target = Bench.of(t);
  const group = groupFor(t, target);
  const pid = target.start('python3', ['-c', VFORKS]);
  await target.says('ready');
  writeFileSync(join(group, 'cgroup.procs'), `${pid}`);
  process.kill(pid, 'SIGUSR1');
  await until(() => idsBelow(pid).length === 3, 'it makes no child');
  const source = (name: string) => new URL(`../../../src/process/${name}.ts`, import.meta.url).href;
  const code = `const { Freezer } = await import('${source('freezer')}');
    const { freezeTree } = await import('${source('freeze')}');
    using freezer = Freezer.of(${pid}, '${group}');
    const frozen = freezeTree(${pid}, 300_000, freezer);
    console.log(frozen.processes.map(({ threads }) => threads.length).join());
    frozen.release();`;
  const run = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  run.stdout.setEncoding('utf8').on('data', (part) => (said += part));
  const ended = once(run, 'close');
  await until(() => /^frozen 1$/m.test(events(group)), 'it is not frozen');
  closeSync(openSync(join(target.folder, 'work', 'gate'), 'w'));
  assert.deepEqual(await ended, [0, null]);
  assert.equal(said, '2,1\n');
  process.kill(pid, 'SIGUSR1');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

/** Has a child by posix_spawn(3) that opens a pipe without another end before it executes its program. */
const VFORKS = `
import ctypes, os, signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.mkfifo('gate')
libc = ctypes.CDLL(None)
class Actions(ctypes.Structure): _fields_ = [('room', ctypes.c_char * 128)]
actions, pid, result = Actions(), ctypes.c_int(), []
libc.posix_spawn_file_actions_init(ctypes.byref(actions))
libc.posix_spawn_file_actions_addopen(ctypes.byref(actions), 5, b'gate', os.O_RDONLY, 0)
argv = (ctypes.c_char_p * 3)(b'sleep', b'1000', None)
thread = threading.Thread(target=lambda: result.append(libc.posix_spawn(ctypes.byref(pid), b'/bin/sleep', ctypes.byref(actions), None, argv, None)))
print('ready', flush=True)
signal.sigwait([signal.SIGUSR1])
thread.start()
thread.join()
signal.sigwait([signal.SIGUSR1])
os.kill(pid.value, signal.SIGKILL)
print('ok' if result == [0] and os.waitpid(pid.value, 0)[0] == pid.value else 'faults', flush=True)
`;

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
  await until(() => /^frozen 0$/m.test(events(group)), 'it stays frozen');
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});
