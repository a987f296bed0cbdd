/** What `tideover crash setup` installs, under systemd: armed at each start, and again when what the capture kernel is made of changes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crashDisk, takePackedSystem } from '../../lab/capture.ts';
import { bootDebian, debianDisk } from '../../lab/debian.ts';
import { kernel } from '../../lab/kernels.ts';
import type { Vm } from '../../lab/vm.ts';

const SLOW = { timeout: 600_000 };

const HOOK = '/etc/kernel/postinst.d/zz-tideover-crash';

/** Waits until the service has armed so many times since the start. */
async function armedTimes(vm: Vm, times: number): Promise<void> {
  const count = 'journalctl -q -b -o cat -u tideover-crash | grep -c "armed: kernel"';
  await vm.check(`until [ "$(${count})" -ge ${times} ]; do sleep 0.5; done`, SLOW);
  assert.equal(JSON.parse(await vm.check('tideover crash status --json', SLOW)).armed, true);
}

const MORE_MEMORY = 2 ** 28;

/** Adds a DIMM to a machine that has a slot for it. @returns where it lies */
async function addMemory(vm: Vm): Promise<{ readonly start: number; readonly end: number }> {
  await vm.check('echo online >/sys/devices/system/memory/auto_online_blocks');
  await vm.qmp('object-add', { 'qom-type': 'memory-backend-ram', id: 'more', size: MORE_MEMORY });
  await vm.qmp('device_add', { driver: 'pc-dimm', id: 'dimm', memdev: 'more' });
  const [dimm] = (await vm.qmp('query-memory-devices')) as { data: { addr: number } }[];
  const start = dimm!.data.addr;
  return { start, end: start + MORE_MEMORY };
}

/** Waits until systemd and udev have nothing to do for the service. */
const settled =
  'udevadm settle && until [ -z "$(systemctl list-jobs --no-legend \'tideover-crash*\')" ]; do sleep 0.5; done';

(process.env.TIDEOVER_FULL === undefined ? () => {} : test)(
  'Debian with systemd: armed at each start, again when processors, memory or the kernel change; and saved',
  async (t) => {
    const [root, packed, found] = [await debianDisk(), await crashDisk(), await kernel('6.1')];
    const start = () =>
      bootDebian({
        kernel: found,
        memory: 1024,
        cpus: 2,
        disk: root,
        disks: [packed],
        append: 'crashkernel=256M',
        extraArguments: ['-m', 'slots=1,maxmem=2G'],
      });
    let more: Awaited<ReturnType<typeof addMemory>>;
    let vm = await start();
    try {
      await vm.check(takePackedSystem);
      await vm.copyIn(found.vmlinuz, `/boot/vmlinuz-${found.release}`);
      assert.match(await vm.check('tideover crash setup', SLOW), /98-tideover-crash\.rules/);
      await vm.check('systemctl start tideover-crash', SLOW);
      await armedTimes(vm, 1);
      await vm.check('echo 0 >/sys/devices/system/cpu/cpu1/online');
      await armedTimes(vm, 2);
      await vm.check(`${HOOK} another-release && ${HOOK} ${found.release}`);
      await armedTimes(vm, 3);
      more = await addMemory(vm);
      await armedTimes(vm, 4);
      await vm.check(settled, SLOW);
      void vm.run('tideover crash test --yes').catch(() => {});
      assert.equal(await vm.off(), 0, 'it has reset the machine');
    } catch (error) {
      t.diagnostic(vm.console.lastLines());
      throw error;
    } finally {
      await vm.close();
    }
    vm = await start();
    try {
      assert.match(await vm.check('ls /var/crash/lab-*'), /^vmcore\nvmcore-dmesg\.txt\nwhy\.txt\n$/);
      const { dump } = JSON.parse(await vm.check('tideover crash info --json /var/crash/lab-*/vmcore', SLOW));
      assert.deepEqual(dump.ranges.at(-1), {
        start: `0x${more.start.toString(16)}`,
        end: `0x${more.end.toString(16)}`,
      });
      await armedTimes(vm, 1);
      // It asks who has a terminal, and of any other wants --yes.
      await vm.check('tideover crash test </dev/null; [ $? = 2 ]', SLOW);
      const asked = await vm.check(`echo no | script -qec 'tideover crash test; echo status $?' /dev/null`, SLOW);
      assert.match(asked, /Type its name.*nothing was done.*status 2/s);
      await vm.check('tideover crash disarm', SLOW);
      assert.equal(JSON.parse(await vm.check('tideover crash status --json', SLOW)).armed, false);
      const little = await vm.run(`echo $((96 << 20)) >/sys/kernel/kexec_crash_size && tideover crash arm`, SLOW);
      assert.equal(little.status, 3);
      assert.match(little.stderr.toString(), /has reserved 96 MiB; .* MiB are missing; boot with crashkernel=\d+M/);
      const hidden = (await vm.check('tideover crash setup --remove', SLOW)).trim().split('\n');
      assert.equal(hidden.length, 3);
      await vm.check(`! ls ${hidden.join(' ')} 2>/dev/null && ls /etc/tideover/crash.conf`);
    } catch (error) {
      t.diagnostic(vm.console.lastLines());
      throw error;
    } finally {
      await vm.close();
      root.remove();
      packed.remove();
    }
  },
);
