/** A node's own page and its object list: what a node is, and which pages of the medium it holds. */
import { bytesOf } from '../abi/text.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import * as format from './format.ts';
import type { Medium } from './medium.ts';
import type { Run } from './space.ts';

export interface Node {
  readonly id: number;
  readonly name: string;
  /** What the one who saved it says of its content: `bytes`, `files`, ... */
  readonly content: string;
  /** When its save was finished. */
  readonly created: Date;
  /** Program that saved it. */
  readonly writer: string;
  /** Extents have the CRC-32 of their data. */
  readonly checksums: boolean;
  readonly objectCount: number;
  /** Objects from the first on that were loaded and are gone. */
  readonly objectsTaken: number;
  /** In all page streams. */
  readonly pageCount: number;
  /** In all byte streams. */
  readonly byteCount: number;
  /** Address of the first page of the object list. */
  readonly objects: number;
}

/** An object as the object list has it: where its streams are. */
export interface ObjectEntry {
  readonly pages: number;
  readonly page_extents: number;
  readonly page_count: number;
  readonly bytes: number;
  readonly byte_extents: number;
  readonly byte_count: number;
}

export interface PageExtent {
  readonly index: bigint;
  readonly address: number;
  readonly pages: number;
  readonly flags: number;
  readonly crc32: number;
}

export interface ByteExtent {
  readonly address: number;
  readonly length: number;
  readonly crc32: number;
}

/** Pages of a node, of metadata or of data. */
export interface NodeRun extends Run {
  readonly metadata: boolean;
}

const CONTENT_MAX = 32;

/** @throws UnsupportedError for what cannot be a node's name */
export function checkName(name: string): void {
  const length = bytesOf(name).length;
  const why =
    length === 0
      ? 'it is empty'
      : length > format.NAME_MAX
        ? `it has ${length} bytes, and at most ${format.NAME_MAX} are possible`
        : !name.isWellFormed() || name.includes('\0')
          ? 'it is no text in UTF-8 without NUL'
          : undefined;
  if (why === undefined) return;
  throw new UnsupportedError({ what: `the node name ${JSON.stringify(name)}`, why, remedy: 'give another name' });
}

/** Writes a node's own page. */
export function writeNode(medium: Medium, address: number, node: Node): void {
  const page = new Uint8Array(PAGE_SIZE);
  const name = bytesOf(node.name);
  format.node_page.write(
    {
      version_major: format.VERSION_MAJOR,
      version_minor: format.VERSION_MINOR,
      flags: node.checksums ? format.NODE_CHECKSUMS : 0,
      objects: node.objects,
      object_count: node.objectCount,
      objects_taken: node.objectsTaken,
      page_count: node.pageCount,
      byte_count: node.byteCount,
      created: Math.floor(node.created.getTime() / 1000),
      content: node.content.slice(0, CONTENT_MAX),
      writer: node.writer.slice(0, CONTENT_MAX),
      name_length: name.length,
    },
    page,
    format.ENTRIES_AT,
  );
  page.set(name, format.NAME_AT);
  format.writePage(medium, page, { kind: format.KIND_NODE, owner: node.id, address });
}

/** @throws FormatError, UnsupportedError for a node of another version */
export function readNode(medium: Medium, address: number, id: number): Node {
  const { page } = format.readPage(medium, address, format.KIND_NODE, id);
  const fields = format.parse(format.node_page, page, format.ENTRIES_AT, medium.name, address);
  const { offsets } = format.node_page;
  const place = (field: keyof typeof offsets) => address + format.ENTRIES_AT + offsets[field];
  if (fields.name_length === 0 || fields.name_length > format.NAME_MAX) {
    format.damaged(medium, place('name_length'), 'name_length', `1 to ${format.NAME_MAX}`, fields.name_length);
  }
  const name = textOrDamaged(medium, address, page.subarray(format.NAME_AT, format.NAME_AT + fields.name_length));
  if (fields.version_major !== format.VERSION_MAJOR || (fields.flags & ~format.NODE_CHECKSUMS) !== 0) {
    throw new UnsupportedError({
      what: `node ${JSON.stringify(name)} in ${medium.name}`,
      why: `it is of version ${fields.version_major}.${fields.version_minor} with flags 0x${fields.flags.toString(16)}, and this program knows version ${format.VERSION_MAJOR}`,
      remedy: `use the tideover that wrote it (${JSON.stringify(fields.writer)}) or a newer one`,
    });
  }
  if (fields.objects_taken > fields.object_count) {
    format.damaged(
      medium,
      place('objects_taken'),
      'objects_taken',
      `at most ${fields.object_count}`,
      fields.objects_taken,
    );
  }
  return {
    id,
    name,
    content: fields.content,
    created: new Date(fields.created * 1000),
    writer: fields.writer,
    checksums: (fields.flags & format.NODE_CHECKSUMS) !== 0,
    objectCount: fields.object_count,
    objectsTaken: fields.objects_taken,
    pageCount: fields.page_count,
    byteCount: fields.byte_count,
    objects: fields.objects,
  };
}

/** The entries of a node's objects, those included that are taken. */
export function readObjects(
  medium: Medium,
  { id, objects, objectCount }: Node,
  onPage?: (address: number) => void,
): Generator<ObjectEntry> {
  const list = { kind: format.KIND_OBJECTS, entry: format.object_entry, first: objects, owner: id, count: objectCount };
  return format.readList(medium, list, onPage);
}

/** Extents of an object's page stream, checked. */
export function* readPageExtents(
  medium: Medium,
  owner: number,
  { pages, page_extents, page_count }: ObjectEntry,
  onPage?: (address: number) => void,
): Generator<PageExtent> {
  const list = { kind: format.KIND_PAGE_EXTENTS, entry: format.page_extent, first: pages, owner, count: page_extents };
  let sum = 0;
  for (const extent of format.readList(medium, list, onPage)) {
    const length = extent.pages * PAGE_SIZE;
    if (length === 0 || length > format.EXTENT_MAX || !format.isPlace(medium, extent.address, length)) {
      const found = `${extent.pages} pages at ${extent.address}`;
      format.damaged(medium, pages, 'page extent', `1 to ${format.EXTENT_MAX / PAGE_SIZE} pages in the medium`, found);
    }
    sum += extent.pages;
    yield extent;
  }
  if (sum !== page_count) format.damaged(medium, pages, 'page_count', `${sum}`, page_count);
}

/** Extents of an object's byte stream, checked. */
export function* readByteExtents(
  medium: Medium,
  owner: number,
  { bytes, byte_extents, byte_count }: ObjectEntry,
  onPage?: (address: number) => void,
): Generator<ByteExtent> {
  const list = { kind: format.KIND_BYTE_EXTENTS, entry: format.byte_extent, first: bytes, owner, count: byte_extents };
  let sum = 0;
  for (const extent of format.readList(medium, list, onPage)) {
    const { address, length } = extent;
    if (length === 0 || length > format.EXTENT_MAX || !format.isPlace(medium, address, length)) {
      const found = `${length} bytes at ${address}`;
      format.damaged(medium, bytes, 'byte extent', `1 to ${format.EXTENT_MAX} bytes in the medium`, found);
    }
    sum += length;
    yield extent;
  }
  if (sum !== byte_count) format.damaged(medium, bytes, 'byte_count', `${sum}`, byte_count);
}

/**
 * Goes over everything that a node holds but its own page and what its taken objects had.
 *
 * @param visit is told each run of pages before what stands in it is read; what it throws ends the walk
 * @throws FormatError where the node is damaged
 */
export function walkNode(medium: Medium, node: Node, visit: (run: NodeRun) => void): void {
  const one = (address: number) => visit({ first: address / PAGE_SIZE, count: 1, metadata: true });
  let number = 0;
  for (const object of readObjects(medium, node, one)) {
    if (number++ >= node.objectsTaken) walkObject(medium, node.id, object, visit);
  }
}

/** As walkNode(), over what one object holds. */
export function walkObject(medium: Medium, owner: number, object: ObjectEntry, visit: (run: NodeRun) => void): void {
  const one = (address: number) => visit({ first: address / PAGE_SIZE, count: 1, metadata: true });
  for (const { address, pages } of readPageExtents(medium, owner, object, one)) {
    visit({ first: address / PAGE_SIZE, count: pages, metadata: false });
  }
  for (const { address, length } of readByteExtents(medium, owner, object, one)) {
    visit({ first: address / PAGE_SIZE, count: Math.ceil(length / PAGE_SIZE), metadata: false });
  }
}

function textOrDamaged(medium: Medium, address: number, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    const found = Buffer.from(bytes).toString('hex');
    throw new FormatError({ file: medium.name, offset: address, field: 'name', expected: 'UTF-8', found });
  }
}
