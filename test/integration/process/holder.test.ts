/** A process that holds descriptors when the one that had them is gone. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { rootTest as test } from '../root.ts';

const source = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href);

/** Holds a pipe with a word in it until FILE is removed, and ends. */
const MAKER = `
import { holdOpen } from ${source('process/holder.ts')};
import { IN_DELETE_SELF } from ${source('abi/inotify.ts')};
import { pipe2, write } from ${source('sys/files.ts')};
import { inotify_add_watch, inotify_init1 } from ${source('sys/inotify.ts')};
const fds = new Int32Array(2);
pipe2({ pipefd: new Uint8Array(fds.buffer), flags: 0 });
write({ fd: fds[1], buf: Buffer.from('word'), count: 4 });
const end = inotify_init1({ flags: 0 });
inotify_add_watch({ fd: end, pathname: process.argv[1], mask: IN_DELETE_SELF });
console.log(JSON.stringify({ pid: holdOpen([fds[0]], end), fd: fds[0], end }));
`;

const isThere = (pid: number) => {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};

test('it outlives its maker, is no part of a unit, and ends when it is told', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-holder-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'file');
  writeFileSync(file, '');
  const made = execFileSync(process.execPath, ['--input-type=module', '-e', MAKER, file], { encoding: 'utf8' });
  const { pid, fd, end } = JSON.parse(made) as { pid: number; fd: number; end: number };
  try {
    assert.ok(isThere(pid));
    assert.equal(readFileSync(`/proc/${pid}/cmdline`, 'latin1'), '@tideover\0', 'systemd spares it');
    // It closes the others by itself, last of all.
    const held = [fd, end].sort((a, b) => a - b);
    for (let i = 0; i < 3000 && readdirSync(`/proc/${pid}/fd`).length > held.length; i++) await setTimeout(10);
    assert.deepEqual(readdirSync(`/proc/${pid}/fd`).map(Number), held);
    assert.match(readlinkSync(`/proc/${pid}/exe`), /^\/memfd:/, 'no file system is busy with it');
    assert.equal(readlinkSync(`/proc/${pid}/cwd`), '/');
    const session = Number(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[3]);
    assert.equal(session, pid);
    for (const line of readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')) {
      if (/^\d+:(|name=systemd):/.test(line)) assert.match(line, /:\/$/);
    }
    const word = execFileSync('head', ['-c', '4', `/proc/${pid}/fd/${fd}`], { encoding: 'utf8' });
    assert.equal(word, 'word', 'the pipe is held with what is in it');
  } catch (error) {
    process.kill(pid, 'SIGKILL');
    throw error;
  }
  rmSync(file);
  for (let i = 0; isThere(pid); i++) {
    assert.ok(i < 3000, 'it goes on');
    await setTimeout(10);
  }
});
