/** Processes whose ids begin with another digit, or have one more, than those made before. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rootTest as test } from '../root.ts';

const path = (relative: string) => new URL(relative, import.meta.url).pathname;

/** Says its id and those of its threads, as they were made. */
const THREADS = `
import os, threading, time
ids = [os.getpid()]
for _ in range(3):
  thread = threading.Thread(target=time.sleep, args=[1000], daemon=True)
  thread.start()
  ids.append(thread.native_id)
print(*ids, flush=True)
time.sleep(1000)
`;

const SCRIPT = `
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { newestThreads } from '${path('../../../src/process/cloning.ts')}';
const start = 'echo 9997 >/proc/sys/kernel/ns_last_pid; python3 -c "$THREADS" & wait';
// What Node starts may have taken a number for a thread of its own.
for (;;) {
  const shell = spawn('sh', ['-c', start], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [said] = await once(shell.stdout, 'data');
  const [pid, ...threads] = String(said).trim().split(' ').map(Number);
  if (pid < 10_000 && threads.at(-1) >= 10_000) {
    console.log(JSON.stringify([threads, newestThreads(pid, 3), newestThreads(pid, 2)]));
    process.exit();
  }
  process.kill(pid, 'SIGKILL');
  await once(shell, 'exit');
}
`;

test('threads are told in the order in which they were made, also from the one with the id 9999 to that with 10000', () => {
  const args = ['-p', '-f', '--mount-proc', '--kill-child', process.execPath, '--input-type=module-typescript'];
  const env = { ...process.env, THREADS };
  const { status, stdout, stderr } = spawnSync('unshare', [...args, '-e', SCRIPT], {
    encoding: 'utf8',
    env,
    timeout: 60_000,
  });
  assert.equal(status, 0, stderr);
  const [threads, three, two] = JSON.parse(stdout);
  assert.deepEqual([three, two], [threads, threads.slice(1)]);
});
