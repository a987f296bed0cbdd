/** From the panic to the saved dump and to the machine's reset, and in how much memory, beside Debian's kdump-tools in the same Debian guest. */
import { crashDisk, takePackedSystem } from '../lab/capture.ts';
import { bootDebian, debianDisk } from '../lab/debian.ts';
import { kernel } from '../lab/kernels.ts';
import type { Vm } from '../lab/vm.ts';
import type { BenchResult } from './bench.ts';

export const name = 'capture';
export const summary = 'a panic is saved to ext4, against kdump-tools, in a guest';

const SLOW = { timeout: 900_000 };
const CRASH_MEMORY = 256;

/**
 * kdump-tools starts Debian itself from its initramfs; the guest's own is the lab's. In it the disk's driver is, and not the network card's, which
 * systemd would wait for.
 */
const KDUMP_SETTINGS = `USE_KDUMP=1
KDUMP_KERNEL=/var/lib/kdump/vmlinuz
KDUMP_INITRD=/var/lib/kdump/initrd.img
KDUMP_COREDIR=/var/crash
KDUMP_CMDLINE="console=ttyS0 root=/dev/vda rw mitigations=off no_timer_check systemd.mask=systemd-networkd-wait-online.service"
`;

/** Says on the console how little memory has been available so far, while kdump-tools saves. */
const WATCH_MEMORY = `mkdir -p /etc/systemd/system/kdump-tools-dump.service.wants
cat >/usr/local/bin/watch-memory <<'END'
#!/bin/sh
least=99999999
while :; do
  while read -r name value _; do
    if [ "$name" = MemAvailable: ] && [ "$value" -lt "$least" ]; then
      least=$value
      echo "least $least kB" >/dev/console
    fi
  done </proc/meminfo
  sleep 0.5
done
END
chmod 755 /usr/local/bin/watch-memory
cat >/etc/systemd/system/watch-memory.service <<'END'
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/local/bin/watch-memory
END
ln -s ../watch-memory.service /etc/systemd/system/kdump-tools-dump.service.wants/`;

const tools = {
  tideover: {
    packages: [],
    arm: (release: string) => `${takePackedSystem}
tideover crash arm --kernel /boot/vmlinuz-${release} --target /var/crash`,
    log: /tideover: saved vmcore-dmesg\.txt/,
    reason: /tideover: saved why\.txt/,
    saved: /tideover: saved to \/var\/crash/,
    least: (console: string) => Number(/(\d+) MiB of it were free at any time/.exec(console)?.[1]),
  },
  'kdump-tools': {
    packages: ['initramfs-tools', 'kdump-tools', 'kexec-tools', 'makedumpfile', 'zstd'],
    // It makes its initramfs, for minutes.
    arm: () => `cat >/etc/default/kdump-tools
${WATCH_MEMORY}
kdump-config load`,
    log: /saved dmesg content in \/var\/crash/,
    reason: undefined,
    saved: /saved vmcore in \/var\/crash/,
    least: (console: string) => Number([...console.matchAll(/least (\d+) kB/g)].at(-1)?.[1]) / 1024,
  },
} as const;

interface Course {
  /** Seconds from the panic. */
  readonly log: number;
  readonly saved: number;
  readonly reset: number;
  /** MiB of what was set aside, at the most. */
  readonly memory: number;
  /** Seconds for the reason. */
  readonly reason: number | undefined;
}

async function course(tool: keyof typeof tools): Promise<Course> {
  const { packages, arm, least, ...messages } = tools[tool];
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
    const passed = () => (performance.now() - panicked) / 1000;
    const said = (message: RegExp) => vm.waitFor(message, SLOW.timeout, since).then(passed);
    const log = await said(messages.log);
    const reason = messages.reason && (await said(messages.reason)) - log;
    const saved = await said(messages.saved);
    await vm.off();
    return {
      log,
      reason,
      saved,
      reset: passed(),
      memory: CRASH_MEMORY - least(vm.console.text.slice(since)),
    };
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
  const compare = (what: string, of: 'log' | 'saved' | 'reset' | 'memory', unit: string) => {
    const [a, b] = [ours[of], theirs[of]];
    return { what, reference: 'kdump-tools', unit, ours: a, theirs: b, ratio: a / b, goal: 1 };
  };
  return {
    comparisons: [
      compare('panic to log saved', 'log', 's'),
      compare('panic to dump saved', 'saved', 's'),
      compare('panic to reset', 'reset', 's'),
      compare('memory taken at the most', 'memory', 'MiB'),
    ],
    notes: [
      `crashkernel=${CRASH_MEMORY}M, a dump of level 31, one processor`,
      `in ours is the reason, before the dump: ${ours.reason?.toFixed(1)} s`,
    ],
  };
}
