/**
 * What a capture kernel saves in how much memory, and how long it takes: the table of docs/crash.md.
 *
 *     node lab/crashmemory.ts [KERNEL:MB[:WORDS]...]      WORDS are added to `tideover crash arm`
 *
 * For each it boots a guest with 1 GB that has crashkernel=MBM, arms it with ext4 as the target, crashes it, and looks at what is on
 * the disk. Times are from the panic, of an emulated machine: for comparing lines with each other.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { boot } from './boot.ts';
import { captureModules, crashDisk, dumpsOn, mountCrashDisk } from './capture.ts';
import { say } from './command.ts';
import { type KernelName, kernel as kernelNamed } from './kernels.ts';
import { removeTemporary, temporaryFolder } from './temporary.ts';

const CASES = ['6.12:256', '6.12:192', '6.12:160', '6.1:192', '6.18:192', '7.2:192'];
const ARM_MS = 600_000;

interface Row {
  readonly kernel: string;
  readonly megabytes: string;
  /** MiB of memory when the saver begins, and the least of all times. */
  readonly free: string;
  readonly least: string;
  readonly saved: string;
  /** From the panic to the last message of the saver. */
  readonly seconds: string;
}

async function measure(text: string): Promise<Row> {
  const [name, megabytes, words = ''] = text.split(':') as [KernelName, string, string?];
  const folder = temporaryFolder();
  const disk = await crashDisk();
  const kernel = await kernelNamed(name);
  const append = `crashkernel=${megabytes}M`;
  const vm = await boot({ kernel, memory: 1024, disks: [disk], spareModules: captureModules, append });
  try {
    await vm.copyIn(kernel.vmlinuz, '/tmp/vmlinuz');
    await vm.check(mountCrashDisk);
    const how = `--kernel /tmp/vmlinuz --then poweroff --target /mnt/data/crash ${words}`;
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
    const [dump] = await dumpsOn(disk, join(folder, 'dump')).catch(() => []);
    return {
      kernel: name,
      megabytes,
      free: number(/(\d+) MiB of memory are free/),
      least: number(/(\d+) MiB of it were free at any time/),
      saved:
        dump?.files.map((file) => (isUnknown(dump.path, file) ? `${file} (not known)` : file)).join(', ') ?? 'nothing',
      seconds,
    };
  } finally {
    await vm.close();
    disk.remove();
    removeTemporary(folder);
  }
}

/** A reason for which there was too little memory. */
function isUnknown(folder: string, file: string): boolean {
  return file === 'why.txt' && /^not known here/m.test(readFileSync(join(folder, file), 'utf8'));
}

const rows: Row[] = [];
const wanted = process.argv.slice(2);
for (const text of wanted.length === 0 ? CASES : wanted) rows.push(await measure(text));
console.log('| kernel | `crashkernel=` | free when it begins, MiB | at the least | saved | after, s |');
console.log('|---|---|---|---|---|---|');
for (const { kernel, megabytes, free, least, saved, seconds } of rows) {
  console.log(`| ${kernel} | ${megabytes}M | ${free} | ${least} | ${saved} | ${seconds} |`);
}
