/** Saving to preserved memory in huge pages and in a file on tmpfs, and loading from it, beside a plain copy to and from a file there. */
import { randomFillSync } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { FileMedium, HugePageMedium, openPkram, type Pkram } from '../src/pkram/index.ts';
import { Region } from '../src/sys/region.ts';
import { type BenchResult, inTurns, median } from './bench.ts';

export const name = 'pkram';
export const summary = 'save and load of preserved memory against write and read of a file on tmpfs';

const CHUNK = 1 << 20;
const PAGE = 4096;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const size = small ? 16 << 20 : 256 << 20;
  const rounds = small ? 2 : 9;
  const folder = fs.mkdtempSync('/dev/shm/tideover-bench-');
  const plain = join(folder, 'plain');
  const data = randomFillSync(new Uint8Array(size));
  const back = new Uint8Array(size);
  const file = openPkram(FileMedium.open(join(folder, 'medium'), { create: true }));
  // Huge pages are root's to take, and are taken before: what tmpfs takes is counted.
  const isRoot = process.geteuid?.() === 0;
  const pages = join(folder, 'pages');
  const memory = isRoot ? openPkram(HugePageMedium.open({ folder: pages, create: true, size: size * 2 })) : undefined;
  try {
    const save = (pkram: Pkram, checksums: boolean, step: number) => {
      // Frees what was saved before, as the plain copy does.
      for (const { id } of pkram.nodes()) pkram.remove(id);
      const node = pkram.prepareSave('node', { checksums });
      const object = node.prepareSaveObject();
      for (let at = 0; at < size; at += step) object.savePages(data.subarray(at, at + step), at / PAGE);
      object.finishSaveObject();
      node.finishSave();
    };
    const taken = () => {
      const own = openPkram(HugePageMedium.open({ folder: join(folder, 'own'), create: true, size: size * 1.05 }));
      save(own, false, CHUNK);
      own.close();
      HugePageMedium.open({ folder: join(folder, 'own') }).giveBack();
    };
    const of = (pkram: Pkram | undefined, work: (pkram: Pkram) => void) => () => pkram && work(pkram);
    const saved = await inTurns(
      {
        copy: () => copyTo(plain, data),
        file: of(file, (pkram) => save(pkram, false, CHUNK)),
        memory: of(memory, (pkram) => save(pkram, false, CHUNK)),
        taken: of(memory, taken),
        checksums: of(memory ?? file, (pkram) => save(pkram, true, CHUNK)),
        single: of(memory ?? file, (pkram) => save(pkram, false, PAGE)),
      },
      rounds,
    );
    copyTo(plain, data);
    for (const pkram of [file, memory]) if (pkram !== undefined) save(pkram, true, CHUNK);
    const loaded = await inTurns(
      {
        copy: () => copyFrom(plain, back),
        file: of(file, (pkram) => load(pkram, back, false)),
        memory: of(memory, (pkram) => load(pkram, back, false)),
        verify: of(memory ?? file, (pkram) => load(pkram, back, true)),
        inPlace: of(memory ?? file, (pkram) => load(pkram, undefined, false)),
      },
      rounds,
    );
    if (Buffer.compare(data, back) !== 0) throw new Error('what was loaded is not what was saved');
    // Made and given back in turns with memory of the process.
    const gigabyte = small ? 1 << 26 : 1 << 30;
    const large = join(folder, 'large');
    const filled = await inTurns(
      {
        memory: () => {
          using region = new Region(gigabyte);
          for (let at = 0; at < gigabyte; at += PAGE) region.bytes[at] = 1;
        },
        pages: () => isRoot && HugePageMedium.open({ folder: large, create: true, size: gigabyte }).giveBack(),
      },
      small ? 2 : 5,
    );
    const speed = (times: readonly number[]) => size / 1e3 / median(times);
    const compare = (reference: string, theirs: readonly number[]) => {
      return (what: string, ours: readonly number[], goal?: number) => {
        const ratio = median(ours) / median(theirs);
        return {
          what,
          reference,
          unit: 'MB/s',
          ours: speed(ours),
          theirs: speed(theirs),
          ratio,
          ...(goal && { goal }),
        };
      };
    };
    const take = {
      what: `take ${gigabyte >> 20} MiB of huge pages, give back`,
      reference: 'touch as much memory, free it',
      unit: 's',
      ours: median(filled.pages) / 1e3,
      theirs: median(filled.memory) / 1e3,
      ratio: median(filled.pages) / median(filled.memory),
    };
    const [saves, loads] = [compare('write to tmpfs', saved.copy), compare('read from tmpfs', loaded.copy)];
    const place = isRoot ? 'huge pages' : 'a file';
    return {
      comparisons: [
        ...(isRoot ? [saves('save in huge pages', saved.memory, 1.25)] : []),
        ...(isRoot ? [take, saves('take huge pages, save, give back', saved.taken)] : []),
        saves('save in a file on tmpfs', saved.file, 1.25),
        saves(`save in ${place}, with checksums`, saved.checksums),
        saves(`save in ${place}, page by page`, saved.single),
        ...(isRoot ? [loads('load from huge pages', loaded.memory, 1.25)] : []),
        loads('load from a file on tmpfs', loaded.file, 1.25),
        loads(`load from ${place} and verify`, loaded.verify),
        loads(`load in place from ${place}, a word of each page`, loaded.inPlace),
      ],
      notes: ['The ratio is of times: 1.25 is 80 % of the speed.'],
    };
  } finally {
    file.close();
    memory?.close();
    if (isRoot) HugePageMedium.open({ folder: pages }).giveBack();
    fs.rmSync(folder, { recursive: true });
  }
}

function copyTo(path: string, data: Uint8Array): void {
  const fd = fs.openSync(path, 'w');
  for (let at = 0; at < data.length; at += CHUNK) fs.writeSync(fd, data, at, Math.min(CHUNK, data.length - at));
  fs.closeSync(fd);
}

function copyFrom(path: string, into: Uint8Array): void {
  const fd = fs.openSync(path, 'r');
  for (let at = 0; at < into.length; at += CHUNK) fs.readSync(fd, into, at, Math.min(CHUNK, into.length - at), null);
  fs.closeSync(fd);
}

function load(pkram: Pkram, into: Uint8Array | undefined, verify: boolean): number {
  const peek = pkram.peek('node', { verify });
  const [object] = peek.objects();
  let sum = 0;
  for (let next = object!.loadPages(); next !== undefined; next = object!.loadPages()) {
    if (into !== undefined) into.set(next.pages, Number(next.index) * PAGE);
    else for (let at = 0; at < next.pages.length; at += PAGE) sum += next.pages[at]!;
  }
  peek[Symbol.dispose]();
  return sum;
}
