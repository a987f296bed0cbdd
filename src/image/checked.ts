/**
 * Checking what is read against tideover.sums without reading it twice: a restore reads every page anyway, and asks at its
 * end, before the processes go on, whether all of it was what had been written.
 */
import { crc32 } from '../crc32.ts';
import { VerifyError } from '../errors.ts';
import { INFO_FILE } from './info.ts';
import { type ImageStore, readWhole, type Source, withSource } from './store.ts';
import { isSums, PAGES_SUMS_FILE, SUMS_FILE, type Sum, Sums } from './sums.ts';
import { isMemory, isRaw } from './types.ts';

/** tideover.sums has some fifty bytes for a file. */
const MAX_SUMS = 64 << 20;

/** Where what nobody wanted is read to. Most files are read to their ends, and an image of many processes has thousands. */
let rest: Uint8Array | undefined;
const REST = 256 << 10;

/**
 * Sums up what is read from its beginning on. Small gaps are read at once, as where another image has the pages that were written since:
 * all behind them would have to be read again. sum() reads what is left.
 */
export class SummedSource implements Source {
  readonly name: string;
  readonly size: number;
  readonly #source: Source;
  #done = 0;
  #sum = 0;

  constructor(source: Source) {
    this.name = source.name;
    this.size = source.size;
    this.#source = source;
  }

  read(into: Uint8Array, position: number): number {
    if (position > this.#done && position - this.#done <= REST) this.#pass(position - this.#done);
    const got = this.#source.read(into, position);
    // A part that was read before and goes on behind what is summed up counts too.
    const begun = this.#done - position;
    if (begun >= 0 && begun < got) {
      this.#sum = crc32(into.subarray(begun, got), this.#sum);
      this.#done = position + got;
    }
    return got;
  }

  /** Of the whole file, as far as it can be read. */
  sum(): Sum {
    while (this.#done < this.size && this.#pass(REST) > 0);
    return { size: this.#done, crc32: this.#sum };
  }

  /** Sums up what comes next. @param most bytes, at most REST @returns how many there were */
  #pass(most: number): number {
    rest ??= new Uint8Array(REST);
    const part = rest.subarray(0, most);
    const got = this.#source.read(part, this.#done);
    this.#sum = crc32(part.subarray(0, got), this.#sum);
    this.#done += got;
    return got;
  }

  close(): void {
    this.#source.close();
  }
}

/** Of an image without memory, for which a page server of CRIU may have put that beside it: nobody has summed it up. */
function isUnknown(file: string, sums: Sums): boolean {
  return isMemory(file) && !sums.hasMemory;
}

/** Compares a file of an image with what its sums say. @throws VerifyError where it is not what was written */
export function compareWith(sums: Sums, file: string, found: Sum, name = file): void {
  if (!isUnknown(file, sums)) compareSums(name, sums.get(file), found);
}

/** @throws VerifyError where a file is not what was written */
function compareSums(file: string, expected: Sum | undefined, found: Sum): void {
  const hex = (sum: Sum) => sum.crc32.toString(16).padStart(8, '0');
  if (expected === undefined) throw new VerifyError(file, `a line in ${SUMS_FILE}`, 'none');
  if (found.size !== expected.size) throw new VerifyError(`size of ${file}`, `${expected.size}`, `${found.size}`);
  if (found.crc32 !== expected.crc32) throw new VerifyError(`CRC-32 of ${file}`, hex(expected), hex(found));
}

/**
 * The checksums of an image, or undefined for one that CRIU made. Of a stream they come last: asking for them passes over all
 * pages that were not read.
 *
 * @throws FormatError where they are damaged, or missing in an image of ours
 */
export function readSums(store: ImageStore): Sums | undefined {
  const read = (file: string) =>
    withSource(store, file, (source) =>
      Sums.parse(Buffer.from(readWhole(source, MAX_SUMS)).toString('latin1'), source.name),
    );
  if (!store.has(SUMS_FILE) && !store.has(INFO_FILE)) return undefined;
  const sums = read(SUMS_FILE);
  if (store.has(PAGES_SUMS_FILE)) for (const [file, sum] of read(PAGES_SUMS_FILE)) sums.set(file, sum);
  return sums;
}

/** A store that checks the files that are opened. */
export interface CheckedStore extends ImageStore {
  /**
   * Reads what was left of the opened files and compares. Nothing is left open.
   * @throws VerifyError where one is not what was written, FormatError where the sums are damaged or missing
   */
  finish(): void;
}

/**
 * Checks what is read from a store. An image without sums, which CRIU made, cannot be checked and is taken as it is. Where the sums
 * are there from the beginning, as in a directory, small images are compared when they are closed: what is damaged is not used.
 *
 * @param pages whether contents of memory are checked too, here and in the images on which this one builds
 * @throws VerifyError where a file is missing that the image had, FormatError where the sums are damaged
 */
export function checkedStore(store: ImageStore, { pages = true } = {}): CheckedStore {
  const early = store.forwards !== true && store.has(SUMS_FILE) ? readSums(store) : undefined;
  // A stream forgets pages that were passed; those that are missing are missed when they are opened.
  const checkNames = (expected: Sums) => {
    const names = new Set(store.names());
    for (const file of expected.keys()) {
      if (!names.has(file) && !isRaw(file)) throw new VerifyError(`${store.name}: ${file}`, 'the file', 'none');
    }
  };
  if (early !== undefined) checkNames(early);
  const opened: { file: string; source: SummedSource }[] = [];
  const sums = new Map<string, Sum>();
  let parent: CheckedStore | undefined;
  return {
    name: store.name,
    names: () => store.names(),
    has: (file) => store.has(file),
    parent() {
      const earlier = parent === undefined ? store.parent?.() : undefined;
      if (earlier !== undefined) parent = checkedStore(earlier, { pages });
      return parent;
    },
    open(file) {
      if (!pages && isRaw(file)) return store.open(file);
      const source = new SummedSource(store.open(file));
      const entry = { file, source };
      opened.push(entry);
      return {
        name: source.name,
        size: source.size,
        read: (into, position) => source.read(into, position),
        close() {
          // What is read only in part is summed up now, as of a stream it cannot be later.
          const sum = source.sum();
          sums.set(file, sum);
          opened.splice(opened.indexOf(entry), 1);
          source.close();
          if (early !== undefined && !isRaw(file) && !isSums(file)) compareWith(early, file, sum);
        },
      };
    },
    finish() {
      for (const { file, source } of opened.splice(0)) {
        sums.set(file, source.sum());
        source.close();
      }
      parent?.finish();
      const expected = early ?? readSums(store);
      if (expected === undefined) return;
      checkNames(expected);
      for (const [file, sum] of sums) if (!isSums(file)) compareWith(expected, file, sum);
    },
    close: () => store.close(),
  };
}
