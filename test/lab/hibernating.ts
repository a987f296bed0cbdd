/** What tests of hibernation share: machines that work, hibernate and go on. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { cacheDirectory } from '../../lab/cache.ts';
import { within } from '../../lab/deadline.ts';
import { modulesDisk } from '../../lab/debian.ts';
import { type Disk, emptyDisk, type OwnDisk } from '../../lab/disk.ts';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import type { Vm } from '../../lab/vm.ts';
import { systemImage } from '../../src/kexec/system.ts';
import { KERNELS, kernelsDisk, nextKernel } from './next-kernels.ts';

export const NEXT_KERNEL_MS = 300_000;
export const SLOW = { timeout: NEXT_KERNEL_MS };

const dist = new URL('../../dist', import.meta.url).pathname;
const system = readFileSync(systemImage({ cache: join(cacheDirectory(), 'systems'), bundle: dist }));
/** Kernels that save and restore, and the system that they run. */
export const kernels = await kernelsDisk(['jump', '6.12'], { system });
after(() => kernels.remove());

/** On a busy host, emulated timers are not what a kernel expects when it tries them. */
const EMULATED = 'no_timer_check';

export interface Disks extends Disposable {
  /** /dev/vda: of the machine's own. */
  readonly own: OwnDisk;
  /** /dev/vdb: for the image. */
  readonly image: OwnDisk;
  /** /dev/vdc: where the image has no room. */
  readonly small: OwnDisk;
}

export function newDisks(smallBytes = 48 << 20): Disks {
  const [own, image, small] = [emptyDisk(256 << 20), emptyDisk(2 ** 31), emptyDisk(smallBytes)];
  return {
    own,
    image,
    small,
    [Symbol.dispose]() {
      for (const each of [own, image, small]) each.remove();
    },
  };
}

/** A machine: what it is made of, and what is on its disks. */
export function machineOf({ own, image, small }: Disks): BootOptions {
  const programs = ['mkfs.ext4', 'e2fsck'];
  return {
    kernel: 'jump',
    memory: 1280,
    cpus: 2,
    disks: [own, image, small, kernels],
    programs,
    append: 'crashkernel=256M',
  };
}

/** For a machine whose memory is saved by a kernel of Debian's, in the environment that is made for it. */
export async function debianModules(): Promise<Disk[]> {
  return modulesDisk(await kernel('6.12'));
}

const MOUNT_MODULES =
  'mkdir -p /lab/modules; for d in vda vdb vdc vdd vde; do [ "$(cat /sys/block/$d/serial)" = modules ] || continue; ' +
  'grep -q " /lab/modules " /proc/mounts || mount -t squashfs -o ro /dev/$d /lab/modules; done';

/** Options that name the kernel that saves or restores. */
export async function helper(vm: Vm, name: KernelName = 'jump'): Promise<string> {
  const { vmlinuz } = await nextKernel(vm, name);
  if (name !== 'jump') await vm.check(MOUNT_MODULES);
  const append = `console=ttyS0 panic=10 mitigations=off random.trust_cpu=on ${EMULATED}`;
  return `--kernel ${vmlinuz} --system ${KERNELS}/system --append '${append}'`;
}

/** Begins to hibernate, and returns when the other kernel has said something. */
export async function hibernate(vm: Vm, options: string, until: RegExp, name?: KernelName): Promise<void> {
  const command = `tideover hibernate ${options} ${await helper(vm, name)} --json`;
  const since = vm.console.text.length;
  // Not under the agent, for which nobody speaks meanwhile.
  await vm.check(
    // What it says is said before it has ended: who waits for its end does not take it for what the next one says.
    `rm -f /tmp/ended; (setsid sh -c "${command} >/tmp/hibernate.log 2>/dev/null; n=\\$?; grep -A3 error /tmp/hibernate.log >/dev/console; echo \\$n >/tmp/ended" &) </dev/null`,
  );
  // Where it was refused there is nothing to wait for.
  const [said] = await vm.waitFor(new RegExp(`${until.source}|"error"`), NEXT_KERNEL_MS, since);
  if (said === '"error"') assert.fail(await vm.check('cat /tmp/hibernate.log'));
}

/** How the command ended that had begun to hibernate. */
export async function ended(vm: Vm, status = 0): Promise<{ outcome?: string; error?: { message: string } }> {
  const log = await vm.check(
    `until [ -s /tmp/ended ]; do sleep 0.1; done; cat /tmp/hibernate.log; [ $(cat /tmp/ended) = ${status} ]`,
    SLOW,
  );
  return JSON.parse(log);
}

export async function startWork(vm: Vm): Promise<void> {
  await vm.check('mkfs.ext4 -q /dev/vda && mkdir -p /mnt/own && mount /dev/vda /mnt/own');
  const background = (script: string) => vm.check(`sh -c '${script}' </dev/null >/dev/null 2>&1 &`);
  await background('i=0; while :; do i=$((i + 1)); echo $i >/tmp/counter; sleep 0.1; done');
  await background(
    'echo $$ >/tmp/writer; while sleep 0.3; do dd if=/dev/urandom of=/mnt/own/random bs=64k count=8; done',
  );
  await vm.check('dd if=/dev/urandom of=/tmp/random bs=1M count=64; md5sum /tmp/random >/tmp/random.md5', SLOW);
}

export async function checkWork(vm: Vm): Promise<void> {
  const now = Number(await vm.check('cat /tmp/counter'));
  await vm.check(`until [ "$(cat /tmp/counter)" -gt ${now} ]; do sleep 0.1; done`);
  await vm.check('md5sum -c /tmp/random.md5', SLOW);
  const write = 'head -c 2000000 /dev/urandom >/mnt/own/more && md5sum /mnt/own/more >/mnt/own/md5 && sync';
  await vm.check(`${write} && echo 3 >/proc/sys/vm/drop_caches && md5sum -c /mnt/own/md5`);
  await vm.check('ping -c 1 -W 5 10.0.2.2');
  assert.equal((await vm.check('nproc')).trim(), '2');
}

/** The machine's file system has no fault: ends what writes to it. */
export async function checkFileSystem(vm: Vm): Promise<void> {
  await vm.check('kill $(cat /tmp/writer); until umount /mnt/own; do sleep 0.2; done; e2fsck -f -n /dev/vda', SLOW);
}

/** The kernel says so when it is back from the other one. */
export const GOES_ON = /Restarting tasks: Done/;
/** The other kernel says so before it ends. */
export const SAVED = /tideover: saved .* as \d+ MB/;

/** Boots, does something, and cuts the power. */
export async function inMachine<T>(machine: BootOptions, run: (vm: Vm) => Promise<T>): Promise<T> {
  return withVm(await boot(machine), run);
}

/** Does something with a machine, shows its console where that fails, and cuts the power. */
export async function withVm<T>(vm: Vm, run: (vm: Vm) => Promise<T>): Promise<T> {
  try {
    return await run(vm);
  } catch (error) {
    console.log(vm.console.text.slice(-8000));
    throw error;
  } finally {
    await vm.close();
  }
}

/** Hibernates, and waits until QEMU has ended. @returns which machine it is */
export async function hibernateAway(vm: Vm, options: string, name?: KernelName): Promise<string> {
  await hibernate(vm, options, SAVED, name);
  await within(NEXT_KERNEL_MS, 'the machine is off', vm.exited);
  return vm.agent.greeting!.agent;
}

/** Boots the machine once more and lets it go on. @param how command that resumes @param then what to look at then */
export async function goOn(
  machine: BootOptions,
  self: string,
  how: (vm: Vm) => Promise<string>,
  then?: (vm: Vm) => Promise<void>,
): Promise<void> {
  await inMachine(machine, async (vm) => {
    const began = vm.agent.greeting;
    void vm.run(await how(vm), SLOW).catch(() => {});
    await vm.waitFor(GOES_ON, NEXT_KERNEL_MS);
    assert.equal((await vm.nextKernel(began, NEXT_KERNEL_MS)).agent, self, 'the machine that was saved goes on');
    assert.equal((await ended(vm)).outcome, 'resumed');
    await checkWork(vm);
    await then?.(vm);
  });
}

/** Software emulation compresses slowly. */
export const QUICK = '--compress none';
