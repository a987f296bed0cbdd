/**
 * Loading a node: prepareLoad takes it off the list, then for each object prepareLoadObject, loadPage and read,
 * finishLoadObject, which frees it whether it was read or not, then finishLoad. What is not finished stays: after disposal, or the death
 * of the process, the node is on the list again with the objects that were not finished.
 */
import { Readable } from 'node:stream';
import { crc32 } from '../crc32.ts';
import { VerifyError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { NoRoomError, OrderError } from './errors.ts';
import { EXTENT_MAX } from './format.ts';
import {
  type ByteExtent,
  type Node,
  type ObjectEntry,
  type PageExtent,
  readByteExtents,
  readObjects,
  readPageExtents,
  walkObject,
  writeNode,
} from './node.ts';
import type { Run } from './space.ts';
import type { Entry, Volume } from './volume.ts';

export interface LoadOptions {
  /** Verify the data of a node that was saved with checksums, each extent before it is handed out. */
  readonly verify?: boolean;
}

export interface NodeLoadOptions extends LoadOptions {
  /** Overwrite the contents when the node is loaded. Nothing of it is free before finishLoad() then. */
  readonly wipe?: boolean;
}

/** Pages with indexes from `index` on. */
export interface LoadedPages {
  readonly index: bigint;
  readonly flags: number;
  /** Where they lie if the medium is mapped, else a copy; valid until the next call. Not to be written to. */
  readonly pages: Uint8Array;
}

export interface LoadedPage {
  readonly index: bigint;
  readonly flags: number;
  /** 4096 bytes, valid until the next call. Not to be written to. */
  readonly page: Uint8Array;
}

/** Reads the streams of an object, each from its beginning, in any turns. */
export class ObjectReader {
  /** Pages in the page stream. */
  readonly pageCount: number;
  /** Bytes in the byte stream. */
  readonly byteCount: number;
  readonly #volume: Volume;
  readonly #demandOpen: (call: string) => void;
  readonly #verify: boolean;
  readonly #what: string;
  readonly #pageExtents: Iterator<PageExtent>;
  readonly #byteExtents: Iterator<ByteExtent>;
  /** One for each stream, where the medium is not mapped. */
  #pageBuffer: Uint8Array | undefined;
  #byteBuffer: Uint8Array | undefined;
  /** What is left of the pages, and of the bytes, that were read last. */
  #pages: LoadedPages | undefined;
  #bytes: Uint8Array = new Uint8Array(0);
  readonly #readTable: () => Iterable<ByteExtent>;
  #table: PlacedExtent[] | undefined;

  constructor(
    volume: Volume,
    { node, object, number }: { node: Node; object: ObjectEntry; number: number },
    verify: boolean,
    demandOpen: (call: string) => void,
  ) {
    this.pageCount = object.page_count;
    this.byteCount = object.byte_count;
    this.#volume = volume;
    this.#demandOpen = demandOpen;
    this.#verify = verify && node.checksums;
    this.#what = `object ${number} of node ${JSON.stringify(node.name)} in ${volume.medium.name}`;
    this.#pageExtents = readPageExtents(volume.medium, node.id, object);
    this.#readTable = () => readByteExtents(volume.medium, node.id, object);
    this.#byteExtents = readByteExtents(volume.medium, node.id, object);
  }

  /** The next pages of the stream, up to 1024 at once. @returns undefined at the end @throws VerifyError */
  loadPages(): LoadedPages | undefined {
    this.#demandOpen('loadPage');
    const loaded = this.#pages ?? this.#nextPages();
    this.#pages = undefined;
    return loaded;
  }

  /** The next page of the stream. @returns undefined at the end @throws VerifyError */
  loadPage(): LoadedPage | undefined {
    const loaded = this.loadPages();
    if (loaded === undefined) return undefined;
    const { index, flags, pages } = loaded;
    if (pages.length > PAGE_SIZE) this.#pages = { index: index + 1n, flags, pages: pages.subarray(PAGE_SIZE) };
    return { index, flags, page: pages.subarray(0, PAGE_SIZE) };
  }

  /** Reads up to `into.length` bytes of the byte stream. @returns how many, 0 at the end @throws VerifyError */
  read(into: Uint8Array): number {
    this.#demandOpen('read');
    let done = 0;
    while (done < into.length) {
      const part = this.#nextBytes(into.length - done);
      if (part === undefined) break;
      into.set(part, done);
      done += part.length;
    }
    return done;
  }

  /** Reads bytes from a place in the byte stream; read() goes on where it was. @returns how many, 0 at the end @throws VerifyError */
  readAt(into: Uint8Array, position: number): number {
    this.#demandOpen('read');
    this.#table ??= placed(this.#readTable());
    let done = 0;
    for (let i = indexOf(this.#table, position); done < into.length && i < this.#table.length; i++) {
      const extent = this.#table[i]!;
      if (!extent.isChecked && this.#verify) {
        // Not into the buffer that read() may still be taking from.
        this.#bytesOf(extent, () => new Uint8Array(extent.length));
        extent.isChecked = true;
      }
      const from = position + done - extent.start;
      const part = into.subarray(done, done + extent.length - from);
      this.#volume.medium.read(extent.address + from, part);
      done += part.length;
    }
    return done;
  }

  /** All bytes of the stream that are not read yet. */
  readAll(): Uint8Array {
    const bytes = new Uint8Array(this.byteCount);
    return bytes.subarray(0, this.read(bytes));
  }

  /** The pages that are not loaded yet, some at once. */
  async *pages(): AsyncGenerator<LoadedPages> {
    for (let loaded = this.loadPages(); loaded !== undefined; loaded = this.loadPages()) yield loaded;
  }

  /** The byte stream as a stream of Node's. */
  readable(): Readable {
    const take = (size: number) => {
      const part = this.#nextBytes(Math.max(size, 64 << 10));
      // The stream keeps it, and what it is a part of is used again.
      return part === undefined ? null : Buffer.from(part);
    };
    return new Readable({
      read(size) {
        try {
          this.push(take(size));
        } catch (error) {
          this.destroy(error as Error);
        }
      },
    });
  }

  #nextPages(): LoadedPages | undefined {
    const next = this.#pageExtents.next();
    if (next.done === true) return undefined;
    const { index, flags, address, pages: count, crc32: sum } = next.value;
    const length = count * PAGE_SIZE;
    let pages = this.#volume.medium.view(address, length);
    if (pages === undefined) {
      this.#pageBuffer ??= new Uint8Array(Math.min(EXTENT_MAX, this.pageCount * PAGE_SIZE));
      pages = this.#pageBuffer.subarray(0, length);
      this.#volume.medium.read(address, pages);
    }
    this.#check(pages, sum, `pages from index ${index} on`);
    return { index, flags, pages };
  }

  #nextBytes(limit: number): Uint8Array | undefined {
    this.#demandOpen('read');
    if (this.#bytes.length === 0) {
      const next = this.#byteExtents.next();
      if (next.done === true) return undefined;
      this.#bytes = this.#bytesOf(next.value, () => {
        this.#byteBuffer ??= new Uint8Array(Math.min(EXTENT_MAX, this.byteCount));
        return this.#byteBuffer;
      });
    }
    const part = this.#bytes.subarray(0, limit);
    this.#bytes = this.#bytes.subarray(part.length);
    return part;
  }

  /** The data of an extent: where it lies, or copied to a buffer. */
  #bytesOf({ address, length, crc32: sum }: ByteExtent, buffer: () => Uint8Array): Uint8Array {
    let bytes = this.#volume.medium.view(address, length);
    if (bytes === undefined) {
      bytes = buffer().subarray(0, length);
      this.#volume.medium.read(address, bytes);
    }
    this.#check(bytes, sum, `${length} bytes`);
    return bytes;
  }

  #check(data: Uint8Array, expected: number, what: string): void {
    if (!this.#verify) return;
    const found = crc32(data);
    if (found === expected) return;
    const hex = (sum: number) => sum.toString(16).padStart(8, '0');
    throw new VerifyError(`CRC-32 of ${what} of ${this.#what}`, hex(expected), hex(found));
  }
}

/** An extent with its place in the stream. */
interface PlacedExtent extends ByteExtent {
  readonly start: number;
  isChecked: boolean;
}

function placed(extents: Iterable<ByteExtent>): PlacedExtent[] {
  let start = 0;
  return Array.from(extents, (extent) => {
    const at = { ...extent, start, isChecked: false };
    start += extent.length;
    return at;
  });
}

/** Index of the extent that holds a position, or their number where none does. */
function indexOf(extents: readonly PlacedExtent[], position: number): number {
  let [low, high] = [0, extents.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const { start, length } = extents[middle]!;
    if (start + length > position) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** An object that is being loaded. */
export class ObjectLoad extends ObjectReader {
  readonly #finish: () => void;

  constructor(finish: () => void, ...args: ConstructorParameters<typeof ObjectReader>) {
    super(...args);
    this.#finish = finish;
  }

  /** Frees the object, also what was not read of it. */
  finishLoadObject(): void {
    this.#finish();
  }
}

/** A node that is being loaded, and so off the list. */
export class NodeLoad {
  readonly #volume: Volume;
  readonly #options: NodeLoadOptions;
  #entry: Entry;
  #node: Node;
  readonly #objects: Iterator<ObjectEntry>;
  #object: ObjectLoad | undefined;
  /** Number of the next object. */
  #next = 0;
  #isOpen = true;

  constructor(volume: Volume, entry: Entry, options: NodeLoadOptions) {
    this.#volume = volume;
    this.#options = options;
    this.#entry = entry;
    this.#node = entry.node!;
    this.#objects = readObjects(volume.medium, this.#node);
    for (; this.#next < this.#node.objectsTaken; this.#next++) this.#objects.next();
    volume.loading.add(entry.id);
  }

  get node(): Node {
    return this.#node;
  }

  /** Takes the next object. One is loaded at a time. @returns undefined after the last one */
  prepareLoadObject(): ObjectLoad | undefined {
    this.#demandOpen('prepareLoadObject');
    if (this.#object !== undefined) throw new OrderError('prepareLoadObject: the object before is not finished');
    const next = this.#objects.next();
    if (next.done === true) return undefined;
    const [number, entry] = [this.#next++, next.value];
    const demandOpen = (call: string) => {
      this.#demandOpen(call);
      if (this.#object !== object) throw new OrderError(`${call}: the object is finished`);
    };
    const finish = () => {
      demandOpen('finishLoadObject');
      this.#object = undefined;
      this.#take(entry);
    };
    const of = { node: this.#node, object: entry, number };
    const object: ObjectLoad = new ObjectLoad(finish, this.#volume, of, this.#options.verify === true, demandOpen);
    this.#object = object;
    return object;
  }

  /** The objects that are left, each finished when the next one is asked for; those not reached are not. */
  async *objects(): AsyncGenerator<ObjectLoad> {
    for (let object = this.prepareLoadObject(); object !== undefined; object = this.prepareLoadObject()) {
      yield object;
      if (this.#object === object) object.finishLoadObject();
    }
  }

  /** Removes what is left of the node for good. */
  finishLoad(): void {
    this.#demandOpen('finishLoad');
    if (this.#object !== undefined) throw new OrderError('finishLoad: an object is not finished');
    this.#volume.remove(this.#entry, this.#options.wipe === true);
    this.#close();
  }

  /** Puts what was not finished back on the list. */
  [Symbol.dispose](): void {
    if (this.#isOpen) this.#close();
  }

  #take(object: ObjectEntry): void {
    if (this.#options.wipe) return;
    const { medium } = this.#volume;
    const runs: Run[] = [];
    walkObject(medium, this.#node.id, object, (run) => runs.push(run));
    const old = { first: this.#entry.address / PAGE_SIZE, count: 1 };
    const node = { ...this.#node, objectsTaken: this.#next };
    let address: number;
    try {
      address = this.#volume.allocatePage();
    } catch (error) {
      // In a full medium nothing can be noted; finishLoad() will free it with the rest.
      if (error instanceof NoRoomError) return;
      throw error;
    }
    writeNode(medium, address, node);
    const held = this.#entry.held - runs.reduce((sum, { count }) => sum + count * PAGE_SIZE, 0);
    const entry = { ...this.#entry, address, node, held };
    this.#volume.replace(entry);
    [this.#entry, this.#node] = [entry, node];
    this.#volume.giveBack([...runs, old]);
  }

  #demandOpen(call: string): void {
    if (!this.#isOpen) throw new OrderError(`${call}: the load of ${JSON.stringify(this.#node.name)} is over`);
    this.#volume.demandOpen();
  }

  #close(): void {
    this.#isOpen = false;
    this.#volume.loading.delete(this.#entry.id);
  }
}

/** A node that is looked into and stays. */
export class NodePeek {
  readonly node: Node;
  readonly #volume: Volume;
  readonly #id: number;
  readonly #verify: boolean;
  #isOpen = true;

  constructor(volume: Volume, { id, node }: Entry, { verify = false }: LoadOptions) {
    this.node = node!;
    this.#volume = volume;
    this.#id = id;
    this.#verify = verify;
    volume.peeking.set(id, (volume.peeking.get(id) ?? 0) + 1);
  }

  /** Readers of its objects, each to be used in any order and until this is disposed of. */
  *objects(): Generator<ObjectReader> {
    const demandOpen = (call: string) => {
      if (!this.#isOpen) throw new OrderError(`${call}: the node is not open any more`);
      this.#volume.demandOpen();
    };
    let number = 0;
    for (const object of readObjects(this.#volume.medium, this.node)) {
      const of = { node: this.node, object, number: number++ };
      if (of.number < this.node.objectsTaken) continue;
      demandOpen('objects');
      yield new ObjectReader(this.#volume, of, this.#verify, demandOpen);
    }
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const left = this.#volume.peeking.get(this.#id)! - 1;
    if (left > 0) this.#volume.peeking.set(this.#id, left);
    else this.#volume.peeking.delete(this.#id);
  }
}
