/** Filtering of a dump in tideover, with two threads, and in makedumpfile, which is quicker with one thread than with two. */
import { execFileSync } from 'node:child_process';
import { closeSync, copyFileSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { dumps } from '../lab/dumps.ts';
import { fetchMakedumpfile } from '../lab/makedumpfile.ts';
import { Elf64_Ehdr, Elf64_Phdr, PT_LOAD } from '../src/abi/elf.ts';
import { openDumpFiles } from '../src/crash/open.ts';
import { type BenchResult, inTurns, median } from './bench.ts';

export const name = 'crashfilter';
export const summary = 'filter a dump beside makedumpfile';

const tideover = new URL('../bin/tideover', import.meta.url).pathname;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const { vmcore } = await dumps({ kernel: '6.12', cpus: 1, levels: 4 });
  const reference = await fetchMakedumpfile();
  const folder = mkdtempSync(join(process.env.TIDEOVER_BENCH_FOLDER ?? '/var/tmp', 'tideover-bench-'));
  const path = (file: string) => join(folder, file);
  try {
    const large = path('in');
    if (small) copyFileSync(vmcore, large);
    else enlarge(vmcore, large);
    const start = (program: readonly string[], input: string, ...args: string[]) => {
      rmSync(path('out'), { force: true });
      execFileSync(program[0]!, [...program.slice(1), ...args, input, path('out')], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
    };
    const ours = [tideover, 'crash', 'filter', '--num-threads', '2'];
    const rounds = small ? 1 : 5;
    const times = await inTurns(
      {
        theirs: () => start(reference.command, large, '-l', '-d', '0'),
        ours: () => start(ours, large, '-l', '-d', '0'),
        theirs31: () => start(reference.command, vmcore, '-l', '-d', '31'),
        ours31: () => start(ours, vmcore, '-l', '-d', '31'),
      },
      rounds,
    );
    const compare = (what: string, ours: readonly number[], theirs: readonly number[], goal?: number) => {
      const [mine, other] = [median(ours), median(theirs)];
      const by = `makedumpfile ${reference.version}`;
      const seconds = { ours: mine / 1000, theirs: other / 1000, ratio: mine / other };
      return { what, reference: by, unit: 's', ...seconds, ...(goal !== undefined && { goal }) };
    };
    const source = openDumpFiles([large]);
    const bytes = source.ranges.reduce((sum, { start, end }) => sum + end - start, 0);
    source.close();
    return {
      comparisons: [
        compare('-l -d 0, two threads', times.ours, times.theirs, 2.5),
        compare('-l -d 31, two threads', times.ours31, times.theirs31),
      ],
      notes: [`-d 0 of ${(bytes / GIB).toFixed(1)} GiB, -d 31 of a dump of 0.3 GiB; ours with Node's start.`],
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** More than 4 GB of memory, which a guest in software emulation would take long to dump. */
const COPIES = 16;
const GIB = 2 ** 30;

/**
 * The dump with its largest piece of memory described again and again, at addresses where the kernel has no memory: program
 * headers that lead to the same place in the file.
 */
function enlarge(from: string, to: string): void {
  copyFileSync(from, to);
  const head = readFileSync(to).subarray(0, 4096);
  const header = Elf64_Ehdr.read(head);
  const at = (i: number) => Number(header.e_phoff) + i * Elf64_Phdr.size;
  const segments = Array.from({ length: header.e_phnum }, (_, i) => Elf64_Phdr.read(head, at(i)));
  const [largest] = segments.filter(({ p_type }) => p_type === PT_LOAD).sort((a, b) => Number(b.p_filesz - a.p_filesz));
  for (let i = 0; i < COPIES; i++) {
    const p_paddr = BigInt((4 + i) * GIB);
    const p_vaddr = largest!.p_vaddr - largest!.p_paddr + p_paddr;
    Elf64_Phdr.write({ ...largest!, p_paddr, p_vaddr }, head, at(header.e_phnum + i));
  }
  Elf64_Ehdr.write({ ...header, e_phnum: header.e_phnum + COPIES }, head);
  const fd = openSync(to, 'r+');
  writeSync(fd, head, 0, head.length, 0);
  closeSync(fd);
}
