/**
 * Takes out of earlier images what later ones have: holes are punched into their pages-N.img, as `criu dedup` does. Only the last
 * image can be restored then: the others are marked (deduped.img).
 *
 *     last      pagemap: A present, B in the parent            pages: A
 *     parent    pagemap: A present, B present                  pages: (hole) B
 *
 * A hole reads as zeros, so the sums of an image change with it. Those to come lie beside them (tideover.sums.new) while holes are
 * punched: where that is interrupted they tell the next time that nothing but these pages has changed.
 */
import * as fs from 'node:fs';
import { join } from 'node:path';
import { crc32 } from '../crc32.ts';
import { FormatError, VerifyError } from '../errors.ts';
import { compareWith, readSums, SummedSource } from './checked.ts';
import { openDirectory } from './directory.ts';
import { PE_PRESENT } from './messages/memory.ts';
import { PageRuns } from './pages.ts';
import type { Writers } from './partial.ts';
import { type ImageStore, withSource } from './store.ts';
import { isSums, PAGES_SUMS_FILE, SUMS_FILE, Sums } from './sums.ts';
import { DEDUPED, pagesFile } from './types.ts';

export interface DedupResult {
  /** Earlier images that were looked at. */
  readonly images: number;
  /** Bytes of pages that a later image has too. */
  readonly freed: number;
}

/** Bytes of a file, from the first to behind the last one. */
type Range = readonly [start: number, end: number];

/** A pagemap, by its file. */
const PAGEMAP = /^pagemap-.+\.img$/;
const CHUNK = 1 << 20;

/**
 * @param path directory of the last image
 * @param punch makes a hole in a file, as fallocate(2) with FALLOC_FL_PUNCH_HOLE
 * @param writers see openDirectory()
 * @throws VerifyError where an image is damaged, FormatError; it and those before it are as they were then
 */
export function dedup(
  path: string,
  punch: (fd: number, offset: number, size: number) => void,
  writers?: Writers,
): DedupResult {
  /** What the later images have, by pagemap. */
  const later = new Map<string, Range[]>();
  let [images, freed] = [0, 0];
  let store: ImageStore | undefined = openDirectory(path, writers);
  for (; store !== undefined; store = store.parent?.()) {
    const holes = new Map<string, Range[]>();
    for (const file of store.names().filter((name) => PAGEMAP.test(name))) {
      const runs = withSource(store, file, PageRuns.read);
      const had = later.get(file) ?? [];
      const found = holesIn(runs, had);
      if (found.length > 0)
        holes.set(pagesFile(runs.pagesId), [...(holes.get(pagesFile(runs.pagesId)) ?? []), ...found]);
      later.set(file, united([...had, ...present(runs)]));
    }
    // What a later image lacks is not taken out of an earlier one. A file with holes to come is looked at when it gets them.
    checkWhole(store, (file) => !holes.has(file));
    for (const [file, ranges] of holes) freed += punchAll(store.name, file, united(ranges), punch);
    if (store.name !== path) images++;
  }
  return { images, freed };
}

/** @param wanted which of its files @throws VerifyError, FormatError where one is not what was written */
function checkWhole(store: ImageStore, wanted: (file: string) => boolean): void {
  const sums = readSums(store);
  for (const file of store.names().filter((name) => !isSums(name) && name !== DEDUPED && wanted(name))) {
    const found = withSource(store, file, (source) => new SummedSource(source).sum());
    if (sums !== undefined) compareWith(sums, file, found, `${store.name}: ${file}`);
  }
  for (const file of store.names().filter((name) => PAGEMAP.test(name))) {
    const runs = withSource(store, file, PageRuns.read);
    const pages = pagesFile(runs.pagesId);
    const size = runs.pagesSize === 0 ? 0 : withSource(store, pages, (source) => source.size);
    if (size >= runs.pagesSize) continue;
    const [expected, found] = [`${runs.pagesSize}, by ${file}`, `${size}`];
    throw new FormatError({ file: `${store.name}: ${pages}`, field: 'size', expected, found });
  }
}

function present({ vaddr, size, flags, length }: PageRuns): Range[] {
  const found: Range[] = [];
  for (let i = 0; i < length; i++) if (flags[i]! & PE_PRESENT) found.push([vaddr[i]!, vaddr[i]! + size[i]!]);
  return found;
}

/** @param had addresses, ascending @returns where their pages stand in pages-N.img */
function holesIn({ vaddr, size, flags, offset, length }: PageRuns, had: readonly Range[]): Range[] {
  const found: Range[] = [];
  for (let i = 0, j = 0; i < length; i++) {
    if ((flags[i]! & PE_PRESENT) === 0) continue;
    const [from, to] = [vaddr[i]!, vaddr[i]! + size[i]!];
    while (j < had.length && had[j]![1] <= from) j++;
    for (let k = j; k < had.length && had[k]![0] < to; k++) {
      const [start, end] = [Math.max(from, had[k]![0]), Math.min(to, had[k]![1])];
      found.push([offset[i]! + start - from, offset[i]! + end - from]);
    }
  }
  return found;
}

/** In order, those that touch as one. */
function united(ranges: readonly Range[]): Range[] {
  const all: [number, number][] = [];
  for (const [start, end] of ranges.toSorted((a, b) => a[0] - b[0])) {
    const last = all.at(-1);
    if (last !== undefined && last[1] >= start) last[1] = Math.max(last[1], end);
    else all.push([start, end]);
  }
  return all;
}

/** @returns how many bytes are in the holes */
function punchAll(
  directory: string,
  file: string,
  holes: readonly Range[],
  punch: (fd: number, offset: number, size: number) => void,
): number {
  const fd = fs.openSync(join(directory, file), 'r+');
  try {
    const sums = [SUMS_FILE, PAGES_SUMS_FILE]
      .map((name) => ({ name, sums: sumsIn(directory, name) }))
      .find((each) => each.sums?.has(file));
    const { before, after, size } = sumUp(fd, holes);
    if (sums !== undefined) {
      const waiting = sumsIn(directory, `${sums.name}.new`)?.get(file)?.crc32;
      const known = sums.sums!.get(file)!;
      if (size !== known.size || (before !== known.crc32 && after !== waiting)) {
        throw new VerifyError(`${directory}: CRC-32 of ${file}`, known.crc32.toString(16), before.toString(16));
      }
      sums.sums!.set(file, { size, crc32: after }).set(DEDUPED, { size: 0, crc32: 0 });
      writeSynced(join(directory, `${sums.name}.new`), sums.sums!.text(sums.name));
    }
    fs.closeSync(fs.openSync(join(directory, DEDUPED), 'w', 0o600));
    for (const [start, end] of holes) punch(fd, start, end - start);
    fs.fsyncSync(fd);
    if (sums !== undefined) fs.renameSync(join(directory, `${sums.name}.new`), join(directory, sums.name));
    return holes.reduce((sum, [start, end]) => sum + end - start, 0);
  } finally {
    fs.closeSync(fd);
  }
}

function sumsIn(directory: string, name: string): Sums | undefined {
  const path = join(directory, name);
  return fs.existsSync(path) ? Sums.parse(fs.readFileSync(path, 'latin1'), path) : undefined;
}

/** CRC-32 of a file as it is and as it is with the holes. */
function sumUp(fd: number, holes: readonly Range[]): { before: number; after: number; size: number } {
  const bytes = new Uint8Array(CHUNK);
  let [before, after, at] = [0, 0, 0];
  for (let hole = 0; ; ) {
    const got = fs.readSync(fd, bytes, 0, CHUNK, at);
    if (got === 0) return { before, after, size: at };
    before = crc32(bytes.subarray(0, got), before);
    while (hole < holes.length && holes[hole]![1] <= at) hole++;
    for (let i = hole; i < holes.length && holes[i]![0] < at + got; i++) {
      bytes.fill(0, Math.max(0, holes[i]![0] - at), Math.min(got, holes[i]![1] - at));
    }
    after = crc32(bytes.subarray(0, got), after);
    at += got;
  }
}

function writeSynced(path: string, text: string): void {
  const fd = fs.openSync(path, 'w', 0o600);
  try {
    fs.writeSync(fd, text);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
