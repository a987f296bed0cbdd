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

(process.env.TIDEOVER_FULL === undefined ? () => {} : test)(
  'Debian with systemd: armed at each start, again when processors or the kernel change; and saved',
  async (t) => {
    const [root, packed, found] = [await debianDisk(), await crashDisk(), await kernel('6.1')];
    const start = () =>
      bootDebian({ kernel: found, memory: 1024, cpus: 2, disk: root, disks: [packed], append: 'crashkernel=256M' });
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
      await armedTimes(vm, 1);
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
