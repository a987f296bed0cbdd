/** `tideover check` on the machine that runs the tests, with and without privilege. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import type { Report } from '../../../src/sys/probe/probe.ts';
import { probeIds } from '../../../src/sys/probe/probe.ts';
import { until } from '../patience.ts';

const launcher = new URL('../../../tideover', import.meta.url).pathname;
const isRoot = process.geteuid!() === 0;
const NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];

function check(before: string[] = []): { report: Report; answer(id: string): string } {
  const [command, ...args] = [...before, launcher, 'check', '--json'];
  const { status, stdout, stderr } = spawnSync(command!, args, { encoding: 'utf8', cwd: '/' });
  assert.deepEqual([status, stderr], [0, '']);
  const report = JSON.parse(stdout) as Report;
  return { report, answer: (id) => report.rows.find((row) => row.id === id)!.answer };
}

function assertComplete({ rows, jobs, groups }: Report): void {
  assert.deepEqual(
    rows.map(({ id }) => id),
    probeIds,
  );
  assert.equal(new Set(probeIds).size, probeIds.length);
  for (const row of rows) {
    assert.ok(['yes', 'no', 'partly', 'unknown'].includes(row.answer), row.id);
    assert.ok(row.title !== '' && row.reason !== '', row.id);
    assert.equal(row.remedy !== undefined, row.answer !== 'yes', `${row.id}: a remedy where it is needed, only there`);
    assert.ok(
      groups.some(({ id }) => id === row.group),
      row.id,
    );
    assert.doesNotMatch(row.reason, /not a whole number|is not a function|undefined|NaN/, row.id);
  }
  assert.ok(jobs.length > 0);
  for (const job of jobs) assert.match(job.reason, /^can/);
}

test('every row has an answer', () => {
  const { report, answer } = check();
  assertComplete(report);
  // What can be known in another way.
  assert.equal(answer('btf') === 'no', !existsSync('/sys/kernel/btf/vmlinux'));
  assert.equal(answer('luo') === 'yes', existsSync('/dev/liveupdate'));
  assert.equal(answer('dev_mem') === 'no', !existsSync('/dev/mem'));
  assert.equal(answer('systemd') === 'yes', existsSync('/run/systemd/system'));
  const loadable = existsSync('/proc/sys/kernel/kexec_load_disabled');
  if (!loadable) assert.deepEqual(['kexec_load', 'kexec_file_load', 'kexec_setting'].map(answer), ['no', 'no', 'no']);
});

test('every row has an answer without privilege, too', { skip: isRoot ? false : 'needs root, to leave it' }, () => {
  const { report, answer } = check(NOBODY);
  assertComplete(report);
  for (const id of [
    'capabilities',
    'clone3_set_tid',
    'seccomp_suspend',
    'tcp_repair',
    'kexec_load',
    'kexec_file_load',
  ]) {
    assert.equal(answer(id), 'no', id);
  }
  assert.notEqual(answer('ptrace'), 'yes');
  assert.equal(report.jobs.find(({ id }) => id === 'checkpoint')!.answer, 'no');
});

test('people get a table with a line for each job', () => {
  const { status, stdout } = spawnSync(launcher, ['check', '-q'], { encoding: 'utf8' });
  assert.equal(status, 0);
  for (const title of ['Checkpoint and restore', 'Changing the kernel', 'Preserved memory', 'Crash capture']) {
    assert.match(stdout, new RegExp(`^${title}$`, 'm'));
  }
  assert.match(stdout, /^Capture a crashed kernel +(yes|no|partly|unknown) +can/m);
  assert.doesNotMatch(stdout, /\x1b/);
});

/** Other tests take huge pages and mount beside, one after the other. */
const LOOKS = 60;

test('nothing is changed by it', () => {
  // What other programs change meanwhile differs from one look to the next; what a probe changed would differ each time.
  let changed: string[] = [];
  for (let look = 0; look < LOOKS; look++) {
    const before = state();
    check();
    const after = state();
    const differing = [...new Set([...before.keys(), ...after.keys()])].filter(
      (key) => before.get(key) !== after.get(key),
    );
    changed = look === 0 ? differing : changed.filter((key) => differing.includes(key));
    if (changed.length === 0) return;
  }
  assert.deepEqual(changed, []);
});

test('no process of it is left', async () => {
  const mark = `TIDEOVER_TEST_MARK=${process.pid}.${performance.now()}`;
  const marked = () =>
    readdirSync('/proc').filter((name) => /^\d+$/.test(name) && read(`/proc/${name}/environ`)?.includes(mark));
  const { status } = spawnSync('env', [mark, launcher, 'check'], { stdio: 'ignore' });
  assert.equal(status, 0);
  await until(
    () => marked().length === 0,
    () => `left behind: ${marked()}`,
  );
});

/** Settings, loaded modules and kernels, mounts, huge pages: without what counts or is random by itself. */
function state(): Map<string, string | undefined> {
  const volatile =
    /random|_count$|ns_last_pid|-nr$|-state$|nr_|dentry|inode|quota|pty\/nr|netfilter|perf_event_max_sample/;
  const files = [
    ...globSync('/proc/sys/**', { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => `${entry.parentPath}/${entry.name}`)
      .filter((path) => !volatile.test(path)),
    ...globSync('/sys/kernel/kexec{_,/}*'),
    ...globSync('/sys/kernel/mm/hugepages/*/nr_*'),
    '/proc/modules',
    '/proc/self/mountinfo',
    '/proc/sys/vm/nr_hugepages',
  ];
  return new Map(files.map((path) => [path, read(path)]));
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
}
