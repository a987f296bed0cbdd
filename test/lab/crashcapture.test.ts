/**
 * A machine that is armed, dies, and is saved: the capture kernel with what arming made for it, on stock kernels, to the places where
 * a dump may go.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { captureModules, crashDisk, dumpsOn, mountCrashDisk } from '../../lab/capture.ts';
import { type CaptureTargetName, captureTarget } from '../../lab/capture-targets.ts';
import { drgnView, fetchCrash, fetchDrgn, fetchVmlinux } from '../../lab/debuggers.ts';
import { type Disk, emptyDisk, type OwnDisk } from '../../lab/disk.ts';
import { guestFile } from '../../lab/dumps.ts';
import { faultModule, faultProgram } from '../../lab/fault/build.ts';
import { STOCK_FAULT, stockFault } from '../../lab/fault/stock.ts';
import { type KernelName, kernel as kernelNamed } from '../../lab/kernels.ts';
import { fetchMakedumpfile } from '../../lab/makedumpfile.ts';
import { HOST } from '../../lab/qemu.ts';
import { httpServer, nfsServer, ownCertificate, sshServer } from '../../lab/servers.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import { kernelsDisk, mountKernels, nextKernel } from './next-kernels.ts';

const folder = temporaryFolder();
after(() => removeTemporary(folder));

const LONG_MS = 600_000;
const full = process.env.TIDEOVER_FULL !== undefined;

/** Of the machine, for the capture kernel. */
const CRASH_MEMORY = 256;
/** What docs/crash.md says is enough. */
const enough = { disk: 192, network: 224 } as const;

interface Armed {
  readonly memory?: number;
  readonly crashMemory?: number;
  readonly disks?: readonly Disk[];
  readonly hostPorts?: Readonly<Record<number, number>>;
  readonly programs?: readonly string[];
  readonly modules?: readonly string[];
  /** What is done in the guest before it is armed. */
  readonly prepare?: (vm: Vm) => Promise<void>;
}

async function armedGuest(name: KernelName, disk: OwnDisk, args: string, options: Armed = {}): Promise<Vm> {
  const { memory = 1024, crashMemory = CRASH_MEMORY, disks = [], prepare, modules = [], ...machine } = options;
  const kernel = await kernelNamed(name);
  const vm = await boot({
    kernel,
    memory,
    disks: [disk, ...disks],
    ...machine,
    spareModules: [...captureModules, ...modules],
    append: `crashkernel=${crashMemory}M`,
  });
  try {
    await vm.copyIn(kernel.vmlinuz, '/tmp/vmlinuz');
    await vm.check(mountCrashDisk);
    await prepare?.(vm);
    const own = args.includes('--config') ? '' : '--kernel /tmp/vmlinuz --then poweroff';
    await vm.check(`tideover crash arm ${own} ${args}`, { timeout: LONG_MS });
    assert.equal(JSON.parse(await vm.check('tideover crash status --json')).armed, true);
    return vm;
  } catch (error) {
    await vm.close();
    throw error;
  }
}

async function refused(guest: Vm, args: string, why: RegExp): Promise<void> {
  const command = `tideover crash arm --kernel /tmp/vmlinuz ${args}`;
  const { status, stderr } = await guest.run(command, { timeout: LONG_MS });
  assert.equal(status, 3);
  assert.match(stderr.toString(), why);
}

/** What our own reader makes of a dump. */
function why(vmcore: string): string {
  return execFileSync(join(import.meta.dirname, '../../bin/tideover'), ['crash', 'why', vmcore], { encoding: 'utf8' });
}

test('a NULL pointer in a module: log, reason and dump are on the disk', async () => {
  const disk = await crashDisk();
  const vm = await armedGuest('6.12', disk, '--target /mnt/data/crash --then halt', {
    async prepare(guest) {
      await refused(guest, '--target /tmp/crash', /\/tmp\/crash.*tmpfs, is on no disk/);
      await guest.check('echo extra_modules nonesuch >/tmp/crash.conf');
      await refused(
        guest,
        '--config /tmp/crash.conf --target /mnt/data/crash',
        /kernel module nonesuch of kernel 6\.12.*neither as a module nor built in/,
      );
      assert.equal(JSON.parse(await guest.check('tideover crash status --json')).armed, false);
      await guest.copyIn(await faultModule(await kernelNamed('6.12')), '/tmp/fault.ko');
      await guest.check('insmod /tmp/fault.ko && sysctl -w kernel.panic_on_oops=1');
    },
  });
  try {
    void vm.run('echo oops >/sys/module/fault/parameters/cause').catch(() => {});
    await vm.waitFor(/tideover: halt.*reboot: System halted/s, LONG_MS);
    await vm.powerCut();
    assert.match(
      vm.console.text,
      /tideover: saved vmcore-dmesg\.txt.*saved why\.txt.*saved vmcore.*saved to \/mnt\/data\/crash/s,
    );
    const [saved, ...more] = await dumpsOn(disk, join(folder, 'disk'));
    assert.deepEqual(more, []);
    assert.deepEqual(saved!.files, ['vmcore', 'vmcore-dmesg.txt', 'why.txt']);
    const text = (name: string) => readFileSync(join(saved!.path, name), 'utf8');
    assert.match(text('vmcore-dmesg.txt'), /BUG: kernel NULL pointer dereference.*RIP: 0010:fault_oops/s);
    assert.match(text('why.txt'), /fault_oops/);
    assert.match(why(join(saved!.path, 'vmcore')), /fault_oops/);
  } finally {
    await vm.close();
    disk.remove();
  }
});

test('a server behind TLS that has no room for the dump keeps log and reason, and by ssh another takes all', async () => {
  const [received, stored] = [join(folder, 'http'), join(folder, 'ssh')];
  const tls = await ownCertificate(HOST);
  const web = await httpServer(received, { isFull: (path) => path.endsWith('/vmcore'), tls });
  const shell = await sshServer();
  const disk = await crashDisk(512, ['/usr/bin/ssh']);
  const ssh = `ssh:${HOST}:${stored}`;
  const vm = await armedGuest('7.2', disk, '--config /tmp/crash.conf', {
    hostPorts: { 443: web.port, 22: shell.port },
    programs: ['ssh', 'ssh-keygen'],
    modules: ['8021q'],
    async prepare(guest) {
      await guest.copyIn(shell.key, '/tmp/key');
      await guest.check('mkdir -p /etc/ssl/certs && cat >/etc/ssl/certs/ca-certificates.crt', { input: tls.cert });
      const settings = {
        kernel: '/tmp/vmlinuz',
        sshkey: '/tmp/key',
        final_action: 'poweroff',
        failure_action: 'poweroff',
      };
      const lines = [...Object.entries(settings), ['target', `https://me:secret@${HOST}/crash`], ['target', ssh]];
      await guest.check('cat >/tmp/crash.conf', { input: lines.map((words) => `${words.join(' ')}\n`).join('') });
      await refused(guest, '--config /tmp/crash.conf', /the key of 10\.0\.2\.100 is in none of/);
      await guest.check(`mkdir -p ~/.ssh && echo '${HOST} ${shell.hostKey}' >~/.ssh/known_hosts`);
      await guest.check('modprobe 8021q && ip link add link eth0 name eth0.5 type vlan id 5');
      await guest.check('ip address add 10.9.0.1/24 dev eth0.5 && ip link set eth0.5 up');
      await refused(guest, '--target nfs:10.9.0.2:/crash', /eth0\.5, which is no network card but of the kind vlan/);
      await refused(guest, '--target http://127.0.0.1/', /127\.0\.0\.1 is this machine itself/);
    },
  });
  try {
    assert.doesNotMatch(await vm.check('tideover crash status'), /secret/);
    void vm.run('tideover crash test --yes').catch(() => {});
    await vm.off();
    assert.match(vm.console.text, /PUT .*\/vmcore: 507 Insufficient Storage.*tideover: saved to ssh:/s);
    const [dump] = readdirSync(stored);
    assert.deepEqual(readdirSync(join(received, 'crash', dump!)).sort(), ['vmcore-dmesg.txt', 'why.txt']);
    const at = (name: string) => join(stored, dump!, name);
    assert.deepEqual(readdirSync(join(stored, dump!)).sort(), ['vmcore', 'vmcore-dmesg.txt', 'why.txt']);
    assert.equal(statSync(at('vmcore')).mode & 0o777, 0o600);
    assert.match(readFileSync(at('vmcore-dmesg.txt'), 'utf8'), /sysrq/i);
    assert.match(why(at('vmcore')), /sysrq/i);
  } finally {
    await vm.close();
    web.close();
    shell.close();
    disk.remove();
  }
});

const inFull = full ? test : () => {};

inFull('a disk that is full keeps the log and no half file; servers that are gone are passed over', async () => {
  const received = join(folder, 'received');
  const cut = await goneServer();
  const server = await httpServer(received);
  const disk = await crashDisk(64);
  // At port 82 nobody answers.
  const targets = ['/mnt/data/crash', ...[81, 82, 80].map((port) => `http://${HOST}:${port}/crash`)];
  const vm = await armedGuest('7.2', disk, targets.map((target) => `--target ${target}`).join(' '), {
    hostPorts: { 80: server.port, 81: cut.port },
  });
  try {
    const fill = (name: string, more = '') => `dd if=/dev/zero of=/mnt/data/${name} bs=64k ${more}`;
    await vm.check(`${fill('spare', 'count=16')} && sync`);
    assert.match((await vm.run(fill('full'))).stderr.toString(), /No space left/);
    await vm.check('sync && rm /mnt/data/spare && sync');
    void vm.run('tideover crash test --yes').catch(() => {});
    await vm.off();
    const [saved] = await dumpsOn(disk, join(folder, 'full'));
    assert.deepEqual(saved!.files, ['vmcore-dmesg.txt', 'why.txt']);
    const said = vm.console.text;
    assert.match(said, /\/mnt\/data\/crash: not all was saved: .*ENOSPC/);
    assert.match(said, /:81\/crash: not all was saved/);
    assert.match(said, /:82\/crash: cannot be reached: .* does not answer at port 82/);
    assert.ok(cut.isUsed(), 'it was gone when the dump had begun');
    const [name] = readdirSync(join(received, 'crash'));
    const at = join(received, 'crash', name!);
    assert.deepEqual(readdirSync(at).sort(), ['vmcore', 'vmcore-dmesg.txt', 'why.txt']);
    assert.match(why(join(at, 'vmcore')), /sysrq/i);
  } finally {
    await vm.close();
    server.close();
    cut.close();
    disk.remove();
  }
});

/** An HTTP server that takes all but the dump: of that a part, and then it is gone. */
async function goneServer() {
  let isUsed = false;
  const server = createServer((request, response) => {
    if (!request.url!.endsWith('/vmcore')) {
      request.resume().on('end', () => response.writeHead(201).end());
      return;
    }
    isUsed = true;
    request.once('data', () => {
      server.close();
      server.closeAllConnections();
    });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return { port: (server.address() as AddressInfo).port, isUsed: () => isUsed, close: () => server.close() };
}

inFull('block devices: one without room keeps the log, the next has all, and is read as it is', async () => {
  const [disk, small, large] = [await crashDisk(), emptyDisk(2 ** 20), emptyDisk(2 ** 28)];
  const vm = await armedGuest('6.1', disk, '--target /dev/vdb --target /dev/vdc', {
    disks: [small, large],
    prepare: (guest) => refused(guest, '--target /dev/vda', /\/dev\/vda: it is in use/),
  });
  try {
    void vm.run('tideover crash test --yes').catch(() => {});
    await vm.off();
    assert.match(vm.console.text, /\/dev\/vdb: not all was saved: .*ENOSPC.*tideover: saved to \/dev\/vdc/s);
    assert.match(vm.console.text, /writing the dump: \d+% of/);
    const listed = ({ path }: OwnDisk) =>
      execFileSync('tar', ['-tf', path], { encoding: 'utf8' })
        .trim()
        .split('\n')
        .map((name) => name.replace(/^lab-\d{12}\//, ''));
    assert.deepEqual(listed(small), ['', 'vmcore-dmesg.txt', 'why.txt']);
    assert.deepEqual(listed(large), ['', 'vmcore-dmesg.txt', 'why.txt', 'vmcore']);
    assert.match(why(large.path), /sysrq/i);
    const to = join(folder, 'block');
    mkdirSync(to);
    execFileSync('tar', ['-xf', large.path, '--strip-components=1', '-C', to]);
    assert.match(readFileSync(join(to, 'vmcore-dmesg.txt'), 'utf8'), /sysrq: Trigger a crash/);
    await othersRead(join(to, 'vmcore'), '6.1', /sysrq: Trigger a crash/);
  } finally {
    await vm.close();
    for (const each of [disk, small, large]) each.remove();
  }
});

inFull('by NFS, and then a shell', async () => {
  const stored = join(folder, 'nfs');
  mkdirSync(stored);
  const server = await nfsServer(stored);
  const disk = await crashDisk(512, ['/bin/busybox']);
  const vm = await armedGuest('6.18', disk, `--target nfs:${HOST}:/dumps --then shell`, {
    hostPorts: { 2049: server.port },
    modules: ['nfsv4'],
    programs: ['busybox'],
  });
  try {
    void vm.run('tideover crash test --yes').catch(() => {});
    // What is typed before it asks may be lost.
    await vm.waitFor(/tideover: a shell.*# /s, LONG_MS);
    vm.console.write('echo sum $((20 + 22)) of $(ls /proc/vmcore)\n');
    await vm.waitFor(/sum 42 of \/proc\/vmcore/, LONG_MS);
    vm.console.write('exit\n');
    await vm.off();
    const [dump] = readdirSync(stored);
    assert.deepEqual(readdirSync(join(stored, dump!)).sort(), ['vmcore', 'vmcore-dmesg.txt', 'why.txt']);
    assert.match(why(join(stored, dump!, 'vmcore')), /sysrq/i);
  } catch (error) {
    console.log(vm.console.text.slice(-8000));
    throw error;
  } finally {
    await vm.close();
    server.close();
    disk.remove();
  }
});

/** What a kernel dies of, and what its log and `crash why` say then. */
const deaths = {
  sysrq: { log: /sysrq: Trigger a crash/, why: /sysrq/i, needs: undefined },
  oops: { log: STOCK_FAULT, why: /init_module.*\[dummy\]/, needs: 'module' },
  hang: { log: /hung_task: blocked tasks/, why: /hung task|blocked/i, needs: undefined },
  oom: { log: /panic_on_oom is enabled/, why: /out of memory|oom/i, needs: 'program' },
} as const;
type Death = keyof typeof deaths;

/** Of kernel, death, compression and target each with each of all others. */
const pairs: readonly (readonly [KernelName, Death, string, CaptureTargetName])[] = [
  ['6.1', 'sysrq', 'lzo', 'ext4'],
  ['6.1', 'oops', 'zstd', 'nfs'],
  ['6.1', 'hang', 'zlib', 'ssh'],
  ['6.1', 'oom', 'snappy', 'http'],
  ['6.12', 'sysrq', 'zstd', 'ssh'],
  ['6.12', 'oops', 'lzo', 'http'],
  ['6.12', 'hang', 'snappy', 'ext4'],
  ['6.12', 'oom', 'zlib', 'nfs'],
  ['6.18', 'sysrq', 'zlib', 'http'],
  ['6.18', 'oops', 'snappy', 'ssh'],
  ['6.18', 'hang', 'lzo', 'nfs'],
  ['6.18', 'oom', 'zstd', 'ext4'],
  ['7.2', 'sysrq', 'snappy', 'nfs'],
  ['7.2', 'oops', 'zlib', 'ext4'],
  ['7.2', 'hang', 'zstd', 'http'],
  ['7.2', 'oom', 'lzo', 'ssh'],
];

for (const [name, death, compress, to] of full ? pairs : []) {
  test(`${death} of kernel ${name}, with ${compress} to ${to}: other programs read the dump too`, async (t) => {
    const { log, why: reason, needs } = deaths[death];
    const target = await captureTarget(to, join(folder, `${name}-${death}`));
    const disk = await crashDisk(512, target.programs);
    const vm = await armedGuest(name, disk, `--target ${target.target} --compress ${compress}`, {
      ...target.machine,
      prepare: target.prepare,
      crashMemory: to === 'ext4' ? enough.disk : enough.network,
    });
    try {
      await vm.copyIn(guestFile('crash'), '/tmp/crash');
      if (needs === 'module') await vm.copyIn(stockFault(await kernelNamed(name), folder), '/tmp/fault.ko');
      if (needs === 'program') await vm.copyIn(await faultProgram(folder), '/tmp/user');
      if (death === 'oops') await vm.check('sysctl -w kernel.panic_on_oops=1');
      else if (death !== 'sysrq') await vm.check(`sh /tmp/crash prepare ${death}`);
      const own = { sysrq: 'tideover crash test --yes', oops: 'insmod /tmp/fault.ko' };
      void vm.run(death in own ? own[death as keyof typeof own] : `sh /tmp/crash now ${death}`).catch(() => {});
      await vm.off();
      t.diagnostic(vm.console.text.match(/\d+ MiB of .*/g)!.join('; '));
      const saved = await target.saved(disk);
      assert.deepEqual(saved.files, ['vmcore', 'vmcore-dmesg.txt', 'why.txt']);
      const text = (file: string) => readFileSync(join(saved.path, file), 'utf8');
      assert.match(text('vmcore-dmesg.txt'), log);
      assert.match(text('why.txt'), reason);
      const vmcore = join(saved.path, 'vmcore');
      assert.match(why(vmcore), reason);
      await othersRead(vmcore, name, log, compress);
    } catch (error) {
      t.diagnostic(vm.console.lastLines());
      throw error;
    } finally {
      await vm.close();
      target.close();
      disk.remove();
    }
  });
}

/** makedumpfile, drgn and crash take a dump: the log is in it, and they find the tasks. A stream is put together before. */
async function othersRead(saved: string, name: KernelName, log: RegExp, compress = 'zstd'): Promise<void> {
  const { makedumpfile } = await fetchMakedumpfile();
  const isStream = readFileSync(saved).subarray(0, 12).toString() === 'makedumpfile';
  const vmcore = isStream ? await putTogether(saved) : saved;
  // Debian builds it without snappy.
  if (compress !== 'snappy') {
    const theirs = `${vmcore}.dmesg`;
    await makedumpfile('--dump-dmesg', vmcore, theirs);
    assert.match(readFileSync(theirs, 'utf8'), log);
  }
  // Their symbols are a gigabyte for each kernel; those of 6.18 are not with Debian's kernels that stay.
  if (name === '6.18') return;
  const { release } = await kernelNamed(name);
  const vmlinux = await fetchVmlinux(release);
  const { stacks, log: bytes } = await drgnView(await fetchDrgn(), vmcore, vmlinux);
  assert.ok(
    Object.keys(stacks).length > 30 && bytes > 10_000,
    `drgn: ${Object.keys(stacks).length} tasks, ${bytes} bytes`,
  );
  // crash 9.0 does not find its way in 7.2.
  if (name === '7.2') return;
  const { command, env } = await fetchCrash();
  const [program, ...first] = command;
  const said = spawnSync(program, [...first, '-s', vmlinux, vmcore], {
    input: 'sys\nquit\n',
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  assert.ok(said.stdout.includes(`RELEASE: ${release}`), said.stdout + said.stderr);
}

/** By makedumpfile, from its stdin. @returns the path of what it makes */
async function putTogether(stream: string): Promise<string> {
  const [program, ...first] = (await fetchMakedumpfile()).command;
  const path = `${stream}.whole`;
  const fd = openSync(stream, 'r');
  try {
    execFileSync(program, [...first, '-R', path], { stdio: [fd, 'ignore', 'inherit'] });
  } finally {
    closeSync(fd);
  }
  return path;
}

if (full) {
  test('a power cut while it is saved leaves no file under its name but what is whole', async () => {
    const disk = await crashDisk();
    const vm = await armedGuest('6.12', disk, '--target /mnt/data/crash --level 0 --compress zlib');
    try {
      void vm.run('tideover crash test --yes').catch(() => {});
      await vm.waitFor(/tideover: vmcore: \d+%/, LONG_MS);
      await vm.powerCut();
      const [saved] = await dumpsOn(disk, join(folder, 'cut'));
      const whole = saved!.files.filter((name) => !name.includes('.partial-'));
      assert.deepEqual(whole, ['vmcore-dmesg.txt', 'why.txt']);
      assert.match(readFileSync(join(saved!.path, 'vmcore-dmesg.txt'), 'utf8'), /sysrq/i);
    } finally {
      await vm.close();
      disk.remove();
    }
  });

  test('the next kernel finds preserved memory after the panic', async () => {
    const disk = await crashDisk();
    const kernels = await kernelsDisk(['6.12']);
    const text = 'seq 1 300000';
    const vm = await armedGuest('6.12', disk, '--target /mnt/data/crash --then boot --config /tmp/crash.conf', {
      memory: 1280,
      crashMemory: 448,
      disks: [kernels],
      async prepare(guest) {
        await mountKernels(guest);
        const { initrdOptions } = await nextKernel(guest, '6.12');
        await guest.check(
          `cat ${initrdOptions.replaceAll('--initrd', '')} >/mnt/data/initrd; cp /tmp/vmlinuz /mnt/data/vmlinuz`,
        );
        await guest.check(
          'echo next_initrd /mnt/data/initrd >/tmp/crash.conf; echo kernel /mnt/data/vmlinuz >>/tmp/crash.conf',
        );
        await guest.check(`${text} | tideover pkram save node - --medium memory`);
      },
    });
    try {
      const before = vm.agent.greeting;
      const memory = await vm.check('grep MemTotal /proc/meminfo');
      void vm.run('tideover crash test --yes').catch(() => {});
      await vm.nextKernel(before, LONG_MS);
      assert.equal(await vm.check('tideover pkram load node | md5sum'), await vm.check(`${text} | md5sum`));
      assert.match(vm.console.text, /saved to \/mnt\/data\/crash/);
      const total = (line: string) => Number(/\d+/.exec(line)![0]);
      assert.ok(
        total(await vm.check('grep MemTotal /proc/meminfo')) > total(memory) - 2 ** 17,
        'it has the memory of the machine',
      );
    } finally {
      await vm.close();
      disk.remove();
      kernels.remove();
    }
  });
}
