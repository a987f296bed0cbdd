/** From the panic to the saved dump, and to the machine's reset, beside Debian's kdump-tools in the same Debian guest. */
import { crashDisk, takePackedSystem } from '../lab/capture.ts';
import { bootDebian, debianDisk } from '../lab/debian.ts';
import { kernel } from '../lab/kernels.ts';
import type { Vm } from '../lab/vm.ts';
import type { BenchResult } from './bench.ts';

export const name = 'capture';
export const summary = 'a panic is saved to ext4, against kdump-tools, in a guest';

const SLOW = { timeout: 900_000 };
const CRASH_MEMORY = 256;

/** kdump-tools starts Debian itself from its initramfs; the guest's own is the lab's. */
const KDUMP_SETTINGS = `USE_KDUMP=1
KDUMP_KERNEL=/var/lib/kdump/vmlinuz
KDUMP_INITRD=/var/lib/kdump/initrd.img
KDUMP_COREDIR=/var/crash
KDUMP_CMDLINE="console=ttyS0 root=/dev/vda rw mitigations=off no_timer_check"
`;

const tools = {
  tideover: {
    packages: [],
    arm: (release: string) => `${takePackedSystem}
tideover crash arm --kernel /boot/vmlinuz-${release} --target /var/crash`,
    saved: /tideover: saved to \/var\/crash/,
  },
  'kdump-tools': {
    packages: ['initramfs-tools', 'kdump-tools', 'kexec-tools', 'makedumpfile', 'zstd'],
    arm: (release: string) => `cat >/etc/default/kdump-tools
/etc/kernel/postinst.d/kdump-tools ${release} /boot/vmlinuz-${release}
kdump-config load`,
    saved: /saved vmcore in \/var\/crash/,
  },
} as const;

/** Seconds from the panic. */
interface Course {
  readonly saved: number;
  readonly reset: number;
}

async function course(tool: keyof typeof tools): Promise<Course> {
  const { packages, arm, saved } = tools[tool];
  const [root, packed, found] = [await debianDisk(packages), await crashDisk(), await kernel('6.1')];
  const append = `crashkernel=${CRASH_MEMORY}M`;
  const vm = await bootDebian({ kernel: found, memory: 1024, disk: root, disks: [packed], append });
  try {
    await vm.copyIn(found.vmlinuz, `/boot/vmlinuz-${found.release}`);
    await vm.copyIn(found.config, `/boot/config-${found.release}`);
    await vm.check(arm(found.release), { ...SLOW, input: KDUMP_SETTINGS });
    await demandLoaded(vm);
    await vm.check('sync');
    const since = vm.console.text.length;
    void vm.run('echo c >/proc/sysrq-trigger').catch(() => {});
    await vm.waitFor(/Kernel panic/, SLOW.timeout, since);
    const panicked = performance.now();
    await vm.waitFor(saved, SLOW.timeout, since);
    const then = performance.now();
    await vm.off();
    return { saved: (then - panicked) / 1000, reset: (performance.now() - panicked) / 1000 };
  } finally {
    await vm.close();
    root.remove();
    packed.remove();
  }
}

async function demandLoaded(vm: Vm): Promise<void> {
  await vm.check('[ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ]');
}

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  if (small) return { comparisons: [], notes: ['takes minutes, and so only without --small'] };
  const [ours, theirs] = [await course('tideover'), await course('kdump-tools')];
  const compare = (what: string, of: keyof Course) => {
    const [a, b] = [ours[of], theirs[of]];
    return { what, reference: 'kdump-tools', unit: 's', ours: a, theirs: b, ratio: a / b, goal: 1 };
  };
  return {
    comparisons: [compare('panic to dump saved', 'saved'), compare('panic to reset', 'reset')],
    notes: [`crashkernel=${CRASH_MEMORY}M, a dump of level 31, one processor; ours has the reason beside it`],
  };
}
