/**
 * What a capture kernel saves in how much memory, and how long it takes: the table of docs/crash.md.
 *
 *     node lab/crashmemory.ts [KERNEL:MB[:TARGET[:WORDS]]...]      WORDS are added to `tideover crash arm`
 *
 * For each it boots a guest with 1 GB that has crashkernel=MBM, arms it with TARGET (ext4 where none is named), crashes it, and looks at
 * what has arrived. Times are from the panic, of an emulated machine: for comparing lines with each other.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { boot } from './boot.ts';
import { captureModules, crashDisk, mountCrashDisk } from './capture.ts';
import { type CaptureTargetName, captureTarget } from './capture-targets.ts';
import { say } from './command.ts';
import { type KernelName, kernel as kernelNamed } from './kernels.ts';
import { removeTemporary, temporaryFolder } from './temporary.ts';

const CASES = [
  ...['6.1', '6.12', '6.18', '7.2'].flatMap((kernel) => [`${kernel}:192`, `${kernel}:160`]),
  ...['nfs', 'ssh', 'http'].map((target) => `6.12:192:${target}`),
];
const ARM_MS = 600_000;

interface Row {
  readonly kernel: string;
  readonly target: string;
  readonly megabytes: string;
  /** MiB of memory when the saver begins, and the least of all times. */
  readonly free: string;
  readonly least: string;
  readonly saved: string;
  /** From the panic to the last message of the saver. */
  readonly seconds: string;
}

async function measure(text: string): Promise<Row> {
  const [name, megabytes, to = 'ext4', words = ''] = text.split(':') as [
    KernelName,
    string,
    CaptureTargetName?,
    string?,
  ];
  const folder = temporaryFolder();
  const target = await captureTarget(to, join(folder, 'saved'));
  const disk = await crashDisk(512, target.programs);
  const kernel = await kernelNamed(name);
  const vm = await boot({
    kernel,
    memory: 1024,
    disks: [disk],
    append: `crashkernel=${megabytes}M`,
    ...target.machine,
    modules: [],
    spareModules: [...captureModules, ...(target.machine.modules ?? [])],
  });
  try {
    await vm.copyIn(kernel.vmlinuz, '/tmp/vmlinuz');
    await vm.check(mountCrashDisk);
    await target.prepare(vm);
    const how = `--kernel /tmp/vmlinuz --then poweroff --target ${target.target} ${words}`;
    await vm.check(`tideover crash arm ${how}`, { timeout: ARM_MS });
    const since = vm.console.text.length;
    void vm.run('tideover crash test --yes').catch(() => {});
    await vm.waitFor(/Kernel panic/, ARM_MS, since);
    const panicked = performance.now();
    await vm.waitFor(/tideover: (poweroff|reboot)/, ARM_MS, since).catch(() => {});
    const seconds = ((performance.now() - panicked) / 1000).toFixed(0);
    await vm.off();
    const console = vm.console.text.slice(since);
    say(console.match(/^.*tideover: .*$/gm)?.join('\n') ?? console.slice(-2000));
    const number = (pattern: RegExp) => pattern.exec(console)?.[1] ?? '?';
    const dump = await target.saved(disk).catch(() => undefined);
    return {
      kernel: name,
      target: to,
      megabytes,
      free: number(/(\d+) MiB of memory are free/),
      least: number(/(\d+) MiB of it were free at any time/),
      saved:
        dump?.files.map((file) => (isUnknown(dump.path, file) ? `${file} (not known)` : file)).join(', ') ?? 'nothing',
      seconds,
    };
  } finally {
    await vm.close();
    target.close();
    disk.remove();
    removeTemporary(folder);
  }
}

/** A reason for which there was too little memory. */
function isUnknown(folder: string, file: string): boolean {
  return file === 'why.txt' && /^not known here/m.test(readFileSync(join(folder, file), 'utf8'));
}

const wanted = process.argv.slice(2);
console.log('| kernel | to | `crashkernel=` | free when it begins, MiB | at the least | saved | after, s |');
console.log('|---|---|---|---|---|---|---|');
for (const text of wanted.length === 0 ? CASES : wanted) {
  const { kernel, target, megabytes, free, least, saved, seconds } = await measure(text);
  console.log(`| ${kernel} | ${target} | ${megabytes}M | ${free} | ${least} | ${saved} | ${seconds} |`);
}
