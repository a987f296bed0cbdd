/**
 * How long loading a kernel and going there takes, beside kexec-tools in the same guest. Each round begins at the same
 * snapshot: what a kernel has run, and where, changes how fast an emulator writes over it.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bootDebian, debianDisk } from '../lab/debian.ts';
import { kernel } from '../lab/kernels.ts';
import { guestRoot } from '../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../lab/temporary.ts';
import type { Vm } from '../lab/vm.ts';
import { type BenchResult, median } from './bench.ts';

export const name = 'kexec';
export const summary = 'from one kernel to the next against kexec-tools, in a guest';

const LOAD_MS = 120_000;
const NEXT_KERNEL_MS = 180_000;
/** Printed by kernel_kexec() at the end of the one kernel, and by the other through earlycon. */
const last = /Starting new kernel/;
const first = /Linux version/;

const commandLine = 'console=ttyS0 earlycon=uart8250,io,0x3f8,115200 mitigations=off lab.root=/dev/vda';
const files = `/root/vmlinuz --initrd=/root/initrd --command-line='${commandLine}'`;
const tools = {
  tideover: { load: `tideover kexec load ${files}`, start: 'tideover kexec exec --now' },
  'kexec-tools': { load: `kexec -c -l ${files}`, start: 'kexec -e' },
};

/** Times in ms. */
interface Change {
  readonly load: number;
  /** From the old kernel's last line to the new one's first: purgatory and decompression. */
  readonly between: number;
  /** From the command to the new kernel's first line. */
  readonly command: number;
}

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const disk = await debianDisk(['kexec-tools']);
  const vm = await bootDebian({ kernel: '6.12', memory: 1024, disk });
  const times: Record<keyof typeof tools, Change[]> = { tideover: [], 'kexec-tools': [] };
  try {
    await bring(vm);
    await monitor(vm, 'savevm ready');
    for (let round = 0; round < (small ? 1 : 5); round++) {
      for (const tool of Object.keys(tools) as (keyof typeof tools)[]) times[tool].push(await change(vm, tools[tool]));
    }
  } finally {
    await vm.close();
    disk.remove();
  }
  const compare = (what: string, of: keyof Change, goal?: number) => {
    const [ours, theirs] = [
      median(times.tideover.map((each) => each[of])),
      median(times['kexec-tools'].map((each) => each[of])),
    ];
    const shown = { what, reference: 'kexec-tools', unit: 'ms', ours, theirs, ratio: ours / theirs };
    return goal === undefined ? shown : { ...shown, goal };
  };
  return {
    comparisons: [
      compare("old kernel's last line to new kernel's first", 'between', 1.1),
      compare("command to new kernel's first line", 'command'),
      compare('load', 'load'),
    ],
  };
}

async function bring(vm: Vm): Promise<void> {
  const next = await kernel('6.12');
  const folder = temporaryFolder();
  try {
    writeFileSync(join(folder, 'initrd'), await guestRoot(next));
    await vm.copyIn(next.vmlinuz, '/root/vmlinuz');
    await vm.copyIn(join(folder, 'initrd'), '/root/initrd');
    await vm.check('sync');
  } finally {
    removeTemporary(folder);
  }
}

/** @throws Error with what QEMU says; it says nothing when all is well */
async function monitor(vm: Vm, line: string): Promise<void> {
  const said = await vm.qmp('human-monitor-command', { 'command-line': line });
  if (said !== '') throw new Error(`${line}: ${said}`);
}

async function change(vm: Vm, { load, start }: { load: string; start: string }): Promise<Change> {
  await monitor(vm, 'loadvm ready');
  const begun = performance.now();
  await vm.check(load, { timeout: LOAD_MS });
  const loaded = performance.now();
  const since = vm.console.text.length;
  void vm.run(start).catch(() => {});
  await vm.waitFor(last, NEXT_KERNEL_MS, since);
  const left = performance.now();
  await vm.waitFor(first, NEXT_KERNEL_MS, since);
  const arrived = performance.now();
  return { load: loaded - begun, between: arrived - left, command: arrived - loaded };
}
