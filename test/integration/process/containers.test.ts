/** A container as runc(8) makes it: checkpoint, death of all of it, restore. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { before } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { requirePackages } from '../../../lab/packages.ts';
import { cgroupsOf, folderOf } from '../../../src/process/cgroups.ts';
import { readMountinfo } from '../../../src/sys/mountinfo.ts';
import { isRoot, rootTest as test } from '../root.ts';
import { Bench, free, idsBelow } from './target.ts';

before(async () => {
  if (isRoot) await requirePackages('containers', 'guest root');
});

const RUNC = '/usr/sbin/runc';

/** Counts in a tmpfs, and says on SIGTERM how it is in its container. */
const PROGRAM = `
trap 'echo "term $(hostname) $$ $(cat /volume/file)"; ls /sys/class/net > /volume/after; cat /proc/self/cgroup >> /volume/after; cat /proc/self/mountinfo >> /volume/after; exit' TERM
ls /sys/class/net > /volume/before
cat /proc/self/cgroup /proc/self/mountinfo >> /volume/before
i=0
echo 0 > /tmp/count
echo ready
while sleep 0.1; do i=$((i + 1)); [ $(cat /tmp/count) = $((i - 1)) ] && echo $i > /tmp/count || exit 1; done`;

/** What mounts show, without their numbers and those of control groups, which are new. */
function shown(file: string): string[] {
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  return lines.map((line) => line.replace(/^\d+ \d+ \d+:\d+ /, '')).sort();
}

test('a container of runc', async (t) => {
  const target = new Bench();
  const name = `tideover-test-${process.pid}`;
  const folder = join(target.folder, 'bundle');
  const volume = join(target.folder, 'volume');
  const rootfs = join(folder, 'rootfs');
  const runc = (...args: string[]) =>
    execFileSync(RUNC, ['--root', join(target.folder, 'state'), ...args], {
      cwd: folder,
      encoding: 'utf8',
      stdio: 'pipe',
    });
  const log = join(target.folder, 'log');
  let pid = 0;
  let groups: string[] = [];
  t.after(async () => {
    try {
      if (pid > 0) process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
    runc('delete', '--force', name);
    for (const folder of groups) if (existsSync(folder)) rmdirSync(folder);
    await target.dispose();
  });
  for (const each of ['bin', 'proc', 'sys', 'dev', 'tmp', 'volume']) mkdirSync(join(rootfs, each), { recursive: true });
  copyFileSync('/bin/busybox', join(rootfs, 'bin/busybox'));
  for (const each of ['sh', 'sleep', 'cat', 'hostname', 'ls']) symlinkSync('busybox', join(rootfs, 'bin', each));
  mkdirSync(volume);
  writeFileSync(join(volume, 'file'), 'mine');
  runc('spec');
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
  Object.assign(config.process, { terminal: false, args: ['/bin/sh', '-c', PROGRAM] });
  config.hostname = 'container';
  config.mounts.push(
    { destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'size=1m'] },
    { destination: '/volume', type: 'bind', source: volume, options: ['rbind', 'rw'] },
  );
  config.linux.cgroupsPath = `/${name}`;
  config.linux.resources = { ...config.linux.resources, pids: { limit: 77 } };
  const others = config.linux.namespaces.filter(({ type }: { type: string }) => type !== 'cgroup');
  config.linux.namespaces = [...others, { type: 'cgroup' }];
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  // It is not to have descriptors of this test.
  target.shell(
    `cd bundle && python3 -c 'import os; os.closerange(3, 65536); os.execv("${RUNC}", ["runc", "--root", "../state", "run", "--detach", "${name}"])' < /dev/null >> ${log} 2>&1`,
  );
  pid = JSON.parse(runc('state', name)).pid;
  await target.says('ready');
  await setTimeout(300);

  const mounts = readMountinfo('self');
  groups = cgroupsOf(pid)
    .map((line) => folderOf(mounts, line) ?? '')
    .filter((folder) => folder.endsWith(`/${name}`));
  const ids = idsBelow(pid);
  const args = ['-D', target.image, '--external', 'mnt[/volume]:volume'];
  const saved = target.tideover('checkpoint', '-t', `${pid}`, ...args);
  assert.equal(saved.status, 0, saved.stderr);
  await free(ids);
  pid = 0;
  runc('delete', '--force', name);
  const refused = target.tideover('restore', '-D', target.image, '-d', '--root', rootfs);
  assert.equal(refused.status, 3, refused.stderr);
  assert.match(refused.stderr, /mount \/volume: .*--external 'mnt\[volume\]:PATH'/);
  const pidfile = join(target.folder, 'pid');
  const more = ['--root', rootfs, '--external', `mnt[volume]:${volume}`, '--pidfile', pidfile];
  const restored = target.tideover('restore', '-D', target.image, '-d', ...more);
  assert.equal(restored.status, 0, restored.stderr);
  pid = Number(readFileSync(pidfile, 'utf8'));
  for (const each of ['pid', 'net', 'ipc', 'uts', 'mnt', 'cgroup']) {
    assert.notEqual(readlinkSync(`/proc/${pid}/ns/${each}`), readlinkSync(`/proc/self/ns/${each}`), each);
  }
  const limits = groups.filter((each) => existsSync(join(each, 'pids.max')));
  for (const each of limits) assert.equal(readFileSync(join(each, 'pids.max'), 'utf8'), '77\n');
  assert.ok(limits.length > 0);
  await setTimeout(300);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/term .*\n/), /term container 1 mine\n/);
  await target.gone(pid);
  pid = 0;
  assert.deepEqual(shown(join(volume, 'after')), shown(join(volume, 'before')));
  assert.ok(!readMountinfo('self').some(({ mountPoint }) => mountPoint.startsWith(target.folder)));
});
