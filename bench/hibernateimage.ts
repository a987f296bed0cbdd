/**
 * What saves and restores a machine's memory, run on this machine over a file in place of that memory, beside plain writing and
 * reading of as many bytes at the same place: a disk; and memory, to see what the processors are able to. An emulated processor
 * distorts what bench/hibernate.ts measures in a guest; this it does not.
 */
import { randomFillSync } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Compression } from '../src/crash/codec/page.ts';
import { pageAligned } from '../src/hibernate/direct.ts';
import { openOutput, openReader } from '../src/hibernate/place.ts';
import { restoreMemory } from '../src/hibernate/restore.ts';
import { saveMemory } from '../src/hibernate/save.ts';
import { usefulThreads } from '../src/hibernate/threads.ts';
import { description, NOTE, note } from '../test/integration/hibernate/machine.ts';
import { type BenchResult, type Comparison, median } from './bench.ts';
import { limitDisk } from './limit.ts';

export const name = 'hibernateimage';
export const summary = 'save and restore memory on this machine, against plain writing and reading';

const MB = 1 << 20;
const CHUNK = 4 * MB;
const ROUNDS = 3;
const IN_MEMORY = '/dev/shm';
/** Bytes per second of the disk that is limited: as SATA has it. */
const LIMIT = 500e6;
/**
 * A disk has its own speed, which compression makes more of; so what that costs is seen in memory. That of a virtual machine may be
 * another machine's memory: limited, it is one.
 */
const CASES = [
  ['limited disk', 'none'],
  ['disk', 'none'],
  ['memory', 'none'],
  ['memory', 'lzo'],
  ['memory', 'zstd'],
] as const;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  // Two sizes: their difference is without the start of threads. The smaller one stands for it.
  const sizes = small ? [64 * MB] : [16 * MB, 528 * MB];
  const folders = [IN_MEMORY, tmpdir()].map((at) => mkdtempSync(join(at, 'tideover-bench-')));
  const [inMemory, onDisk] = folders.map((folder) => join(folder, 'image'));
  const [memory, back] = ['memory', 'back'].map((each) => join(folders[0]!, each));
  try {
    makeMemory(memory!, back!, sizes.at(-1)!);
    const comparisons: Comparison[] = [];
    const notes: string[] = [];
    for (const [where, compression] of small ? CASES.slice(1, 2) : CASES) {
      const image = where === 'memory' ? inMemory! : onDisk!;
      using limited = where === 'limited disk' ? limitDisk(folders[1]!, LIMIT) : undefined;
      if (where === 'limited disk' && limited === undefined) {
        notes.push('no limited disk: this machine has no blkio controller for it');
        continue;
      }
      const rounds = small ? 1 : ROUNDS;
      const found = await measure({ memory: memory!, back: back!, image, compression, sizes, rounds });
      const goal = where === 'memory' ? {} : { goal: 1 / 0.9 };
      for (const [ours, plain, reference] of [
        ['save', 'write', 'plain writing'],
        ['restore', 'read', 'plain reading'],
      ] as const) {
        const what = `${where}, ${compression}: ${ours}`;
        comparisons.push(
          { ...compare(what, reference, found(ours, 'wall'), found(plain, 'wall')), ...goal },
          compare(`${what}, time of processors`, reference, found(ours, 'cpu'), found(plain, 'cpu')),
        );
      }
    }
    return {
      comparisons,
      notes: [
        ...notes,
        `per GB of memory, half of which is random and half a program's; ${availableParallelism()} processors`,
      ],
    };
  } finally {
    for (const folder of folders) rmSync(folder, { recursive: true });
  }
}

/** Seconds for a GB of memory. */
function compare(what: string, reference: string, ours: number, theirs: number): Comparison {
  return { what, reference, unit: 's/GB', ours, theirs, ratio: ours / theirs };
}

/** By turns a MB that does not compress, and one of a program. */
function makeMemory(memory: string, back: string, size: number): void {
  const program = readFileSync(process.execPath);
  const fds = [memory, back].map((path) => openSync(path, 'w'));
  const bytes = Buffer.alloc(MB);
  for (let at = 0; at < size; at += MB) {
    if ((at / MB) % 2 === 0) randomFillSync(bytes);
    else bytes.set(program.subarray(at % (program.length - MB)).subarray(0, MB));
    for (const fd of fds) writeSync(fd, bytes);
  }
  const first = Buffer.alloc(NOTE.size);
  first.set(note);
  writeSync(fds[0]!, first, 0, first.length, NOTE.address);
  for (const fd of fds) closeSync(fd);
}

interface Setting {
  readonly memory: string;
  readonly back: string;
  readonly image: string;
  readonly compression: Compression;
  readonly sizes: readonly number[];
  readonly rounds: number;
}

/** Each case. @returns seconds for 1e9 bytes of memory, or of a file, by the clock or of all processors */
async function measure({ memory, back, image, compression, sizes, rounds }: Setting) {
  const options = { threads: usefulThreads() };
  const rangesOf = (size: number) => [
    { start: MB, end: 5 * MB },
    { start: 8 * MB, end: size },
  ];
  writeFileSync(image, '');
  // What is not saved is not written: plain is as much as the image has.
  let bytes = 0;
  const cases = {
    save: async (size: number) => {
      const saved = await saveMemory(
        { path: image },
        {
          description,
          memory: rangesOf(size),
          vmcoreinfo: NOTE,
          compression,
          keepFree: false,
          state: 'ready',
          device: memory,
        },
        options,
      );
      bytes = saved.size;
    },
    restore: () => restoreMemory({ path: image }, options, [], back),
    write: () => writePlain(image, bytes),
    read: () => readPlain(image, bytes),
  };
  const names = ['save', 'restore', 'write', 'read'] as const;
  const found = new Map(names.map((each) => [each, { wall: [] as number[], cpu: [] as number[] }]));
  // The blocks are there before anything is measured, as those of a disk are.
  writePlain(image, sizes.at(-1)! + 16 * MB);
  const rise = (values: readonly number[]) => values.at(-1)! - (values.length > 1 ? values[0]! : 0);
  for (let round = 0; round < rounds; round++) {
    const times = new Map(names.map((each) => [each, { wall: [] as number[], cpu: [] as number[] }]));
    for (const size of sizes) {
      for (const each of names) {
        const [begun, used] = [performance.now(), process.cpuUsage()];
        await cases[each](size);
        const { user, system } = process.cpuUsage(used);
        times.get(each)!.wall.push((performance.now() - begun) / 1e3);
        times.get(each)!.cpu.push((user + system) / 1e6);
      }
    }
    for (const [each, { wall, cpu }] of times) {
      found.get(each)!.wall.push(rise(wall) / (rise(sizes) / 1e9));
      found.get(each)!.cpu.push(rise(cpu) / (rise(sizes) / 1e9));
    }
  }
  return (name: (typeof names)[number], kind: 'wall' | 'cpu') => median(found.get(name)![kind]);
}

function writePlain(path: string, size: number): void {
  const bytes = pageAligned(CHUNK);
  const output = openOutput({ path }, { direct: true });
  for (let at = 0; at < size; at += CHUNK) output.write(at, bytes);
  output.sync();
  output.close();
}

function readPlain(path: string, size: number): void {
  const reader = openReader({ path }, { direct: true });
  const bytes = new Uint8Array(CHUNK);
  for (let at = 0; at < size; at += CHUNK) reader.read(at, bytes);
  reader.close();
}
