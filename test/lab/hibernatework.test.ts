/** A machine of 2 GB that works as machines do hibernates to a USB disk, and to a file. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { commandLine } from '../../lab/boot.ts';
import { within } from '../../lab/deadline.ts';
import { bootDebian, type DebianOptions, debianDisk } from '../../lab/debian.ts';
import { type Disk, emptyDisk, type OwnDisk } from '../../lab/disk.ts';
import { kernel } from '../../lab/kernels.ts';
import { Vm } from '../../lab/vm.ts';
import { GOES_ON, helper, inMachine, kernels, SAVED, withVm } from './hibernating.ts';

const LONG_MS = 1_500_000;
const LONG = { timeout: LONG_MS };

/** Of random data in one process. */
const DATA = 1_400_000_000;

/** Fills memory with numbers that do not compress, and sums them up when it is asked to. */
const HOLDER = `
const words = new Uint32Array(${DATA} / 4);
for (let i = 0, x = 1; i < words.length; i++) { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; words[i] = x; }
const sum = () => { let s = 0; for (let i = 0; i < words.length; i++) s = (Math.imul(s, 31) + words[i]) | 0; return s; };
const { writeFileSync } = require('node:fs');
writeFileSync('/run/holder.first', String(sum()));
process.on('SIGUSR1', () => writeFileSync('/run/holder.now', String(sum())));
setInterval(() => {}, 1000);
`;

const HOOK = '#!/bin/sh\necho "$1 $2 $SYSTEMD_SLEEP_ACTION" >>/run/hooks\n';
const ON_SLEEP =
  '[Unit]\nBefore=sleep.target\nStopWhenUnneeded=yes\n[Service]\nType=oneshot\nRemainAfterExit=yes\n' +
  'ExecStart=/bin/sh -c "echo target sleeps >>/run/hooks"\nExecStop=/bin/sh -c "echo target wakes >>/run/hooks"\n' +
  '[Install]\nWantedBy=sleep.target\n';

async function startServices(vm: Vm): Promise<void> {
  const put = (path: string, input: string) =>
    vm.check(`mkdir -p $(dirname ${path}); cat >${path}; chmod 755 ${path}`, { input });
  await vm.check('mkfs.ext4 -q /dev/vdb && mkdir -p /mnt/own && mount /dev/vdb /mnt/own', LONG);
  await put('/run/holder.js', HOLDER);
  await vm.check('for d in /etc/postgresql/*/main/conf.d; do echo shared_buffers=16MB >$d/lab.conf; done', LONG);
  await vm.check('systemd-run -q --unit=holder node /run/holder.js; systemctl start redis-server postgresql', LONG);
  await put('/etc/systemd/system-sleep/note', HOOK);
  await put('/etc/systemd/system/on-sleep.service', ON_SLEEP);
  await vm.check('systemctl daemon-reload; systemctl -q enable on-sleep.service', LONG);
  await put(
    '/run/client',
    'while :; do echo INCR beats; sleep 0.1; done | stdbuf -oL redis-cli >/run/client.log 2>&1\n',
  );
  await vm.check('systemd-run -q --unit=client sh /run/client', LONG);
  await vm.check(
    'until su postgres -c "psql -c \\"select 1\\""; do sleep 1; done; su postgres -c "pgbench -i -q -s 1"',
    LONG,
  );
  await put('/run/bench', 'exec su postgres -c "pgbench -c 2 -T 100000 -P 1" >/run/bench.log 2>&1\n');
  await vm.check('systemd-run -q --unit=bench sh /run/bench', LONG);
  await put('/run/writer', 'while sleep 0.3; do dd if=/dev/urandom of=/mnt/own/random bs=64k count=8; done\n');
  await vm.check('systemd-run -q --unit=writer sh /run/writer', LONG);
  await vm.check('until [ -s /run/holder.first ]; do sleep 1; done', LONG);
}

/** Everything has gone on: nobody has lost a connection, and each does more. */
async function checkServices(vm: Vm): Promise<void> {
  const units = 'holder client bench writer redis-server postgresql';
  await vm.check(`for u in ${units}; do systemctl is-active $u || { systemctl status $u; exit 1; }; done`, LONG);
  const count = async () => Number(await vm.check('tail -n 1 /run/client.log'));
  const before = await count();
  assert.ok(before > 0);
  await vm.check(`until [ $(tail -n 1 /run/client.log) -gt ${before} ]; do sleep 0.2; done`, LONG);
  const lines = 'grep -c progress /run/bench.log';
  await vm.check(
    `n=$(${lines}); until [ $(${lines}) -gt $n ]; do sleep 0.5; done; ! grep -iE "error|abort|fatal" /run/bench.log`,
    LONG,
  );
  const sums = 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)';
  assert.equal((await vm.check(`su postgres -c 'psql -At -c "${sums}"'`, LONG)).trim(), 't');
  await vm.check(
    'rm -f /run/holder.now; systemctl kill -s USR1 holder; until [ -s /run/holder.now ]; do sleep 1; done',
    LONG,
  );
  await vm.check('sleep 1; cmp /run/holder.first /run/holder.now', LONG);
  assert.equal(
    (await vm.check('cat /sys/class/net/e*/carrier; /run/lab/busybox ping -c 1 -W 20 10.0.2.2 >&2')).trim(),
    '1',
  );
  assert.equal((await vm.check('nproc')).trim(), '2');
  const [guest, host] = [Number(await vm.check('date +%s')), Date.now() / 1000];
  assert.ok(Math.abs(guest - host) < 60, `the clock is ${guest - host} s off`);
}

const COMMAND = '/usr/local/bin/tideover hibernate --compress none';
const HOOKS = 'pre hibernate hibernate\npost hibernate hibernate\n';

interface Worker extends Disposable {
  readonly machine: DebianOptions & { readonly disks: readonly Disk[] };
  /** /dev/vda, with Debian. */
  readonly disk: OwnDisk;
  /** /dev/vdb */
  readonly own: OwnDisk;
}

/** A machine of 2 GB with a USB disk, /dev/sda. */
async function newMachine(): Promise<Worker> {
  const disk = await debianDisk(['busybox', 'initramfs-tools', 'postgresql', 'redis-server', 'redis-tools']);
  const [own, usb] = [emptyDisk(256 << 20), emptyDisk(2 ** 31)];
  const machine = {
    memory: 2048,
    cpus: 2,
    kernel: 'jump',
    disk,
    disks: [own, kernels],
    append: 'crashkernel=256M',
    extraArguments: [
      ...['-device', 'qemu-xhci', '-drive', `file=${usb.path},format=raw,if=none,id=usb`],
      ...['-device', 'usb-storage,drive=usb'],
    ],
  } as const;
  return {
    machine,
    disk,
    own,
    [Symbol.dispose]() {
      for (const each of [disk, own, usb]) each.remove();
    },
  };
}

/** Starts hibernation, and waits until the machine is off. @returns which machine it is */
async function away(vm: Vm, start: string): Promise<string> {
  const since = vm.console.text.length;
  await vm.check(start, LONG);
  const [said] = await vm.waitFor(new RegExp(`${SAVED.source}|tideover: (?!saving|\\d+%).*`), LONG_MS, since);
  assert.match(said, SAVED);
  await within(LONG_MS, 'the machine is off', vm.exited);
  return vm.agent.greeting!.agent;
}

/** The machine goes on, with all that it does, and its file systems are whole. */
async function checkMachine(vm: Vm, hooks: string): Promise<void> {
  await checkServices(vm);
  await vm.check(`until [ $(wc -l </run/hooks) -ge ${hooks.trim().split('\n').length} ]; do sleep 0.5; done`, LONG);
  assert.equal(await vm.check('cat /run/hooks'), hooks);
  await vm.check('systemctl stop writer; umount /mnt/own; e2fsck -f -n /dev/vdb', LONG);
}

if (process.env.TIDEOVER_FULL) {
  test('2 GB with services, to a USB disk and back', async () => {
    using worker = await newMachine();
    const { machine, disk, own } = worker;
    const self = await withVm(await bootDebian(machine), async (vm) => {
      const options = await helper(vm);
      await startServices(vm);
      const unit = 'systemd-run -q --unit=usb -p StandardError=journal+console -p StandardOutput=file:/run/ended';
      return away(vm, `${unit} ${COMMAND} --to /dev/sda ${options} --json`);
    });
    await inMachine({ ...machine, disks: [disk, own, kernels] }, async (vm) => {
      const began = vm.agent.greeting;
      void vm.run(`tideover resume --wait 60 ${await helper(vm)}`, LONG).catch(() => {});
      await vm.waitFor(GOES_ON, LONG_MS);
      assert.equal((await vm.nextKernel(began, LONG_MS)).agent, self);
      await checkMachine(vm, HOOKS);
      await vm.check('until grep -q outcome /run/ended; do sleep 1; done; grep -q \'"resumed"\' /run/ended', LONG);
    });
  });

  test('2 GB with services, to a file, by a service and the initramfs of Debian', async (context) => {
    using worker = await newMachine();
    const { machine, disk, own } = worker;
    const { vmlinuz, release } = await kernel('jump');
    const initrdPath = `${disk.path}.initrd`;
    const self = await withVm(await bootDebian(machine), async (vm) => {
      const options = await helper(vm);
      await vm.check(
        'dd if=/dev/zero of=/var/hibernate.img bs=1M count=1900 && sync && echo 1 >/proc/sys/vm/drop_caches',
        LONG,
      );
      const kept = options.replace(/ --append .*/, '');
      const setup = `tideover hibernate setup --to /var/hibernate.img ${kept} --json`;
      assert.deepEqual(JSON.parse(await vm.check(setup, LONG)).todo, ['run: update-initramfs -u']);
      const settings = 'COMPRESS=gzip\\nCOMPRESSLEVEL=1\\nMODULES=list\\n';
      await vm.check(
        `printf '${settings}' >/etc/initramfs-tools/conf.d/lab; zcat /proc/config.gz >/boot/config-${release}`,
      );
      await vm.check(`update-initramfs -c -k ${release}`, LONG);
      await vm.copyOut(`/boot/initrd.img-${release}`, initrdPath);
      const folder = '/etc/systemd/system/tideover-hibernate.service.d';
      // After it has ended, systemd forgets what a service has said.
      const status = 'ExecStartPost=/bin/sh -c "systemctl show -P StatusText tideover-hibernate >/run/status"\n';
      const started = `ExecStart=\nExecStart=${COMMAND} --to /var/hibernate.img ${options}\n${status}`;
      const input = `[Service]\nStandardError=journal+console\n${started}`;
      await vm.check(`mkdir -p ${folder}; cat >${folder}/lab.conf`, { input });
      await startServices(vm);
      context.diagnostic((await vm.check('free -m')).trim());
      return away(vm, 'systemctl --no-block start tideover-hibernate.service');
    });
    const append = `${commandLine} crashkernel=256M root=/dev/vda`;
    const load = { kernel: vmlinuz, initrd: readFileSync(initrdPath), append };
    await withVm(await Vm.start({ ...machine, disks: [disk, own, kernels] }, load), async (vm) => {
      await vm.waitFor(GOES_ON, LONG_MS);
      assert.equal((await vm.agent.ready(LONG_MS)).agent, self);
      await checkMachine(vm, `target sleeps\n${HOOKS}target wakes\n`);
      assert.equal(await vm.check('until [ -s /run/status ]; do sleep 1; done; cat /run/status', LONG), 'resumed\n');
      await vm.check('systemctl stop bench client postgresql redis-server; systemctl --no-block poweroff', LONG);
      await within(LONG_MS, 'the machine is off', vm.exited);
    });
    await inMachine({ ...machine, disks: [disk, own, kernels], programs: ['e2fsck'] }, async (vm) => {
      await vm.check('e2fsck -f -n /dev/vda', LONG);
    });
  });
}
