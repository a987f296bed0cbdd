/**
 * How long a program stands still while the kernel is changed under it: what of it is the kernel's start, and what is ours. Beside what
 * a person does by hand in the same guest: CRIU, its images on a disk, kexec-tools, CRIU. The load of the kernel is done before
 * in both.
 *
 * Of the outage the program tells itself, by the clock of the guest; that is set anew by the next kernel, to a second, so each
 * kernel's clock is compared with this machine's.
 *
 * In an emulated guest that shows what is done for nothing, and no times that anybody will see: our share at the speed of this
 * machine is measured without one (updateshare.ts), beside its goal.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type BootOptions, boot } from '../lab/boot.ts';
import { run as runCommand } from '../lab/command.ts';
import { type OwnDisk, overlayDisk } from '../lab/disk.ts';
import { copyProgram, fetchPrograms } from '../lab/fetched.ts';
import { kernel } from '../lab/kernels.ts';
import { requirePackages } from '../lab/packages.ts';
import { guestRoot } from '../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../lab/temporary.ts';
import type { Vm } from '../lab/vm.ts';
import { cpio } from '../src/kexec/cpio.ts';
import { type BenchResult, type Comparison, median } from './bench.ts';
import { ownShare, type Share } from './updateshare.ts';

export const name = 'update';
export const summary = 'a program over a change of the kernel, against CRIU and kexec-tools by hand';

/** Sizes of the program in MiB, of the guest, and how often each is measured. */
const SIZES = [
  { megabytes: 256, memory: 1536, rounds: 2 },
  { megabytes: 1024, memory: 3400, rounds: 1 },
] as const;
type Size = (typeof SIZES)[number];
/** Of the program, in MiB, where nothing is emulated: of each line the first for which this machine has huge pages. */
const REAL_SIZES = [[256], [4096, 2048, 1024]] as const;
const REAL_ROUNDS = 3;
const NAME = '6.12';
const PATIENCE = { timeout: 300_000 };
const root = {
  modules: ['ext4', 'nf_tables', 'inet_diag', 'tcp_diag', 'udp_diag', 'unix_diag'],
  spareModules: ['device_dax', 'dax_hmem', 'kmem'],
} satisfies Partial<BootOptions>;

const MOUNT = 'mkdir -p /var && mount -t ext4 /dev/vda /var';
const program = (name: string) => `/var/${name}/ld-linux-x86-64.so.2 --library-path /var/${name} /var/${name}/${name}`;
/** Of the next kernel: what each tool has left is made to go on. */
const EARLY = `${MOUNT}
echo bench: up >/dev/console
# CRIU looks at what connections can do, over the loopback.
ifconfig lo up
if [ -e /var/images/inventory.img ]; then ${program('criu')} restore -D /var/images -o /var/restore.log -d
else tideover update resume --hold --stay; fi >/var/resumed 2>&1
`;

const LOAD = '--initrd=/var/initrd --reuse-cmdline';
/** From the program's process id to the jump. */
const tools = {
  tideover: (pid: number) =>
    `tideover update --kernel /var/vmlinuz --initrd /var/initrd --keep-pid ${pid} --spill none`,
  'with a copy on the disk': (pid: number) =>
    `tideover update --kernel /var/vmlinuz --initrd /var/initrd --keep-pid ${pid}`,
  'CRIU and kexec-tools': (pid: number) =>
    `${program('kexec')} -c -l /var/vmlinuz ${LOAD} && mkdir /var/images && ` +
    `${program('criu')} dump -t ${pid} -D /var/images -o /var/dump.log && sync && ${program('kexec')} -e`,
};
type Tool = keyof typeof tools;

/** Times in ms. */
interface Outage {
  readonly whole: number;
  /** From the old kernel's last line to the next one's first program. */
  readonly kernel: number;
  /** What tideover says of itself; empty for others. */
  readonly said: string;
}

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  if (small) return { comparisons: [], notes: ['left out: it boots a kernel of a virtual machine for minutes'] };
  const real = REAL_SIZES.map(ownShareOf);
  await requirePackages('qemu', 'guest root', 'squashfs', 'kernels', 'disk images', 'programs under test');
  const folder = temporaryFolder();
  const base = await machineDisk(folder);
  const comparisons: Comparison[] = [];
  let said = '';
  try {
    for (const size of SIZES) {
      const outages: Record<Tool, Outage[]> = {
        tideover: [],
        'with a copy on the disk': [],
        'CRIU and kexec-tools': [],
      };
      for (let round = 0; round < size.rounds; round++) {
        for (const tool of Object.keys(tools) as Tool[]) outages[tool].push(await outage(base, tools[tool], size));
      }
      comparisons.push(...comparisonsOf(size, outages));
      said = outages.tideover.at(-1)!.said;
    }
  } finally {
    removeTemporary(folder);
  }
  return {
    comparisons: [...real.flatMap(({ comparison }) => comparison ?? []), ...comparisons],
    notes: [...real.map(({ note }) => note), "the last one's own account:", ...said.trim().split('\n')],
  };
}

/** Against the goal: 300 ms, and a second for 10 GB. */
function ownShareOf(sizes: readonly number[]): { comparison?: Comparison; note: string } {
  const [megabytes, ...smaller] = sizes as [number, ...number[]];
  let shares: Share[];
  try {
    shares = Array.from({ length: REAL_ROUNDS }, () => ownShare(megabytes));
  } catch (error) {
    if (smaller.length > 0) return ownShareOf(smaller);
    return { note: `our share of ${megabytes} MiB, nothing emulated: ${(error as Error).message.trim()}` };
  }
  const of = (value: (share: Share) => number) => Math.round(median(shares.map(value)));
  const ours = of(({ writing, holding, restoring }) => writing + holding + restoring);
  const theirs = 300 + (megabytes * 2 ** 20) / 1e7;
  const what = `our share of ${megabytes} MiB, nothing emulated`;
  const parts = `written ${of((share) => share.writing)}, held ${of((share) => share.holding)}, restored ${of((share) => share.restoring)}`;
  return {
    comparison: {
      what,
      reference: '300 ms and 1 s for 10 GB',
      unit: 'ms',
      ours,
      theirs,
      ratio: ours / theirs,
      goal: 1,
    },
    note: `${what}, in ms: ${parts}`,
  };
}

function comparisonsOf({ megabytes }: Size, outages: Readonly<Record<Tool, Outage[]>>): Comparison[] {
  const of = (tool: Tool, value: (outage: Outage) => number) => median(outages[tool].map(value));
  const compare = (what: string, tool: Tool, value: (outage: Outage) => number, goal?: number): Comparison => {
    const [ours, theirs] = [of(tool, value), of('CRIU and kexec-tools', value)];
    const shown = { what, reference: 'CRIU and kexec-tools', unit: 'ms', ours, theirs, ratio: ours / theirs };
    return goal === undefined ? shown : { ...shown, goal };
  };
  const share = ({ whole, kernel }: Outage) => whole - kernel;
  return [
    compare(`${megabytes} MiB stand still, emulated`, 'tideover', ({ whole }) => whole, 1),
    compare("the kernel's start", 'tideover', ({ kernel }) => kernel),
    compare('the rest: writing and restoring', 'tideover', share, 1),
    compare('the rest, with a copy on the disk too', 'with a copy on the disk', share, 1),
  ];
}

/** With the program, the tools, the next kernel and its initramfs on it. */
async function machineDisk(folder: string): Promise<OwnDisk> {
  const next = await kernel(NAME);
  const [stage, path] = [join(folder, 'stage'), join(folder, 'disk')];
  mkdirSync(stage);
  copyFileSync(next.vmlinuz, join(stage, 'vmlinuz'));
  const early = cpio([{ name: 'lab/early', mode: 0o644, data: EARLY }]);
  writeFileSync(join(stage, 'initrd'), Buffer.concat([await guestRoot(next, root), early]));
  execFileSync('gcc', ['-O1', '-static', '-o', join(stage, 'beat'), join(import.meta.dirname, 'programs/beat.c')]);
  copyProgram(await fetchPrograms('criu'), 'usr/sbin/criu', join(stage, 'criu'));
  copyProgram(await fetchPrograms('kexec-tools'), 'usr/sbin/kexec', join(stage, 'kexec'));
  await runCommand(['truncate', '-s', '4G', path]);
  await runCommand(['mkfs.ext4', '-q', '-F', '-d', stage, path]);
  return { path, format: 'raw', remove: () => removeTemporary(folder) };
}

async function outage(base: OwnDisk, tool: (pid: number) => string, { megabytes, memory }: Size): Promise<Outage> {
  const disk = await overlayDisk(base);
  const append = 'earlycon=uart8250,io,0x3f8,115200';
  const vm = await boot({ kernel: NAME, memory, cpus: 2, disks: [disk], append, ...root });
  try {
    await vm.check(`${MOUNT}; unshare -p -f /var/beat ${megabytes} /var/beats </dev/null >/dev/null 2>&1 &`);
    await vm.check('until [ -s /var/beats ]; do sleep 0.1; done', PATIENCE);
    // The clock of each kernel by this machine's.
    const before = await clock(vm);
    const pid = Number(await vm.check('pidof beat'));
    const last = Number(await vm.check('wc -l </var/beats'));
    const greeting = vm.agent.greeting;
    const since = vm.console.text.length;
    const failed = vm.run(tool(pid), PATIENCE).then(
      ({ status, stdout, stderr }) => Promise.reject(new Error(`status ${status}: ${stdout}${stderr}`)),
      () => new Promise<never>(() => {}),
    );
    const marks = async () => {
      await vm.waitFor(/Starting new kernel/, PATIENCE.timeout, since);
      const left = performance.now();
      await vm.waitFor(/bench: up/, PATIENCE.timeout, since);
      return { left, arrived: performance.now() };
    };
    const { left, arrived } = await Promise.race([marks(), failed]);
    await vm.nextKernel(greeting, PATIENCE.timeout);
    const beats = (await vm.check(`tail -n +${last} /var/beats`, PATIENCE)).trim().split('\n').map(Number);
    const after = await clock(vm);
    const gaps = beats.slice(1).map((beat, i) => beat - beats[i]!);
    const at = gaps.indexOf(Math.max(...gaps));
    if (gaps.length === 0 || gaps[at]! < 1000)
      throw new Error(`it did not go on: ${await vm.check('cat /var/resumed')}`);
    const said = await vm.check('[ -e /var/images ] || tideover update status', PATIENCE);
    return { whole: beats[at + 1]! + after - (beats[at]! + before), kernel: arrived - left, said };
  } finally {
    await vm.close();
    disk.remove();
  }
}

/** @returns what is to be added to the clock of the guest for this machine's, in ms, by the program's last beat */
async function clock(vm: Vm): Promise<number> {
  const last = Number(await vm.check('tail -n 1 /var/beats'));
  return performance.now() - last;
}
