/**
 * Powering off and going on, beside the kernel's own hibernation (swsusp) of the same memory, in a guest; and the rates of saving
 * and restoring beside that of the disk.
 *
 * Emulated, a processor is many times slower than that of the machine, and a disk is not: there it would be the processor that is
 * measured. So the disk is limited. A note says what the emulated processors do by themselves, with the disk as it is; what real
 * ones do is measured by bench/hibernateimage.ts.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { accelerator } from '../lab/accelerator.ts';
import { boot } from '../lab/boot.ts';
import { cacheDirectory } from '../lab/cache.ts';
import { within } from '../lab/deadline.ts';
import { emptyDisk, type OwnDisk } from '../lab/disk.ts';
import type { Vm } from '../lab/vm.ts';
import { systemImage } from '../src/kexec/system.ts';
import { KERNELS, kernelsDisk, nextKernel } from '../test/lab/next-kernels.ts';
import type { BenchResult, Comparison } from './bench.ts';

export const name = 'hibernate';
export const summary = 'power off and go on against the hibernation of the kernel, in a guest';

/** MB. What the helper's region takes away is given to the other machine less. */
const MEMORY = 2048;
const REGION = 256;
/** Bytes per second of an emulated machine's disk. */
const DISK_RATE = 40e6;
const MB = 1e6;
const LIMIT_MS = 600_000;
const isEmulated = accelerator().name !== 'kvm';
const SLOW = { timeout: LIMIT_MS };
const HELPER_APPEND = 'console=ttyS0 panic=10 mitigations=off random.trust_cpu=on no_timer_check';

/** Times in s, sizes in MB. */
interface Measured {
  readonly image: number;
  /** From the command to when the machine is off. */
  readonly off: number;
  /** From the resuming command to when the machine goes on. */
  readonly on: number;
  /** Writing and reading of the image alone, as the one who does it says. */
  readonly save: number;
  readonly restore: number;
}

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  if (small) return { comparisons: [], notes: ['guests of minutes: only without --small'] };
  const bundle = new URL('../dist', import.meta.url).pathname;
  const system = readFileSync(systemImage({ cache: join(cacheDirectory(), 'systems'), bundle }));
  const kernels = await kernelsDisk(['jump'], { system });
  try {
    const ours = await measureOurs(kernels);
    const theirs = await measureKernels(kernels);
    return report(ours, theirs);
  } finally {
    kernels.remove();
  }
}

type Ours = Awaited<ReturnType<typeof measureOurs>>;
type Theirs = Awaited<ReturnType<typeof measureKernels>>;

function report({ by, large, disk, slower, unlimited }: Ours, theirs: Theirs): BenchResult {
  const row = (
    what: string,
    unit: string,
    ours: number,
    reference: string,
    other: number,
    goal?: number,
  ): Comparison => {
    const shown = { what, reference, unit, ours, theirs: other, ratio: ours / other };
    return goal === undefined ? shown : { ...shown, goal };
  };
  const comparisons: Comparison[] = [];
  for (const [how, each] of Object.entries(by)) {
    comparisons.push(
      row(`${how}: command to power off`, 's', each.off, 'swsusp', theirs.off),
      row(`${how}: resume to going on`, 's', each.on, 'swsusp', theirs.on),
      row(`${how}: image`, 'MB', each.image, 'swsusp', theirs.image),
      row(`${how}: time of saving, by its bytes`, 's', each.save, 'plain writing', each.image / disk.write),
      row(`${how}: time of restoring, by its bytes`, 's', each.restore, 'plain reading', each.image / disk.read),
    );
  }
  const rate = (each: Measured) =>
    `${(each.image / each.save).toFixed(0)}, ${(each.image / each.restore).toFixed(0)} MB/s`;
  const { plain, ours } = unlimited;
  // Without what comes before the first page: the start of Node and its threads takes emulated processors ten seconds.
  const none = by.none!;
  const more = large.image - none.image;
  comparisons.push(
    row('what more there is: saving', 's', large.save - none.save, 'plain writing', more / disk.write, 1 / 0.9),
    row('what more there is: restoring', 's', large.restore - none.restore, 'plain reading', more / disk.read, 1 / 0.9),
  );
  return {
    comparisons,
    notes: [
      ...(isEmulated
        ? [
            `with no limit the disk writes ${plain.write.toFixed(0)} and reads ${plain.read.toFixed(0)} MB/s; ours, none: ` +
              `${rate(ours)}, which is what the emulated processors can do`,
          ]
        : []),
      `the disk writes ${disk.write.toFixed(0)} and reads ${disk.read.toFixed(0)} MB/s; ours, none: ${rate(none)}; ` +
        `swsusp: ${rate(theirs)}`,
      `an image of ${large.image.toFixed(0)} MB, of ${MEMORY - REGION} MB of memory: saved at ${(large.image / large.save).toFixed(0)}, ` +
        `restored at ${(large.image / large.restore).toFixed(0)} MB/s; swsusp of as much: ${theirs.refusal}`,
      `processor: ${accelerator().name}, ${slower.toFixed(0)} times slower than this machine's at a loop of JavaScript`,
    ],
  };
}

/** One machine that is saved, and goes on, in each way. */
async function measureOurs(kernels: OwnDisk) {
  const image = emptyDisk(2 ** 32);
  const machine = {
    kernel: 'jump',
    memory: MEMORY,
    cpus: 2,
    disks: [image, kernels],
    programs: ['dd'],
    append: `crashkernel=${REGION}M`,
  } as const;
  let vm = await boot(machine);
  try {
    await fill(vm);
    const slower = (await loopTime(vm)) / hostLoopTime();
    let rate = 0;
    const cycle = async (compression: string): Promise<Measured> => {
      const { vmlinuz } = await nextKernel(vm, 'jump');
      const helper = `--kernel ${vmlinuz} --system ${KERNELS}/system --append '${HELPER_APPEND}'`;
      const [bytes, save, off] = await switchOff(
        vm,
        `tideover hibernate --to /dev/vda --compress ${compression} ${helper}`,
        /tideover: saved .* as (\d+) MB in ([\d.]+) s/,
      );
      await vm.close();
      vm = await boot(machine);
      await limit(vm, rate);
      await nextKernel(vm, 'jump');
      const [, restore, on] = await goOn(
        vm,
        `tideover resume --from /dev/vda ${helper}`,
        /tideover: (restored) .* in ([\d.]+) s/,
      );
      return { image: (bytes * 2 ** 20) / MB, off, on, save, restore };
    };
    const unlimited = { plain: await diskRates(vm), ours: await cycle('none') };
    rate = DISK_RATE;
    await limit(vm, rate);
    const disk = await diskRates(vm);
    const by: Record<string, Measured> = {};
    for (const how of ['none', 'lzo', 'zstd']) by[how] = await cycle(how);
    await fillMore(vm);
    const large = await cycle('none');
    return { by, large, disk, slower, unlimited };
  } finally {
    await vm.close();
    image.remove();
  }
}

async function measureKernels(kernels: OwnDisk): Promise<Measured & { refusal: string }> {
  const swap = emptyDisk(2 ** 32);
  const machine = {
    kernel: 'jump',
    memory: MEMORY - REGION,
    cpus: 2,
    disks: [swap, kernels],
    programs: ['dd', 'mkswap', 'swapon'],
  } as const;
  // The largest image, so that it keeps the page cache as ours does.
  const prepare = 'swapon /dev/vda; echo shutdown >/sys/power/disk; echo 9000000000 >/sys/power/image_size';
  let vm = await boot(machine);
  try {
    await fill(vm);
    await vm.check(`mkswap /dev/vda; ${prepare}`);
    await limit(vm, DISK_RATE);
    const [, save, off] = await switchOff(vm, 'echo disk >/sys/power/state', /Wrote (\d+) kbytes in ([\d.]+) seconds/);
    await vm.close();
    // In blocks of 512 bytes, as stat(2) counts.
    const image = (statSync(swap.path).blocks * 512) / MB;
    vm = await boot(machine);
    await limit(vm, DISK_RATE);
    const [, restore, on] = await goOn(
      vm,
      'cat /sys/class/block/vda/dev >/sys/power/resume',
      /Read (\d+) kbytes in ([\d.]+) seconds/,
    );
    await fillMore(vm);
    const again = vm.run('echo disk >/sys/power/state', SLOW).then(({ stderr }) => stderr.toString().trim());
    again.catch(() => {});
    const refusal = await Promise.race([again, vm.exited.then(() => 'saved')]);
    return { image, off, on, save, restore, refusal };
  } finally {
    await vm.close();
    swap.remove();
  }
}

/** Memory that compresses to nothing, and some that does; as much of it as a kernel can copy beside itself. */
async function fill(vm: Vm): Promise<void> {
  await vm.check('mount -o remount,size=90% /tmp');
  await vm.check('dd if=/dev/urandom of=/tmp/random bs=1M count=300; cp /usr/bin/node /tmp/node', SLOW);
  await vm.check('md5sum /tmp/random /tmp/node >/tmp/md5', SLOW);
}

/** So that it is more than half of all: memory that is not swapped out, such as databases lock. */
async function fillMore(vm: Vm): Promise<void> {
  await vm.check('mkdir /mnt/locked; mount -t ramfs ramfs /mnt/locked');
  await vm.check('for i in 1 2; do cp /tmp/random /mnt/locked/$i; done', SLOW);
  await vm.check('dd if=/tmp/random of=/mnt/locked/3 bs=1M count=150', SLOW);
}

async function limit(vm: Vm, bps: number): Promise<void> {
  if (isEmulated) await vm.limitDisk('disk0', bps);
}

/** In MB/s, past the page cache. */
async function diskRates(vm: Vm): Promise<{ write: number; read: number }> {
  const rate = async (command: string) => {
    // The shell has one of its own, which does not say how long it took.
    const said = await vm.check(`LC_ALL=C /usr/bin/dd ${command} bs=4M 2>&1`, SLOW);
    const [, bytes, seconds] = /^(\d+) bytes .* ([\d.e-]+) s, /m.exec(said)!;
    return Number(bytes) / MB / Number(seconds);
  };
  return {
    write: await rate('if=/tmp/random of=/dev/vda oflag=direct conv=fsync'),
    read: await rate('if=/dev/vda of=/dev/null iflag=direct count=75'),
  };
}

/** Ends when the machine is off. @returns the two numbers of what it said on its console, and seconds */
async function switchOff(vm: Vm, command: string, said: RegExp): Promise<[number, number, number]> {
  const since = vm.console.text.length;
  const begun = performance.now();
  // Not waited for: the machine may stand still before it has answered.
  void vm.run(`(setsid sh -c "${command}" &) </dev/null >/dev/null 2>&1`).catch(() => {});
  const [, first, second] = await vm.waitFor(said, LIMIT_MS, since);
  await within(LIMIT_MS, 'the machine is off', vm.exited);
  return [Number(first), Number(second), (performance.now() - begun) / 1000];
}

/** Ends when the machine that was saved goes on, and has what it had. */
async function goOn(vm: Vm, command: string, said: RegExp): Promise<[number, number, number]> {
  const before = vm.agent.greeting;
  const begun = performance.now();
  void vm.run(command, SLOW).catch(() => {});
  const [, first, second] = await vm.waitFor(said, LIMIT_MS);
  await vm.waitFor(/Restarting tasks: Done/, LIMIT_MS);
  const seconds = (performance.now() - begun) / 1000;
  await vm.nextKernel(before, LIMIT_MS);
  await vm.check('md5sum -c /tmp/md5', SLOW);
  return [Number(first), Number(second), seconds];
}

/** Prints how many ms a loop takes. */
const LOOP = `const t = performance.now(); let x = 1;
for (let i = 0; i < 5e7; i++) x = (Math.imul(x, 1103515245) + i) | 0;
console.log(performance.now() - t, x);`;

async function loopTime(vm: Vm): Promise<number> {
  return Number.parseFloat(await vm.check(['node', '-e', LOOP], SLOW));
}

function hostLoopTime(): number {
  return Number.parseFloat(execFileSync(process.execPath, ['-e', LOOP], { encoding: 'utf8' }));
}
