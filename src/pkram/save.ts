/**
 * Saving a node: prepareSave, then for each object prepareSaveObject, savePage and write, finishSaveObject, then finishSave.
 * Nothing of a node is visible before finishSave(); discardSave(), disposal and the death of the process leave no trace of it.
 */
import { Writable } from 'node:stream';
import { crc32 } from '../crc32.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { NoRoomError, OrderError } from './errors.ts';
import * as format from './format.ts';
import { type ByteExtent, checkName, type Node, type ObjectEntry, type PageExtent, writeNode } from './node.ts';
import { RunWriter } from './runwriter.ts';
import type { Run } from './space.ts';
import type { Volume } from './volume.ts';

export interface SaveOptions {
  /** What the node holds, for those who load it: a word of at most 32 ASCII characters. */
  readonly content?: string;
  /** Keep the CRC-32 of the data, so that loading can verify it. Costs its computation, 3 to 4 GB/s. */
  readonly checksums?: boolean;
}

/** A node that is being saved. */
export class NodeSave {
  readonly name: string;
  readonly #volume: Volume;
  readonly #id: number;
  readonly #options: SaveOptions;
  /** All that the node holds so far, to free it when it is discarded. */
  readonly #taken: Run[] = [];
  readonly #objects: format.ListWriter<ObjectEntry>;
  readonly #pages: RunWriter;
  readonly #bytes: RunWriter;
  #object: ObjectSave | undefined;
  #pageCount = 0;
  #byteCount = 0;
  #isOpen = true;
  #isFailed = false;

  constructor(volume: Volume, name: string, options: SaveOptions) {
    checkName(name);
    this.name = name;
    this.#volume = volume;
    this.#id = volume.nextId();
    this.#options = options;
    const page = () => this.#allocatePage();
    this.#objects = new format.ListWriter(volume.medium, format.KIND_OBJECTS, format.object_entry, this.#id, page);
    this.#pages = new RunWriter(volume, this.#taken);
    this.#bytes = new RunWriter(volume, this.#taken);
    volume.saving.add(name);
  }

  /** Begins the next object. One is saved at a time. */
  prepareSaveObject(): ObjectSave {
    this.#demandOpen('prepareSaveObject');
    if (this.#object !== undefined) throw new OrderError('prepareSaveObject: the object before is not finished');
    const { medium } = this.#volume;
    const page = () => this.#allocatePage();
    this.#object = new ObjectSave({
      pages: this.#pages,
      bytes: this.#bytes,
      pageExtents: new format.ListWriter(medium, format.KIND_PAGE_EXTENTS, format.page_extent, this.#id, page),
      byteExtents: new format.ListWriter(medium, format.KIND_BYTE_EXTENTS, format.byte_extent, this.#id, page),
      checksums: this.#options.checksums === true,
      demandOpen: (call) => this.#demandOpen(call),
      failed: () => {
        this.#isFailed = true;
      },
      finish: (object) => {
        this.#objects.add(object);
        this.#pageCount += object.page_count;
        this.#byteCount += object.byte_count;
        this.#object = undefined;
      },
    });
    return this.#object;
  }

  /**
   * Puts the node on the list, from this call on to be kept whatever happens.
   * @throws NoRoomError, and what the medium throws; the save is still to be discarded then
   */
  finishSave(): Node {
    this.#demandOpen('finishSave');
    if (this.#object !== undefined) throw new OrderError('finishSave: an object is not finished');
    this.#pages.finish();
    this.#bytes.finish();
    this.#objects.finish();
    const node: Node = {
      id: this.#id,
      name: this.name,
      content: this.#options.content ?? '',
      created: new Date(Math.floor(Date.now() / 1000) * 1000),
      writer: this.#volume.writer,
      checksums: this.#options.checksums === true,
      objectCount: this.#objects.count,
      objectsTaken: 0,
      pageCount: this.#pageCount,
      byteCount: this.#byteCount,
      objects: this.#objects.first,
    };
    const address = this.#allocatePage();
    writeNode(this.#volume.medium, address, node);
    const held = this.#taken.reduce((sum, { count }) => sum + count * PAGE_SIZE, 0);
    this.#volume.add({ id: this.#id, address, flags: 0, node, fault: undefined, held, runs: undefined });
    this.#close();
    return node;
  }

  /** Frees everything that was saved. After finishSave() an OrderError: then the node is to be removed. */
  discardSave(): void {
    this.#isFailed = false;
    this.#demandOpen('discardSave');
    this.#close();
    // What a superblock of unknown state may reach is not to be written over.
    if (this.#volume.frozen === undefined) this.#volume.giveBack(this.#taken);
  }

  /** Discards the save where it is not finished. With a closed medium it stays one of those that were not: nobody gives back its pages. */
  [Symbol.dispose](): void {
    if (this.#isOpen && !this.#volume.isClosed) this.discardSave();
  }

  #allocatePage(): number {
    const take = () => {
      const run = this.#volume.allocate(1);
      this.#taken.push(run);
      return run.first * PAGE_SIZE;
    };
    try {
      return take();
    } catch (error) {
      if (!(error instanceof NoRoomError)) throw error;
      // What is at hand for data may be the last that is free.
      this.#pages.finish();
      this.#bytes.finish();
      return take();
    }
  }

  #demandOpen(call: string): void {
    if (!this.#isOpen) throw new OrderError(`${call}: the save of ${JSON.stringify(this.name)} is over`);
    if (this.#isFailed) throw new OrderError(`${call}: a call before has failed, and the save is to be discarded`);
    this.#volume.demandOpen();
  }

  #close(): void {
    this.#isOpen = false;
    this.#volume.saving.delete(this.name);
  }
}

/** What an object has of its node's save. */
interface NodePart {
  readonly pages: RunWriter;
  readonly bytes: RunWriter;
  readonly pageExtents: format.ListWriter<PageExtent>;
  readonly byteExtents: format.ListWriter<ByteExtent>;
  readonly checksums: boolean;
  demandOpen(call: string): void;
  /** The save cannot be finished any more. */
  failed(): void;
  finish(object: ObjectEntry): void;
}

/** An object that is being saved: pages and bytes, each a stream of its own, written in any turns. */
export class ObjectSave {
  readonly #node: NodePart;
  #pageExtent: { index: bigint; address: number; pages: number; flags: number; crc32: number } | undefined;
  #byteExtent: { address: number; length: number; crc32: number } | undefined;
  #pageCount = 0;
  #byteCount = 0;
  #isOpen = true;

  constructor(node: NodePart) {
    this.#node = node;
  }

  /**
   * Adds a page to the page stream.
   *
   * @param page 4096 bytes, which may be used again when this returns
   * @param index 64 bits that are the caller's, such as the page's place in a file; in any order
   * @param flags 16 bits that are the caller's
   * @throws NoRoomError
   */
  savePage(page: Uint8Array, index: number | bigint, flags = 0): void {
    if (page.length !== PAGE_SIZE) throw new RangeError(`${page.length} bytes are not a page`);
    this.savePages(page, index, flags);
  }

  /** Adds several pages with indexes from `index` on: much faster than one by one. @throws NoRoomError */
  savePages(pages: Uint8Array, index: number | bigint, flags = 0): void {
    this.#demandOpen('savePage');
    const count = pages.length / PAGE_SIZE;
    let next = BigInt(index);
    if (!Number.isInteger(count)) throw new RangeError(`${pages.length} bytes are not whole pages`);
    if (next < 0n || next + BigInt(count) > 1n << 64n) throw new RangeError(`${index} is not an index of 64 bits`);
    if (!(Number.isInteger(flags) && flags >= 0 && flags <= 0xffff)) throw new RangeError(`${flags} are not 16 flags`);
    this.#try(() => {
      this.#node.pages.put(pages, (address, piece) => {
        this.#placePages(address, piece, next, flags);
        next += BigInt(piece.length / PAGE_SIZE);
      });
      this.#pageCount += count;
    });
  }

  /** Adds bytes to the byte stream. @throws NoRoomError */
  write(bytes: Uint8Array): void {
    this.#demandOpen('write');
    this.#try(() => {
      this.#node.bytes.put(bytes, (address, piece) => this.#placeBytes(address, piece));
      this.#byteCount += bytes.length;
    });
  }

  /** The byte stream as a stream of Node's. Its end does not finish the object. */
  writable(): Writable {
    return new Writable({
      write: (chunk: Uint8Array, _encoding, done) => {
        try {
          this.write(chunk);
          done();
        } catch (error) {
          done(error as Error);
        }
      },
    });
  }

  finishSaveObject(): void {
    this.#demandOpen('finishSaveObject');
    this.#try(() => {
      if (this.#pageExtent !== undefined) this.#node.pageExtents.add(this.#pageExtent);
      if (this.#byteExtent !== undefined) this.#node.byteExtents.add(this.#byteExtent);
      this.#node.bytes.align();
      this.#node.pageExtents.finish();
      this.#node.byteExtents.finish();
      this.#node.finish({
        pages: this.#node.pageExtents.first,
        page_extents: this.#node.pageExtents.count,
        page_count: this.#pageCount,
        bytes: this.#node.byteExtents.first,
        byte_extents: this.#node.byteExtents.count,
        byte_count: this.#byteCount,
      });
    });
    this.#isOpen = false;
  }

  #placePages(address: number, piece: Uint8Array, index: bigint, flags: number): void {
    const pages = piece.length / PAGE_SIZE;
    const last = this.#pageExtent;
    if (
      last !== undefined &&
      last.flags === flags &&
      last.index + BigInt(last.pages) === index &&
      last.address + last.pages * PAGE_SIZE === address &&
      (last.pages + pages) * PAGE_SIZE <= format.EXTENT_MAX
    ) {
      last.pages += pages;
      last.crc32 = this.#sum(piece, last.crc32);
      return;
    }
    if (last !== undefined) this.#node.pageExtents.add(last);
    this.#pageExtent = { index, address, pages, flags, crc32: this.#sum(piece, 0) };
  }

  #placeBytes(address: number, piece: Uint8Array): void {
    let rest = piece;
    const last = this.#byteExtent;
    if (last !== undefined && last.address + last.length === address) {
      // Filled to the brim, so that the next one begins with a page.
      const more = rest.subarray(0, format.EXTENT_MAX - last.length);
      last.length += more.length;
      last.crc32 = this.#sum(more, last.crc32);
      rest = rest.subarray(more.length);
      if (rest.length === 0) return;
    }
    if (last !== undefined) this.#node.byteExtents.add(last);
    const at = address + piece.length - rest.length;
    this.#byteExtent = { address: at, length: rest.length, crc32: this.#sum(rest, 0) };
  }

  #sum(piece: Uint8Array, sum: number): number {
    return this.#node.checksums ? crc32(piece, sum) : 0;
  }

  #demandOpen(call: string): void {
    if (!this.#isOpen) throw new OrderError(`${call}: the object is finished`);
    this.#node.demandOpen(call);
  }

  #try(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#node.failed();
      throw error;
    }
  }
}
