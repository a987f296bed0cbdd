/**
 * What stands on the medium, byte by byte: docs/spec/pkram.md. All numbers are little-endian, all structures packed by their
 * natural alignment; a page of metadata ends with the CRC-32 of the rest of it.
 */

import {
  chars,
  type Fields,
  bytes as octets,
  type Struct,
  struct,
  u16,
  u32,
  u64,
  u64n,
  type ValueOf,
} from '../abi/struct.ts';
import { crc32 } from '../crc32.ts';
import { FormatError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { Medium } from './medium.ts';

/** Another major version cannot be read; another minor one can, and is kept to. */
export const VERSION_MAJOR = 1;
export const VERSION_MINOR = 0;

/** Two slots, each a superblock and the table of ranges behind it. */
export const SLOT_SIZE = 64 << 10;
/** Where pages begin that can be used. */
export const DATA_START = 2 * SLOT_SIZE;
export const CRC_AT = PAGE_SIZE - 4;
/** "TIDEPKRM" */
export const SUPERBLOCK_MAGIC = 0x4d52_4b50_4544_4954n;

export const superblock = struct('superblock', 176, {
  magic: u64,
  version_major: u16,
  version_minor: u16,
  page_size: u32,
  /** Of the two slots the one with the higher sequence counts. */
  sequence: u64n,
  uuid: octets(16),
  range_count: u32,
  range_crc32: u32,
  /** Address of the first page of the node list, 0 for an empty one. */
  node_list: u64n,
  node_count: u64n,
  /** Greater than that of any node. */
  next_id: u64n,
  writer: chars(32),
  /** uname -r of the kernel under which it was written. */
  kernel: chars(64),
  flags: u64,
});

export const range_entry = struct('range_entry', 16, { start: u64n, pages: u32, flags: u32 });
export const MAX_RANGES = (SLOT_SIZE - PAGE_SIZE) / range_entry.size;

/** At the beginning of each page of metadata but the superblock. */
export const page_header = struct('page_header', 40, {
  magic: u32,
  kind: u16,
  /** Bytes from one entry to the next. */
  entry_size: u16,
  count: u32,
  reserved: u32,
  /** Id of the node, or sequence of the superblock for the node list: a page of another time is not taken for it. */
  owner: u64n,
  /** Where the page stands itself. */
  address: u64n,
  /** The next page of the list, 0 in the last. */
  next: u64n,
});
/** "PKRP" */
export const PAGE_MAGIC = 0x50_52_4b_50;
export const ENTRIES_AT = 64;

export const KIND_NODE_LIST = 1;
export const KIND_NODE = 2;
export const KIND_OBJECTS = 3;
export const KIND_PAGE_EXTENTS = 4;
export const KIND_BYTE_EXTENTS = 5;

export const node_entry = struct('node_entry', 24, { node: u64n, id: u64n, flags: u32, reserved: u32 });
/** The node is removed, and its pages are still to be overwritten. */
export const NODE_WIPING = 1;

/** At ENTRIES_AT of a page of KIND_NODE; the name follows. */
export const node_page = struct('node_page', 128, {
  version_major: u16,
  version_minor: u16,
  flags: u32,
  objects: u64n,
  object_count: u64n,
  /** Objects from the first on that are loaded and whose pages are free. */
  objects_taken: u64n,
  page_count: u64n,
  byte_count: u64n,
  /** Seconds since 1970. */
  created: u64n,
  content: chars(32),
  writer: chars(32),
  name_length: u16,
});
/** Extents have the CRC-32 of their data. */
export const NODE_CHECKSUMS = 1;
export const NAME_AT = ENTRIES_AT + node_page.size;
export const NAME_MAX = 255;

export const object_entry = struct('object_entry', 48, {
  pages: u64n,
  page_extents: u64n,
  page_count: u64n,
  bytes: u64n,
  byte_extents: u64n,
  byte_count: u64n,
});

/** `pages` pages with indexes from `index` on, one after the other from `address` on. */
export const page_extent = struct('page_extent', 32, {
  index: u64,
  address: u64n,
  pages: u32,
  crc32: u32,
  flags: u16,
});

/** The next `length` bytes of the stream, from the beginning of a page on; the rest of the last page means nothing. */
export const byte_extent = struct('byte_extent', 16, { address: u64n, length: u32, crc32: u32 });

/** A reader needs no larger buffer to check an extent. */
export const EXTENT_MAX = 4 << 20;

/** Writes the CRC-32 at the end of a page. */
export function seal(page: Uint8Array): void {
  const view = new DataView(page.buffer, page.byteOffset, PAGE_SIZE);
  view.setUint32(CRC_AT, crc32(page.subarray(0, CRC_AT)), true);
}

/** Whether the CRC-32 at the end of a page is that of the rest. */
export function isSealed(page: Uint8Array): boolean {
  const view = new DataView(page.buffer, page.byteOffset, PAGE_SIZE);
  return view.getUint32(CRC_AT, true) === crc32(page.subarray(0, CRC_AT));
}

/** Reads a struct out of a page that stands at `address`. @throws FormatError where a number is beyond 2^53 */
export function parse<F extends Fields>(
  type: Struct<F>,
  page: Uint8Array,
  at: number,
  medium: string,
  address: number,
) {
  try {
    return type.read(page, at);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const [expected, found] = ['numbers below 2^53', error.message];
    throw new FormatError({ file: medium, offset: address + at, field: type.name, expected, found });
  }
}

/** Throws that a field at an address is not what it has to be. */
export function damaged(
  medium: Medium,
  offset: number,
  field: string,
  expected: string,
  found: string | number,
): never {
  throw new FormatError({ file: medium.name, offset, field, expected, found: String(found) });
}

/** Whether all of a place lies where pages may be, and begins with one. */
export function isPlace(medium: Medium, address: number, length: number): boolean {
  return address >= DATA_START && address % PAGE_SIZE === 0 && address + length <= medium.size;
}

/** Reads a page of metadata and checks that it is the one that is meant. */
export function readPage(medium: Medium, address: number, kind: number, owner: number) {
  if (!isPlace(medium, address, PAGE_SIZE)) damaged(medium, address, 'address of a page', 'one in the medium', address);
  const page = new Uint8Array(PAGE_SIZE);
  medium.read(address, page);
  const header = parse(page_header, page, 0, medium.name, address);
  const wrong = (field: keyof typeof header, expected: number) => {
    if (header[field] !== expected)
      damaged(medium, address + page_header.offsets[field], field, `${expected}`, header[field]);
  };
  wrong('magic', PAGE_MAGIC);
  if (!isSealed(page)) damaged(medium, address + CRC_AT, 'crc32', 'the checksum of the page', 'another one');
  wrong('kind', kind);
  wrong('address', address);
  wrong('owner', owner);
  return { header, page };
}

/** A list to read: where its first page is, what it holds and how much. */
export interface ListOf<F extends Fields> {
  readonly kind: number;
  readonly entry: Struct<F>;
  /** Address of the first page, 0 for an empty list. */
  readonly first: number;
  readonly owner: number;
  /** Entries in all. */
  readonly count: number;
}

/** Reads the entries of a list. @param onPage is told the address of each page before its entries */
export function* readList<F extends Fields>(
  medium: Medium,
  { kind, entry, first, owner, count }: ListOf<F>,
  onPage: (address: number) => void = () => {},
): Generator<ValueOf<F>> {
  let left = count;
  for (let address = first; address !== 0; ) {
    const { header, page } = readPage(medium, address, kind, owner);
    onPage(address);
    // Each page has to bring the list nearer to its end, so that reading ends whatever the pages say.
    const { count: here, entry_size: stride } = header;
    if (here === 0 || here > left) damaged(medium, address + page_header.offsets.count, 'count', `1 to ${left}`, here);
    if (stride < entry.size || ENTRIES_AT + here * stride > CRC_AT) {
      damaged(
        medium,
        address + page_header.offsets.entry_size,
        'entry_size',
        `at least ${entry.size}, in the page`,
        stride,
      );
    }
    for (let i = 0; i < here; i++) yield parse(entry, page, ENTRIES_AT + i * stride, medium.name, address);
    left -= here;
    address = header.next;
  }
  if (left > 0) damaged(medium, first, 'list', `${count} entries`, count - left);
}

/** What a list needs of the struct of its entries. */
interface EntryType<T> {
  readonly size: number;
  write(value: Partial<T>, into: Uint8Array, at: number): unknown;
}

/** Writes a list as its entries come, page by page. A list without entries has no page. */
export class ListWriter<T> {
  readonly #medium: Medium;
  readonly #kind: number;
  readonly #entry: EntryType<T>;
  readonly #owner: number;
  readonly #allocatePage: () => number;
  readonly #page = new Uint8Array(PAGE_SIZE);
  readonly #perPage: number;
  #address = 0;
  #here = 0;
  /** Address of the first page, 0 as long as there is none. */
  first = 0;
  count = 0;

  /** @param allocatePage gives the address of a page to write to, or throws NoRoomError */
  constructor(medium: Medium, kind: number, entry: EntryType<T>, owner: number, allocatePage: () => number) {
    this.#medium = medium;
    this.#kind = kind;
    this.#entry = entry;
    this.#owner = owner;
    this.#allocatePage = allocatePage;
    this.#perPage = Math.floor((CRC_AT - ENTRIES_AT) / entry.size);
  }

  add(value: Partial<T>): void {
    if (this.#address === 0) {
      this.#address = this.#allocatePage();
      this.first = this.#address;
    } else if (this.#here === this.#perPage) {
      const next = this.#allocatePage();
      this.#write(next);
      this.#address = next;
    }
    this.#entry.write(value, this.#page, ENTRIES_AT + this.#here * this.#entry.size);
    this.#here++;
    this.count++;
  }

  /** Writes what is not written yet. */
  finish(): void {
    if (this.#address !== 0) this.#write(0);
  }

  #write(next: number): void {
    writePage(this.#medium, this.#page, {
      kind: this.#kind,
      entry_size: this.#entry.size,
      count: this.#here,
      owner: this.#owner,
      address: this.#address,
      next,
    });
    this.#page.fill(0);
    this.#here = 0;
  }
}

interface PageHeader {
  readonly kind: number;
  readonly owner: number;
  readonly address: number;
  readonly entry_size?: number;
  readonly count?: number;
  readonly next?: number;
}

/** Puts a header on a page of metadata, seals it and writes it. */
export function writePage(medium: Medium, page: Uint8Array, header: PageHeader): void {
  page_header.write({ magic: PAGE_MAGIC, ...header }, page);
  seal(page);
  medium.write(header.address, page);
}
