/**
 * The superblock: what the medium is made of, and where the node list begins. There are two slots at the beginning of the
 * medium, written in turns. A commit is the write of one slot; if it is cut off, its checksum is wrong and the other slot counts,
 * whose pages nobody has touched since.
 *
 *     0        4 KiB                64 KiB      68 KiB              128 KiB
 *     | block 0 | ranges ...        | block 1   | ranges ...        | pages ...
 */
import { crc32 } from '../crc32.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import * as format from './format.ts';
import type { Medium, MediumRange } from './medium.ts';

export interface Superblock {
  readonly sequence: number;
  readonly uuid: Uint8Array;
  readonly ranges: readonly MediumRange[];
  /** Address of the first page of the node list, 0 for an empty one. */
  readonly nodeList: number;
  readonly nodeCount: number;
  /** Greater than the id of any node. */
  readonly nextId: number;
  /** What wrote it, and under which kernel. */
  readonly writer: string;
  readonly kernel: string;
}

/**
 * Reads the slot that counts.
 *
 * @throws FormatError where neither is one, UnsupportedError for another version of the format
 */
export function readSuperblock(medium: Medium): Superblock {
  const slots = [0, 1].map((slot) => {
    const bytes = new Uint8Array(format.SLOT_SIZE);
    medium.read(slot * format.SLOT_SIZE, bytes);
    return attempt(() => parseSlot(medium, slot * format.SLOT_SIZE, bytes));
  });
  const whole = slots.filter((slot): slot is Slot => !(slot instanceof FormatError));
  const [latest] = whole.sort((a, b) => b.block.sequence - a.block.sequence);
  if (latest === undefined) throw slots[0];
  const { block, table } = latest;
  refuseOther(medium, block);
  return {
    sequence: block.sequence,
    uuid: block.uuid,
    ranges: parseRanges(medium, block, table),
    nodeList: block.node_list,
    nodeCount: block.node_count,
    nextId: block.next_id,
    writer: block.writer,
    kernel: block.kernel,
  };
}

/** Writes a superblock into the slot of its sequence; when this returns it is the one that counts. */
export function writeSuperblock(medium: Medium, of: Superblock): void {
  if (of.ranges.length > format.MAX_RANGES) {
    throw new UnsupportedError({
      what: `a medium of ${of.ranges.length} ranges`,
      why: `its table has room for ${format.MAX_RANGES}`,
      remedy: 'use memory that is less scattered: reserve huge pages early after boot',
    });
  }
  const slot = new Uint8Array(PAGE_SIZE + of.ranges.length * format.range_entry.size);
  for (const [i, { start, size }] of of.ranges.entries()) {
    format.range_entry.write({ start, pages: size / PAGE_SIZE }, slot, PAGE_SIZE + i * format.range_entry.size);
  }
  const fields = {
    magic: format.SUPERBLOCK_MAGIC,
    version_major: format.VERSION_MAJOR,
    version_minor: format.VERSION_MINOR,
    page_size: PAGE_SIZE,
    sequence: of.sequence,
    uuid: of.uuid,
    range_count: of.ranges.length,
    range_crc32: crc32(slot.subarray(PAGE_SIZE)),
    node_list: of.nodeList,
    node_count: of.nodeCount,
    next_id: of.nextId,
    writer: of.writer.slice(0, 32),
    kernel: of.kernel.slice(0, 64),
  };
  format.superblock.write(fields, slot);
  format.seal(slot.subarray(0, PAGE_SIZE));
  medium.sync();
  medium.write((of.sequence % 2) * format.SLOT_SIZE, slot);
  medium.sync();
}

type Block = ReturnType<typeof format.superblock.read>;

interface Slot {
  readonly block: Block;
  readonly table: Uint8Array;
}

function parseSlot(medium: Medium, at: number, bytes: Uint8Array): Slot {
  const { offsets } = format.superblock;
  const block = format.parse(format.superblock, bytes, 0, medium.name, at);
  if (block.magic !== format.SUPERBLOCK_MAGIC) {
    const found = Buffer.from(bytes.subarray(0, 8)).toString('hex');
    format.damaged(medium, at + offsets.magic, 'magic', '"TIDEPKRM", preserved memory', found);
  }
  if (!format.isSealed(bytes)) {
    format.damaged(medium, at + format.CRC_AT, 'crc32', 'the checksum of the superblock', 'another one');
  }
  // What another major version has behind its superblock is not for us to check.
  if (block.version_major !== format.VERSION_MAJOR) return { block, table: bytes.subarray(0, 0) };
  if (block.range_count > format.MAX_RANGES) {
    format.damaged(medium, at + offsets.range_count, 'range_count', `at most ${format.MAX_RANGES}`, block.range_count);
  }
  const table = bytes.subarray(PAGE_SIZE, PAGE_SIZE + block.range_count * format.range_entry.size);
  if (crc32(table) !== block.range_crc32) {
    format.damaged(medium, at + offsets.range_crc32, 'range_crc32', 'the checksum of the ranges', 'another one');
  }
  return { block, table };
}

function refuseOther(medium: Medium, { version_major, version_minor, page_size, flags, writer }: Block): void {
  const refuse = (why: string) => {
    const remedy = `use the tideover that wrote it (${JSON.stringify(writer)}) or a newer one`;
    throw new UnsupportedError({ what: `preserved memory in ${medium.name}`, why, remedy });
  };
  if (version_major !== format.VERSION_MAJOR) {
    refuse(`it is of version ${version_major}.${version_minor}, and this program knows ${format.VERSION_MAJOR}`);
  }
  if (page_size !== PAGE_SIZE) refuse(`its pages have ${page_size} bytes, and here they have ${PAGE_SIZE}`);
  if (flags !== 0n) refuse(`it has a feature that this program does not know (flags 0x${flags.toString(16)})`);
}

function parseRanges(medium: Medium, { range_count }: Block, table: Uint8Array): MediumRange[] {
  return Array.from({ length: range_count }, (_, i) => {
    const at = i * format.range_entry.size;
    const { start, pages, flags } = format.parse(format.range_entry, table, at, medium.name, PAGE_SIZE);
    if (start % PAGE_SIZE !== 0 || pages === 0 || flags !== 0) {
      const found = `start 0x${start.toString(16)}, ${pages} pages, flags ${flags}`;
      format.damaged(medium, PAGE_SIZE + at, `range ${i}`, 'whole pages without flags', found);
    }
    return { start, size: pages * PAGE_SIZE };
  });
}

function attempt<T>(read: () => T): T | FormatError {
  try {
    return read();
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
}
