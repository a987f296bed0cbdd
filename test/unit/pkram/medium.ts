/** Media in memory for the tests, one that can die at any step; and what a node holds, to compare. */

import { FormatError } from '../../../src/errors.ts';
import { type NodeSave, openPkram, type Pkram, Volume } from '../../../src/pkram/index.ts';
import type { Medium, MediumRange } from '../../../src/pkram/medium.ts';

export class MemoryMedium implements Medium {
  readonly name = 'memory';
  readonly writable: boolean = true;
  bytes: Uint8Array;
  readonly #max: number;
  #size: number;

  /** @param max how far it grows */
  constructor(bytes: Uint8Array, max = bytes.length) {
    this.bytes = bytes;
    this.#size = bytes.length;
    this.#max = max;
  }

  static formatted(size: number, max = size): MemoryMedium {
    const medium = new MemoryMedium(new Uint8Array(size), max);
    Volume.format(medium);
    return medium;
  }

  get size(): number {
    return this.#size;
  }

  get ranges(): readonly MediumRange[] {
    return [{ start: 0, size: this.#size }];
  }

  attach(ranges: readonly MediumRange[]): void {
    const size = ranges[0]?.size ?? 0;
    if (ranges.length !== 1 || size > this.bytes.length) {
      const [expected, found] = [`one of ${this.bytes.length} bytes`, `${ranges.length}`];
      throw new FormatError({ file: this.name, field: 'ranges', expected, found });
    }
    this.#size = size;
  }

  read(address: number, into: Uint8Array): void {
    if (address < 0 || address + into.length > this.bytes.length) throw new Error('read outside');
    into.set(this.bytes.subarray(address, address + into.length));
  }

  write(address: number, bytes: Uint8Array): void {
    if (address < 0 || address + bytes.length > this.#size) throw new Error('write outside');
    this.bytes.set(bytes, address);
  }

  view(_address: number, _length: number): Uint8Array | undefined {
    return undefined;
  }

  sync(): void {}

  grow(bytes: number): boolean {
    if (this.#size + bytes > this.#max) return false;
    this.#size = Math.min(this.#max, this.#size + bytes + (64 << 10));
    const grown = new Uint8Array(Math.max(this.#size, this.bytes.length));
    grown.set(this.bytes);
    this.bytes = grown;
    return true;
  }

  /** Nobody may need what is there any more. */
  release(address: number, length: number): void {
    this.bytes.fill(0xee, address, address + length);
  }

  close(): void {}
}

export class Killed extends Error {}

/**
 * Dies at a step (a write, a sync or a release), after which nothing reaches it. `ordered`: as when a process is killed; a part of
 * the write at which it dies is there. Else as when the power goes: of what was not synced any part is there, in any order.
 */
export class MortalMedium extends MemoryMedium {
  /** Steps taken. */
  steps = 0;
  readonly #dieAt: number;
  readonly #ordered: boolean;
  readonly #random: () => number;
  #pending: { address: number; bytes: Uint8Array }[] = [];
  #durable: Uint8Array;

  constructor(bytes: Uint8Array, dieAt: number, ordered: boolean, random: () => number, max?: number) {
    super(bytes.slice(), max);
    this.#dieAt = dieAt;
    this.#ordered = ordered;
    this.#random = random;
    this.#durable = bytes.slice();
  }

  override write(address: number, bytes: Uint8Array): void {
    this.#step({ address, bytes: bytes.slice() });
    super.write(address, bytes);
  }

  override release(address: number, length: number): void {
    const bytes = new Uint8Array(length).fill(0xee);
    this.#step({ address, bytes });
    super.write(address, bytes);
  }

  override sync(): void {
    this.#step(undefined);
    for (const write of this.#pending) this.#apply(write.address, write.bytes);
    this.#pending = [];
  }

  /** What is found afterwards. */
  remains(): Uint8Array {
    for (const { address, bytes } of this.#pending) {
      // Memory is torn at a cache line, a disk at a sector or a page.
      if (this.#ordered) this.#apply(address, bytes);
      else if (this.#random() < 0.5) this.#apply(address, this.#torn(bytes));
    }
    return this.#durable;
  }

  #torn(bytes: Uint8Array): Uint8Array {
    return bytes.subarray(0, Math.ceil((bytes.length * this.#random()) / 64) * 64);
  }

  #apply(address: number, bytes: Uint8Array): void {
    if (address + bytes.length > this.#durable.length) {
      const grown = new Uint8Array(this.bytes.length);
      grown.set(this.#durable);
      this.#durable = grown;
    }
    this.#durable.set(bytes, address);
  }

  #step(write: { address: number; bytes: Uint8Array } | undefined): void {
    if (this.steps > this.#dieAt) throw new Killed();
    if (this.steps++ === this.#dieAt) {
      if (write !== undefined) this.#pending.push({ address: write.address, bytes: this.#torn(write.bytes) });
      throw new Killed();
    }
    if (write !== undefined) this.#pending.push(write);
  }
}

/** Numbers from 0 to before 1 that are the same each time (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Runs of pages, each filled with one byte, and a byte stream. */
export interface ObjectContent {
  readonly pages: readonly { index: bigint; flags: number; fill: readonly number[] }[];
  readonly bytes: Uint8Array;
}

export function saveObjects(save: NodeSave, objects: readonly ObjectContent[], piece = 3000): void {
  for (const { pages, bytes } of objects) {
    const object = save.prepareSaveObject();
    for (const { index, flags, fill } of pages) object.savePages(pagesOf(fill), index, flags);
    for (let at = 0; at < bytes.length; at += piece) object.write(bytes.subarray(at, at + piece));
    object.finishSaveObject();
  }
}

export function saveNode(pkram: Pkram, name: string, objects: readonly ObjectContent[], checksums = true): void {
  const save = pkram.prepareSave(name, { checksums });
  try {
    saveObjects(save, objects);
    save.finishSave();
  } finally {
    disposeQuietly(save);
  }
}

function disposeQuietly(save: NodeSave): void {
  try {
    save[Symbol.dispose]();
  } catch (error) {
    // The medium is dead.
    if (!(error instanceof Killed)) throw error;
  }
}

/** What a node holds, page by page, in a form that deepEqual compares. */
export function contentOf(pkram: Pkram, name: string): unknown[] {
  const peek = pkram.peek(name, { verify: true });
  try {
    return [...peek.objects()].map((object) => {
      const pages: unknown[] = [];
      for (let page = object.loadPage(); page !== undefined; page = object.loadPage()) {
        pages.push([page.index, page.flags, page.page[0], Buffer.compare(page.page, pageOf(page.page[0]!)) === 0]);
      }
      return { pages, bytes: Buffer.from(object.readAll()).toString('latin1') };
    });
  } finally {
    peek[Symbol.dispose]();
  }
}

/** What contentOf() gives for it. */
export function expected(objects: readonly ObjectContent[]): unknown[] {
  return objects.map(({ pages, bytes }) => ({
    pages: pages.flatMap(({ index, flags, fill }) => fill.map((byte, i) => [index + BigInt(i), flags, byte, true])),
    bytes: Buffer.from(bytes).toString('latin1'),
  }));
}

export function open(bytes: Uint8Array, max?: number): Pkram {
  return openPkram(new MemoryMedium(bytes, max));
}

const filled = new Map<number, Uint8Array>();

/** A page filled with a byte. */
function pageOf(byte: number): Uint8Array {
  const page = filled.get(byte) ?? new Uint8Array(4096).fill(byte);
  filled.set(byte, page);
  return page;
}

function pagesOf(fill: readonly number[]): Uint8Array {
  const pages = new Uint8Array(fill.length * 4096);
  for (const [i, byte] of fill.entries()) pages.fill(byte, i * 4096, (i + 1) * 4096);
  return pages;
}
