/**
 * Filtering of a dump of 4 GB in tideover, with two threads, and in makedumpfile, which is quicker with one thread than with two. The
 * dump is QEMU's, of a guest whose memory is full of programs.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { boot } from '../lab/boot.ts';
import { cacheDirectory, requireRoom } from '../lab/cache.ts';
import { dumpByQemu, dumps } from '../lab/dumps.ts';
import { fetchMakedumpfile } from '../lab/makedumpfile.ts';
import { openDumpFiles } from '../src/crash/open.ts';
import { type BenchResult, inTurns, median } from './bench.ts';

export const name = 'crashfilter';
export const summary = 'filter a dump beside makedumpfile';

/** Of the guest, in MiB. */
const MEMORY = 4096;
const MIB = 2 ** 20;

const tideover = new URL('../bin/tideover', import.meta.url).pathname;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const reference = await fetchMakedumpfile();
  const folder = mkdtempSync(join('/dev/shm', 'tideover-bench-'));
  requireRoom(2 * MEMORY * MIB, 'a large dump');
  const disk = mkdtempSync(join(cacheDirectory(), 'bench-'));
  const out = join(folder, 'out');
  try {
    const vmcore = small ? (await dumps({ kernel: '6.12', cpus: 1, levels: 4 })).vmcore : await largeDump(disk);
    const start = (program: readonly string[], ...args: string[]) => {
      rmSync(out, { force: true });
      execFileSync(program[0]!, [...program.slice(1), ...args, vmcore, out], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
    };
    const ours = [tideover, 'crash', 'filter', '--num-threads', '2'];
    const rounds = small ? 1 : 5;
    const times = await inTurns(
      {
        theirs: () => start(reference.command, '-l', '-d', '0'),
        ours: () => start(ours, '-l', '-d', '0'),
        theirs31: () => start(reference.command, '-l', '-d', '31'),
        ours31: () => start(ours, '-l', '-d', '31'),
      },
      rounds,
    );
    const compare = (what: string, ours: readonly number[], theirs: readonly number[], goal?: number) => {
      const [mine, other] = [median(ours), median(theirs)];
      const by = `makedumpfile ${reference.version}`;
      const seconds = { ours: mine / 1000, theirs: other / 1000, ratio: mine / other };
      return { what, reference: by, unit: 's', ...seconds, ...(goal !== undefined && { goal }) };
    };
    const source = openDumpFiles([vmcore]);
    const bytes = source.ranges.reduce((sum, { start, end }) => sum + end - start, 0);
    source.close();
    return {
      comparisons: [
        compare('-l -d 0, two threads', times.ours, times.theirs, 2.5),
        compare('-l -d 31, two threads', times.ours31, times.theirs31),
      ],
      notes: [`A dump of ${(bytes / MIB).toFixed(0)} MiB, to tmpfs; ours with Node's start.`],
    };
  } finally {
    rmSync(folder, { recursive: true });
    rmSync(disk, { recursive: true });
  }
}

/** Three quarters of the memory are copies of Node. */
async function largeDump(folder: string): Promise<string> {
  const vm = await boot({
    kernel: '6.12',
    memory: MEMORY,
    modules: ['qemu_fw_cfg'],
    // By this device the kernel tells QEMU of its VMCOREINFO (drivers/firmware/qemu_fw_cfg.c).
    extraArguments: ['-device', 'vmcoreinfo'],
  });
  try {
    await vm.check('mkdir /tmp/full && mount -t tmpfs -o size=100% full /tmp/full');
    const full = `[ $(du -sm /tmp/full | cut -f1) -gt ${Math.floor(0.75 * MEMORY)} ]`;
    await vm.check(`i=0; until ${full}; do i=$((i + 1)); cat $(command -v node) >/tmp/full/$i; done`, {
      timeout: 600_000,
    });
    const [path, dump] = ['vmcore', 'qemu.elf'].map((name) => join(folder, name)) as [string, string];
    await vm.qmp('stop');
    await dumpByQemu(vm, 'elf', dump);
    // QEMU's own ELF files have segments that makedumpfile does not take ("Can't get the number of PT_LOAD").
    execFileSync(tideover, ['crash', 'filter', '-E', dump, path], { stdio: ['ignore', 'ignore', 'pipe'] });
    rmSync(dump);
    return path;
  } finally {
    await vm.close();
  }
}
