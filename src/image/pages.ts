/**
 * Contents of memory in an image. A pagemap names runs of pages by address - by offset for shared memory, which stands in an
 * image of its own - and the pages of the runs that are present follow each other in pages-N.img.
 */
import { FormatError } from '../errors.ts';
import { readFully } from './file.ts';
import { PE_PRESENT, VMA_ANON_SHARED, VMA_AREA_MEMFD, VMA_AREA_SYSVIPC, type vma_entry } from './messages/memory.ts';
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
    runs.pagesId = readPagemap(source, (vaddr, nrPages, flags) => runs.#push(vaddr, nrPages * PAGE_SIZE, flags));
    return runs;
  }

  #push(vaddr: number, size: number, flags: number): void {
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
    this.offset[this.length] = this.pagesSize;
    if (flags & PE_PRESENT) this.pagesSize += size;
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

/** A part of a mapping: `offset` in the pages file, or undefined where the image has no content for it. */
export interface Extent {
  readonly start: number;
  readonly end: number;
  readonly offset: number | undefined;
  readonly flags: number;
}

/** One address space or shared memory object: its runs, and the contents of those that are present. */
export class MemoryImage {
  readonly runs: PageRuns;
  readonly #store: ImageStore;
  #pages: Source | undefined;

  /** @param id a process id, or `shmem-ID` */
  constructor(store: ImageStore, id: number | string) {
    this.#store = store;
    this.runs = withSource(store, fileName(images.PAGEMAP, id), PageRuns.read);
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

  /** Fills `into` from a place of the pages file. FormatError where the file ends before. */
  readPages(into: Uint8Array, offset: number): void {
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
