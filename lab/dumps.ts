/**
 * Dumps of crashed and of running kernels, made once for each kernel and machine and kept in the cache:
 *
 *   <cache>/dumps/RELEASE-.../vmcore      /proc/vmcore as a capture kernel showed it after a panic
 *                             qemu.elf    QEMU's dump-guest-memory of the running kernel, a moment before the panic
 *                             qemu.kdump  the same in QEMU's kdump-zlib format, which is flattened
 *                             truth/      what the kernel said of itself then (lab/guest/truth), for all three
 */
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type CpioEntry, cpio } from '../src/kexec/cpio.ts';
import { boot } from './boot.ts';
import { cacheDirectory, exclusively, requireRoom } from './cache.ts';
import { run, say } from './command.ts';
import { emptyDisk, type OwnDisk } from './disk.ts';
import { type Kernel, type KernelName, kernel as kernelNamed } from './kernels.ts';
import { modulesArchive } from './modules-archive.ts';
import { requirePackages } from './packages.ts';
import type { Vm } from './vm.ts';

export interface DumpOptions {
  readonly kernel: KernelName;
  readonly cpus?: number;
  /** Levels of the page tables. */
  readonly levels?: 4 | 5;
}

/** Paths. Nothing there may be changed. */
export interface Dumps {
  readonly vmcore: string;
  readonly elf: string;
  readonly kdump: string;
  readonly truth: string;
}

/** MB: of the guest, and of that for its capture kernel. */
export const MEMORY = 512;
export const CRASH_MEMORY = 192;
const DUMP_MS = 300_000;
const scripts = ['capture', 'workload', 'truth'] as const;

export async function dumps({ kernel: name, cpus = 1, levels = 4 }: DumpOptions): Promise<Dumps> {
  const kernel = await kernelNamed(name);
  const hash = createHash('sha256').update(JSON.stringify([1, kernel.version, MEMORY, CRASH_MEMORY]));
  for (const script of scripts) hash.update(readFileSync(guestFile(script)));
  const key = `${kernel.release}-${cpus}cpus-${levels}levels-${hash.digest('hex').slice(0, 12)}`;
  const folder = join(cacheDirectory(), 'dumps', key);
  if (!existsSync(folder)) {
    await exclusively(`dumps-${key}`, async (scratch) => {
      if (existsSync(folder)) return;
      requireRoom(2 * MEMORY * 2 ** 20, `dumps of kernel ${name}`);
      say(`making dumps of kernel ${kernel.release}, ${cpus} CPUs, ${levels} levels`);
      await make(kernel, cpus, levels, scratch);
      mkdirSync(dirname(folder), { recursive: true });
      mkdirSync(join(scratch, 'done'));
      for (const file of ['vmcore', 'qemu.elf', 'qemu.kdump', 'truth']) {
        renameSync(join(scratch, file), join(scratch, 'done', file));
      }
      renameSync(join(scratch, 'done'), folder);
    });
  }
  return {
    vmcore: join(folder, 'vmcore'),
    elf: join(folder, 'qemu.elf'),
    kdump: join(folder, 'qemu.kdump'),
    truth: join(folder, 'truth'),
  };
}

async function make(kernel: Kernel, cpus: number, levels: 4 | 5, folder: string): Promise<void> {
  await requirePackages('guest root');
  const disk = captureDisk();
  const vm = await boot({
    kernel,
    cpus,
    memory: MEMORY,
    disks: [disk],
    modules: ['qemu_fw_cfg'],
    // By this device the kernel tells QEMU of its VMCOREINFO (drivers/firmware/qemu_fw_cfg.c).
    extraArguments: ['-device', 'vmcoreinfo'],
    append: `crashkernel=${CRASH_MEMORY}M${levels === 4 ? ' no5lvl' : ''}`,
  });
  try {
    await loadCapture(vm, kernel, folder);
    for (const script of ['workload', 'truth']) await vm.copyIn(guestFile(script), `/tmp/${script}`);
    await vm.check('sh /tmp/workload', { timeout: DUMP_MS });
    await vm.check('sh /tmp/truth /tmp/truths', { timeout: DUMP_MS });
    await vm.copyOut('/tmp/truths', join(folder, 'truth'));
    await vm.qmp('stop');
    await dumpByQemu(vm, 'elf', join(folder, 'qemu.elf'));
    await dumpByQemu(vm, 'kdump-zlib', join(folder, 'qemu.kdump'));
    await vm.qmp('cont');
    void vm.run('echo c >/proc/sysrq-trigger').catch(() => {});
    await disk.saveTo(vm, join(folder, 'vmcore'));
  } finally {
    await vm.close();
    disk.remove();
  }
}

/** The disk that a capture kernel writes to, which is the machine's first. */
export interface CaptureDisk extends OwnDisk {
  /** Waits until the machine, which is crashing, has ended. */
  saveTo(vm: Vm, path: string): Promise<void>;
}

export function captureDisk(): CaptureDisk {
  const disk = emptyDisk(MEMORY * 2 ** 20);
  return {
    ...disk,
    async saveTo(vm, path) {
      const [, size] = await vm.waitFor(/lab: vmcore has (\d+) bytes/, DUMP_MS);
      await vm.off();
      truncateSync(disk.path, Number(size));
      await run(['cp', '--sparse=always', disk.path, path]);
      chmodSync(path, 0o600);
    },
  };
}

/** Loads the capture kernel of a guest. @param folder for what is made on the way */
export async function loadCapture(vm: Vm, kernel: Kernel, folder: string): Promise<void> {
  writeFileSync(join(folder, 'capture'), await captureRoot(kernel));
  await vm.copyIn(kernel.vmlinuz, '/tmp/vmlinuz');
  await vm.copyIn(join(folder, 'capture'), '/tmp/capture');
  const append = 'console=ttyS0 panic=-1 nr_cpus=1 irqpoll reset_devices mitigations=off no_timer_check';
  await vm.check(`tideover kexec -p /tmp/vmlinuz --initrd /tmp/capture --append '${append}'`, { timeout: DUMP_MS });
  await vm.check('rm /tmp/vmlinuz /tmp/capture');
}

/** busybox, the disk's modules and one script: small, because it lives in the memory that is set aside for it. */
async function captureRoot(kernel: Kernel): Promise<Uint8Array> {
  const folder = (name: string): CpioEntry => ({ name, mode: 0o40755 });
  const file = (name: string, path: string): CpioEntry => ({ name, mode: 0o755, data: readFileSync(path) });
  const common = cpio([
    ...['dev', 'lab'].map(folder),
    { name: 'dev/console', mode: 0o20600, device: [5, 1] },
    file('init', guestFile('capture')),
    file('lab/busybox', '/bin/busybox'),
  ]);
  return Buffer.concat([common, await modulesArchive(kernel, [])]);
}

export async function dumpByQemu(vm: Vm, format: 'elf' | 'kdump-zlib', path: string): Promise<void> {
  await vm.qmp('dump-guest-memory', { paging: false, protocol: `file:${path}`, format });
  chmodSync(path, 0o600);
}

export function guestFile(name: string): string {
  return join(import.meta.dirname, 'guest', name);
}
