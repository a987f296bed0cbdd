/** Files of /proc that stay open from one reading to the next. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { IN_DELETE_SELF } from '../../../src/abi/inotify.ts';
import { listDescriptors, readFdinfo } from '../../../src/sys/fdinfo.ts';
import { close } from '../../../src/sys/files.ts';
import { inotify_add_watch, inotify_init1 } from '../../../src/sys/inotify.ts';
import { keepTaskFiles, readTaskText } from '../../../src/sys/proc.ts';
import { rootTest } from '../root.ts';

test('a record that is longer than what is read at once is read to its end', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-proc-'));
  const fd = inotify_init1({ flags: 0 });
  try {
    const watches = Array.from({ length: 3000 }, (_, i) => {
      const pathname = join(folder, `${i}`);
      mkdirSync(pathname);
      return inotify_add_watch({ fd, pathname, mask: IN_DELETE_SELF });
    });
    const check = () => {
      const { lines } = readFdinfo(process.pid, fd);
      const found = lines.filter(([name]) => name === 'inotify wd').map(([, line]) => line);
      const numbers = found.map((line) => Number.parseInt(line, 16)).sort((a, b) => a - b);
      assert.deepEqual(numbers, watches);
      // None of them is cut off.
      const lengths = new Set(found.map((line) => line.slice(line.indexOf('f_handle:')).length));
      assert.equal(lengths.size, 1);
    };
    check();
    using _ = keepTaskFiles();
    check();
    check();
  } finally {
    close({ fd });
    rmSync(folder, { recursive: true });
  }
});

test('files that stay open are closed with the first who asked for it, and opened once', () => {
  const count = () => listDescriptors(process.pid).length;
  const read = () => readTaskText(`/proc/${process.pid}/cgroup`);
  const before = count();
  {
    using _ = keepTaskFiles();
    const text = read();
    {
      using _ = keepTaskFiles();
      assert.equal(read(), text);
      assert.equal(count(), before + 1);
    }
    assert.equal(read(), text);
    assert.equal(count(), before + 1);
  }
  assert.equal(count(), before);
});

const path = (relative: string) => new URL(relative, import.meta.url).pathname;

/** Two processes with the same id, one after the other, of which the second one has a child. */
const REUSED = `
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { childrenOf } from '${path('../../../src/process/freeze.ts')}';
import { keepTaskFiles } from '${path('../../../src/sys/proc.ts')}';
import { readStat } from '${path('../../../src/sys/stat.ts')}';
const start = async (script) => {
  // What Node starts may have taken the number for a thread of its own.
  for (;;) {
    writeFileSync('/proc/sys/kernel/ns_last_pid', '4999');
    const child = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(child, 'exit');
    await once(child.stdout, 'data');
    if (child.pid === 5000) return async () => { child.kill('SIGKILL'); await ended; };
    child.kill('SIGKILL');
    await ended;
  }
};
const look = () => {
  readStat(5000);
  return childrenOf(5000, [5000]).length;
};
using _ = keepTaskFiles();
const end = await start('echo; read x; exec sleep 100');
const first = look();
await end();
const endSecond = await start('sleep 100 & echo; wait');
const second = look();
await endSecond();
console.log(JSON.stringify([first, second]));
process.exit();
`;

rootTest('what was kept of a process says nothing of the one that has its id later', () => {
  const args = ['-p', '-f', '--mount-proc', '--kill-child', process.execPath, '--input-type=module-typescript'];
  const { status, stdout, stderr } = spawnSync('unshare', [...args, '-e', REUSED], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(status, 0, stderr);
  assert.deepEqual(JSON.parse(stdout), [0, 1]);
});
