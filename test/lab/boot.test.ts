/** The lab itself: every kernel boots, commands and files pass, and nothing stays behind. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { TimeLimitError } from '../../lab/deadline.ts';
import { bootDebian } from '../../lab/debian.ts';
import { emptyDisk } from '../../lab/disk.ts';
import { kernel, kernelNames } from '../../lab/kernels.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import { keepsService } from './service.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
const folder = temporaryFolder();
after(() => removeTemporary(folder));

type Machine = Required<Pick<BootOptions, 'kernel' | 'cpus' | 'firmware' | 'memory'>>;

/** Each kernel once, so that each pair of the other options occurs; or with TIDEOVER_FULL the product. */
const machines: readonly Machine[] = process.env.TIDEOVER_FULL
  ? kernelNames.flatMap((name) =>
      [1, 2].flatMap((cpus) =>
        (['bios', 'uefi'] as const).flatMap((firmware) =>
          [512, 1024].map((memory) => ({ kernel: name, cpus, firmware, memory })),
        ),
      ),
    )
  : [
      { kernel: '6.1', cpus: 1, firmware: 'bios', memory: 512 },
      { kernel: '6.12', cpus: 2, firmware: 'uefi', memory: 512 },
      { kernel: '6.18', cpus: 1, firmware: 'uefi', memory: 1024 },
      { kernel: '7.2', cpus: 2, firmware: 'bios', memory: 1024 },
      { kernel: 'jump', cpus: 2, firmware: 'bios', memory: 512 },
    ];

for (const machine of machines) {
  const { kernel: name, cpus, firmware, memory } = machine;
  test(`${name}, ${cpus} CPU, ${firmware}, ${memory} MB: boots, runs Node and tideover, copies files`, async () => {
    await inGuest(machine, async (vm) => {
      assert.equal((await vm.check('uname -r')).trim(), (await kernel(name as '6.1')).release);
      assert.equal((await vm.check('nproc')).trim(), `${cpus}`);
      assert.equal(await vm.check('[ -d /sys/firmware/efi ] && echo uefi || echo bios'), `${firmware}\n`);
      assert.equal(await vm.check(['node', '-e', 'console.log(6 * 7)']), '42\n');
      assert.equal(await vm.check('tideover --version'), `${version}\n`);
      const { rows } = JSON.parse(await vm.check('tideover check --json')) as { rows: { answer: string }[] };
      assert.ok(rows.length > 30 && rows.every(({ answer }) => ['yes', 'no', 'partly', 'unknown'].includes(answer)));
      await copiesFiles(vm, `${name}-${cpus}-${firmware}-${memory}`);
    });
  });
}

/** A file and a folder go in and come back byte for byte. */
async function copiesFiles(vm: Vm, label: string): Promise<void> {
  const source = join(folder, label, 'in');
  mkdirSync(join(source, 'deep'), { recursive: true });
  const bytes = randomBytes(300_001);
  writeFileSync(join(source, 'deep', 'bytes'), bytes, { mode: 0o640 });
  writeFileSync(join(source, 'empty'), '');
  await vm.copyIn(source, '/tmp/in');
  assert.equal(
    (await vm.check('find /tmp/in | sort')).trim(),
    '/tmp/in\n/tmp/in/deep\n/tmp/in/deep/bytes\n/tmp/in/empty',
  );
  await vm.copyOut('/tmp/in', join(folder, label, 'out'));
  assert.deepEqual(readFileSync(join(folder, label, 'out/deep/bytes')), bytes);
  await vm.copyOut('/tmp/in/deep/bytes', join(folder, label, 'bytes'));
  assert.deepEqual(readFileSync(join(folder, label, 'bytes')), bytes);
  assert.equal(statSync(join(folder, label, 'bytes')).mode & 0o777, 0o640);
}

test('commands: status, both outputs, any bytes, input, time limits; network; monitor; console', async () => {
  await inGuest({ kernel: '6.12' }, async (vm) => {
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    const result = await vm.run('cat; printf "\\377\\0err" >&2; exit 7', { input: all });
    assert.deepEqual({ ...result }, { status: 7, stdout: all, stderr: Buffer.from('\xff\0err', 'latin1') });
    assert.equal((await vm.run('kill -9 $$')).status, 128 + 9);
    await assert.rejects(vm.run('echo begun; sleep 1000', { timeout: 1500 }), TimeLimitError);
    assert.equal(
      await vm.check('while pgrep -x sleep >&2; do sleep 0.1; done; echo none'),
      'none\n',
      'the command is ended',
    );

    await vm.check('echo hello >/tmp/page; httpd -p 8080 -h /tmp');
    const port = await vm.hostPort(8080);
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/page`)).text(), 'hello\n');

    assert.deepEqual(await vm.qmp('query-status'), { status: 'running', singlestep: false, running: true });
    const since = vm.console.text.length;
    const seen = vm.waitFor(/the (\w+) line/, 120_000, since);
    await vm.check('echo the wanted line >/dev/console');
    assert.equal((await seen)[1], 'wanted');
    await assert.rejects(vm.waitFor(/never/, 500), /the wanted line/, 'the last of the console is in the message');
  });
});

test('after a power cut the same disk has what was synced', async () => {
  const disk = emptyDisk(64 << 20);
  try {
    const machine = { kernel: '6.1', disks: [disk], modules: ['ext4'] } as const;
    await inGuest(machine, async (vm) => {
      await vm.check('mke2fs -q /dev/vda && mount -t ext4 /dev/vda /mnt && echo kept >/mnt/file && sync');
      await vm.powerCut();
      await assert.rejects(vm.run('true'), /the guest has ended/);
    });
    await inGuest(machine, async (vm) => {
      assert.equal(await vm.check('mount -t ext4 /dev/vda /mnt && cat /mnt/file'), 'kept\n');
    });
  } finally {
    disk.remove();
  }
});

test('kill -9 of the process that started a guest leaves no QEMU, and the next run removes its files', async (t) => {
  const script = `
    import { boot } from ${JSON.stringify(new URL('../../lab/boot.ts', import.meta.url).href)};
    await boot({ kernel: 'jump' });
    console.log('booted');
    setInterval(() => {}, 1000);`;
  const starter = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => starter.kill('SIGKILL'));
  const [line] = await Promise.race([
    starter.stdout.take(1).toArray(),
    setTimeout(300_000, ['too late'], { ref: false }),
  ]);
  assert.equal(`${line}`, 'booted\n');
  const children = descendants(starter.pid!);
  const qemu = children.find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('qemu-system'));
  assert.ok(qemu !== undefined, `QEMU is among ${children}`);
  const files = execFileSync('readlink', [`/proc/${qemu}/cwd`], { encoding: 'utf8' }).trim();
  starter.kill('SIGKILL');
  for (let waited = 0; children.some(isRunning); waited += 50) {
    assert.ok(waited < 120_000, 'still running');
    await setTimeout(50);
  }
  assert.ok(existsSync(files));
  const next = `import(${JSON.stringify(new URL('../../lab/temporary.ts', import.meta.url).href)}).then((m) => m.temporaryFolder())`;
  execFileSync(process.execPath, ['-e', next]);
  assert.ok(!existsSync(files));
});

// Under one kernel: servers.test.ts.
for (const name of process.env.TIDEOVER_FULL ? kernelNames : []) {
  test(`${name}: Debian with systemd, and a service that is kept`, async () => {
    const vm = await bootDebian({ kernel: name });
    try {
      assert.equal((await vm.check('uname -r')).trim(), (await kernel(name)).release);
      assert.equal((await vm.check('systemctl is-system-running')).trim(), 'running');
      assert.match(await vm.check('cat /etc/os-release'), /^VERSION_CODENAME=bookworm$/m);
      await keepsService(vm);
    } finally {
      await vm.close();
    }
  });
}

async function inGuest(options: BootOptions, work: (vm: Vm) => Promise<void>): Promise<void> {
  const vm = await boot(options);
  try {
    await work(vm);
  } finally {
    await vm.close();
  }
}

function descendants(pid: number): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const children = tasks.flatMap(
    (tid) => readFileSync(`/proc/${pid}/task/${tid}/children`, 'utf8').match(/\d+/g) ?? [],
  );
  return children.map(Number).flatMap((child) => [child, ...descendants(child)]);
}

/** A zombie, which whoever inherits it has not waited for yet, runs no more. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
