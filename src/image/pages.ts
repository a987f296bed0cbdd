/**
 * Contents of memory in an image. A pagemap names runs of pages by address - by offset for shared memory, which stands in an
 * image of its own - and the pages of the runs that are present follow each other in pages-N.img.
 *
 * An image may build on an earlier one, its parent: the pages of runs that are in_parent stand there, in the pagemap of the same
 * name, or in the parent of that.
 */
import { FormatError } from '../errors.ts';
import { readFully } from './file.ts';
import {
  PE_LAZY,
  PE_PARENT,
  PE_PRESENT,
  VMA_ANON_SHARED,
  VMA_AREA_MEMFD,
  VMA_AREA_SYSVIPC,
  type vma_entry,
} from './messages/memory.ts';
import { readPagemap } from './pagemap.ts';
import type { Value } from './proto.ts';
import { type ImageStore, type Source, withSource } from './store.ts';
import type { ImageTree } from './tree.ts';
import { fileName, images, pagesFile } from './types.ts';

export type VmaEntry = Value<typeof vma_entry>;

/** CRIU's images know no other page size on x86-64. */
export const PAGE_SIZE = 4096;

/** The runs of one pagemap as columns, ascending by address. */
export class PageRuns {
  pagesId = 0;
  length = 0;
  vaddr = new Float64Array(64);
  /** In bytes. */
  size = new Float64Array(64);
  flags = new Uint32Array(64);
  /** Byte of pages-N.img where a run that is present begins. */
  offset = new Float64Array(64);
  /** Of pages-N.img, in bytes. */
  pagesSize = 0;

  static read(source: Source): PageRuns {
    const runs = new PageRuns();
    runs.pagesId = readPagemap(source, (vaddr, nrPages, flags) => {
      const size = nrPages * PAGE_SIZE;
      runs.#push(vaddr, size, flags, runs.pagesSize);
      if (flags & PE_PRESENT) runs.pagesSize += size;
    });
    return runs;
  }

  /** Whether a run stands in an earlier image. */
  get hasParent(): boolean {
    for (let i = 0; i < this.length; i++) if (isInParent(this.flags[i]!)) return true;
    return false;
  }

  /**
   * These runs with those of an earlier image in place of the ones that are in it: all that can be found is present then, and
   * offsets beyond `pagesSize` count on in the pages of that image.
   *
   * @param parent runs that are not in yet an earlier image, or undefined where there is none
   * @param file for the message of an error
   * @throws FormatError where a page is in neither
   */
  within(parent: PageRuns | undefined, file: string): PageRuns {
    const whole = new PageRuns();
    whole.pagesId = this.pagesId;
    whole.pagesSize = this.pagesSize;
    for (let i = 0; i < this.length; i++) {
      const [start, size, flags] = [this.vaddr[i]!, this.size[i]!, this.flags[i]!];
      if (!isInParent(flags)) {
        whole.#push(start, size, flags, this.offset[i]!);
        continue;
      }
      let at = start;
      for (let j = parent?.first(start) ?? 0; at < start + size; j++) {
        if (parent === undefined || j >= parent.length || parent.vaddr[j]! > at || !(parent.flags[j]! & PE_PRESENT)) {
          const field = `pagemap_entry.flags at 0x${at.toString(16)}`;
          const found = parent === undefined ? 'there is no parent image' : 'it is not there';
          throw new FormatError({ file, field, expected: 'the page in the parent image', found });
        }
        const end = Math.min(start + size, parent.vaddr[j]! + parent.size[j]!);
        const offset = this.pagesSize + parent.offset[j]! + at - parent.vaddr[j]!;
        whole.#push(at, end - at, PE_PRESENT, offset);
        at = end;
      }
    }
    return whole;
  }

  #push(vaddr: number, size: number, flags: number, offset: number): void {
    if (this.length === this.vaddr.length) {
      const grown = <A extends Float64Array | Uint32Array>(old: A, larger: A): A => {
        larger.set(old);
        return larger;
      };
      this.vaddr = grown(this.vaddr, new Float64Array(2 * this.length));
      this.size = grown(this.size, new Float64Array(2 * this.length));
      this.flags = grown(this.flags, new Uint32Array(2 * this.length));
      this.offset = grown(this.offset, new Float64Array(2 * this.length));
    }
    this.vaddr[this.length] = vaddr;
    this.size[this.length] = size;
    this.flags[this.length] = flags;
    this.offset[this.length] = offset;
    this.length++;
  }

  /** Place of the first run that ends behind `address`. */
  first(address: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.vaddr[middle]! + this.size[middle]! > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Whether the image has something of [start, end), or a page server has. */
  hasSome(start: number, end: number): boolean {
    for (let i = this.first(start); i < this.length && this.vaddr[i]! < end; i++) {
      if (this.flags[i]! & (PE_PRESENT | PE_LAZY)) return true;
    }
    return false;
  }

  /** Bytes of [start, end) that the image has. */
  present(start: number, end: number): number {
    let bytes = 0;
    for (let i = this.first(start); i < this.length && this.vaddr[i]! < end; i++) {
      if (!(this.flags[i]! & PE_PRESENT)) continue;
      bytes += Math.min(end, this.vaddr[i]! + this.size[i]!) - Math.max(start, this.vaddr[i]!);
    }
    return bytes;
  }
}

function isInParent(flags: number): boolean {
  return (flags & (PE_PARENT | PE_PRESENT)) === PE_PARENT;
}

/** A part of a mapping: `offset` in the pages file, or undefined where the image has no content for it. */
export interface Extent {
  readonly start: number;
  readonly end: number;
  readonly offset: number | undefined;
  readonly flags: number;
}

/** @returns the ids of all shared memory that an image has the contents of */
export function sharedIn(store: ImageStore): number[] {
  const ids = store.names().flatMap((name) => /^pagemap-shmem-(\d+)\.img$/.exec(name)?.[1] ?? []);
  return ids.map(Number);
}

/** One address space or shared memory object: its runs, and the contents of those that are present, here or in a parent. */
export class MemoryImage {
  readonly runs: PageRuns;
  readonly #store: ImageStore;
  readonly #parent: MemoryImage | undefined;
  #pages: Source | undefined;

  /** @param id a process id, or `shmem-ID` @throws FormatError, also where a page is said to be in a parent that has it not */
  constructor(store: ImageStore, id: number | string) {
    this.#store = store;
    const file = fileName(images.PAGEMAP, id);
    const own = withSource(store, file, PageRuns.read);
    const parent = own.hasParent ? store.parent?.() : undefined;
    this.#parent = parent?.has(file) ? new MemoryImage(parent, id) : undefined;
    this.runs = own.hasParent ? own.within(this.#parent?.runs, `${store.name}: ${file}`) : own;
  }

  /** Divides [start, end) into what the pagemap says of it. */
  *extents(start: number, end: number): Generator<Extent> {
    const { runs } = this;
    let at = start;
    for (let i = runs.first(start); i < runs.length && runs.vaddr[i]! < end; i++) {
      const from = Math.max(start, runs.vaddr[i]!);
      const to = Math.min(end, runs.vaddr[i]! + runs.size[i]!);
      if (from > at) yield { start: at, end: from, offset: undefined, flags: 0 };
      const flags = runs.flags[i]!;
      const offset = flags & PE_PRESENT ? runs.offset[i]! + from - runs.vaddr[i]! : undefined;
      yield { start: from, end: to, offset, flags };
      at = to;
    }
    if (at < end) yield { start: at, end, offset: undefined, flags: 0 };
  }

  /** Fills `into` from a place of the pages file, or behind it of the parent's. FormatError where the file ends before. */
  readPages(into: Uint8Array, offset: number): void {
    const { pagesSize } = this.runs;
    if (this.#parent !== undefined && offset >= pagesSize) {
      this.#parent.readPages(into, offset - pagesSize);
      return;
    }
    this.#pages ??= this.#store.open(pagesFile(this.runs.pagesId));
    const got = readFully(this.#pages, into, offset);
    if (got === into.length) return;
    const [expected, found] = [`${into.length} bytes`, `${got}`];
    throw new FormatError({ file: this.#pages.name, offset, field: 'pages', expected, found });
  }

  /** Bytes at an address; what the image does not have is zero. */
  read(start: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (const extent of this.extents(start, start + length)) {
      if (extent.offset === undefined) continue;
      this.readPages(bytes.subarray(extent.start - start, extent.end - start), extent.offset);
    }
    return bytes;
  }

  close(): void {
    this.#parent?.close();
    this.#pages?.close();
    this.#pages = undefined;
  }
}

/**
 * The id of the shared memory object behind a mapping, or undefined where its pages stand in the process's own pagemap
 * or in a file. vma.pgoff is where the mapping begins in it.
 */
export function sharedMemoryOf(tree: ImageTree, vma: VmaEntry): number | undefined {
  if (vma.status & VMA_AREA_MEMFD) {
    const inode = tree.files.get(vma.shmid)?.memfd?.inode_id;
    return inode === undefined ? undefined : tree.memfds.get(inode)?.shmid;
  }
  return vma.status & (VMA_ANON_SHARED | VMA_AREA_SYSVIPC) ? vma.shmid : undefined;
}
