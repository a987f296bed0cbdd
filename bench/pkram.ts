/** Saving to preserved memory in a file on tmpfs, and loading from it, beside a plain copy to and from a file there. */
import { randomFillSync } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { FileMedium, openPkram, type Pkram } from '../src/pkram/index.ts';
import { type BenchResult, inTurns, median } from './bench.ts';

export const name = 'pkram';
export const summary = 'save and load of preserved memory against write and read of a file on tmpfs';

const CHUNK = 1 << 20;
const PAGE = 4096;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const size = small ? 16 << 20 : 256 << 20;
  const folder = fs.mkdtempSync('/dev/shm/tideover-bench-');
  const plain = join(folder, 'plain');
  const data = randomFillSync(new Uint8Array(size));
  const back = new Uint8Array(size);
  const pkram = openPkram(FileMedium.open(join(folder, 'medium'), { create: true }));
  try {
    const save = (checksums: boolean, step: number) => {
      const node = pkram.prepareSave(`${checksums}`, { checksums });
      const object = node.prepareSaveObject();
      for (let at = 0; at < size; at += step) object.savePages(data.subarray(at, at + step), at / PAGE);
      object.finishSaveObject();
      node.finishSave();
    };
    const saved = await inTurns(
      {
        copy: () => copyTo(plain, data),
        save: () => remove(pkram, () => save(false, CHUNK)),
        checksums: () => remove(pkram, () => save(true, CHUNK)),
        single: () => remove(pkram, () => save(false, PAGE)),
      },
      small ? 2 : 9,
    );
    copyTo(plain, data);
    remove(pkram, () => save(true, CHUNK));
    const loaded = await inTurns(
      {
        copy: () => copyFrom(plain, back),
        load: () => load(pkram, back, false),
        verify: () => load(pkram, back, true),
        inPlace: () => load(pkram, undefined, false),
      },
      small ? 2 : 9,
    );
    if (Buffer.compare(data, back) !== 0) throw new Error('what was loaded is not what was saved');
    const unit = 'MB/s';
    const speed = (times: readonly number[]) => size / 1e3 / median(times);
    const compare = (
      what: string,
      reference: string,
      ours: readonly number[],
      theirs: readonly number[],
      goal?: number,
    ) => {
      const ratio = median(ours) / median(theirs);
      return { what, reference, unit, ours: speed(ours), theirs: speed(theirs), ratio, ...(goal && { goal }) };
    };
    return {
      comparisons: [
        compare('save', 'write to tmpfs', saved.save, saved.copy, 1.25),
        compare('save, with checksums', 'write to tmpfs', saved.checksums, saved.copy),
        compare('save, page by page', 'write to tmpfs', saved.single, saved.copy),
        compare('load', 'read from tmpfs', loaded.load, loaded.copy, 1.25),
        compare('load and verify', 'read from tmpfs', loaded.verify, loaded.copy),
        compare('load in place, a word of each page', 'read from tmpfs', loaded.inPlace, loaded.copy),
      ],
      notes: ['The ratio is of times: 1.25 is 80 % of the speed.'],
    };
  } finally {
    pkram.close();
    fs.rmSync(folder, { recursive: true });
  }
}

/** Frees what was saved before, as the plain copy does. */
function remove(pkram: Pkram, then: () => void): void {
  for (const { id } of pkram.nodes()) pkram.remove(id);
  then();
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
  const peek = pkram.peek('true', { verify });
  const [object] = peek.objects();
  let sum = 0;
  for (let next = object!.loadPages(); next !== undefined; next = object!.loadPages()) {
    if (into !== undefined) into.set(next.pages, Number(next.index) * PAGE);
    else for (let at = 0; at < next.pages.length; at += PAGE) sum += next.pages[at]!;
  }
  peek[Symbol.dispose]();
  return sum;
}
