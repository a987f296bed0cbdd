/** The next kernel panics while it restores: the old one takes over, and the program goes on there with its client's connection. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { captureModules, crashDisk, mountCrashDisk } from '../../lab/capture.ts';
import type { OwnDisk } from '../../lab/disk.ts';
import { kernel } from '../../lab/kernels.ts';
import { modulesArchive } from '../../lab/modules-archive.ts';
import { commonArchive } from '../../lab/root.ts';
import { cpio } from '../../src/kexec/cpio.ts';
import { joinInitrds } from '../../src/kexec/plan.ts';
import {
  Client,
  change,
  guestProgram,
  KEPT_MODULES,
  restoredPid,
  SLOW,
  SPARE_MODULES,
  untilKeptListens,
} from './keeping.ts';
import { KERNELS, kernelsDisk, MOUNT_KERNELS, mountKernels } from './next-kernels.ts';

/** The tree waits for the machine's address, which comes after this; so it has not gone on when the kernel panics. */
const EARLY = `${MOUNT_KERNELS}
${mountCrashDisk}
tideover update resume --hold >/dev/console 2>&1
tideover update resume >/dev/console 2>&1 &
if grep -q lab.panics /proc/cmdline; then
  until grep -q '"restoring"' /var/lib/tideover/update.json; do sleep 0.1; done
  echo c >/proc/sysrq-trigger
fi
`;
/** Both kernels, and what the old one starts with when it comes back. */
async function bothKernels(): Promise<OwnDisk> {
  const early = cpio([{ name: 'lab/early', mode: 0o644, data: EARLY }]);
  const old = await modulesArchive(await kernel('6.1'), KEPT_MODULES, SPARE_MODULES);
  const files = {
    kept: await guestProgram('kept'),
    early,
    'old-initrd': joinInitrds([await commonArchive(), old, early]),
  };
  return kernelsDisk(['6.1', '6.12'], files, SPARE_MODULES, KEPT_MODULES);
}

const SETTINGS = `kernel ${KERNELS}/6.1/vmlinuz
next_initrd ${KERNELS}/old-initrd
`;

// Five kernels start one after the other.
const inFull = process.env.TIDEOVER_FULL === undefined ? () => {} : test;

inFull('6.1 -> 6.12 -> panic -> 6.1: a program goes on, and its client outside stays on its connection', async (t) => {
  const [disk, kernels] = [await crashDisk(), await bothKernels()];
  const vm = await boot({
    kernel: '6.1',
    memory: 1280,
    disks: [disk, kernels],
    modules: KEPT_MODULES,
    spareModules: captureModules,
  });
  try {
    await vm.check(mountCrashDisk);
    await mountKernels(vm);
    await vm.check('mkdir -p /etc/tideover && cat >/etc/tideover/crash.conf', { input: SETTINGS });
    await vm.check(`unshare -p -f ${KERNELS}/kept 7000 4 </dev/null >/dev/null 2>&1 &`);
    await untilKeptListens(vm);
    const client = new Client(await vm.hostPort(7000));
    try {
      await client.more(20);
      const given = `--initrd ${KERNELS}/early --keep-pid $(pidof kept)`;
      // A kernel in the middle of what there is would leave no 448 MiB in one piece.
      await change(vm, '6.12', `${given} --append 'crashkernel=448M lab.panics nokaslr'`, '6.1');
      await restoredPid(vm, 'back');
      await client.more(40);
    } finally {
      client.end();
    }
    const { release } = await kernel('6.12');
    const what = 'Kernel panic - not syncing: sysrq triggered crash';
    const said = `kernel ${release} panicked before everything was restored, and this one took over: ${what}`;
    assert.ok(vm.console.text.includes(said), 'resume says why');
    const status = await vm.check('tideover update status', SLOW);
    t.diagnostic(status);
    assert.ok(status.includes(said), status);
    const log = await vm.check('cat /var/lib/tideover/guard/vmcore-dmesg.txt; ls /var/lib/tideover/guard');
    assert.match(log, /sysrq: Trigger a crash.*\nvmcore-dmesg\.txt\n$/s);
    assert.equal((await vm.check('cat /sys/kernel/kexec_crash_loaded')).trim(), '0');
  } catch (error) {
    t.diagnostic(vm.console.lastLines());
    throw error;
  } finally {
    await vm.close();
    disk.remove();
    kernels.remove();
  }
});
