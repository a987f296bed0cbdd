/**
 * A hibernated machine: a kdump-compressed dump of a kernel that is to go on (src/crash/kdump/format.ts), with a checksum for each
 * page, and what it takes to wake it. Where the dump's first block is empty stand
 *
 *     0      main header of the dump
 *     512    seal: a digest of all but the pages. Written last: without it this is no image
 *     3584   state: one sector of a disk, which is written whole or not at all
 *     4096   rest of the dump's head, pages
 *
 * and among its notes the description. Programs that read dumps see neither.
 */
import { createHash } from 'node:crypto';
import type { Note } from '../abi/elfnote.ts';
import { bytes, struct, u32, u64n } from '../abi/struct.ts';
import { readExactly } from '../crash/bytes.ts';
import { checksum } from '../crash/io/codecs.ts';
import type { Output } from '../crash/io/output.ts';
import type { Reader } from '../crash/io/reader.ts';
import { openKdump } from '../crash/kdump/reader.ts';
import type { PageSource } from '../crash/source.ts';
import { FormatError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { E820Entry } from '../mem/e820.ts';
import { overlaps, type Range } from '../mem/range.ts';

import type { FileSystemMark } from './marks.ts';

const NOTE_NAME = 'TIDEOVER';
const NT_HIBERNATION = 1;
const VERSION = 1;

/** What a machine must be for its memory to be put into it, and how it goes on. All addresses are physical. */
export interface Description {
  /** 32 random hex digits. */
  readonly id: string;
  /** When it was saved: milliseconds since 1970. */
  readonly saved: number;
  /** Where its kernel takes over again. */
  readonly entry: number;
  /** Where the saving kernel lived, and the restoring one must live: this memory is not in the image. */
  readonly region: Range;
  /** Its kernel has page tables of 5 levels. */
  readonly fiveLevel: boolean;
  /** `uname -r` of it, and of the kernel that saved it. */
  readonly release: string;
  readonly saver: string;
  readonly cpu: {
    readonly vendor: string;
    readonly model: string;
    readonly count: number;
    /** As the saving kernel names them. */
    readonly features: readonly string[];
  };
  /** The firmware's map of memory, sorted. */
  readonly firmware: readonly E820Entry[];
  /** File systems that it had mounted, as it left them. */
  readonly fileSystems: readonly FileSystemMark[];
  /** Where a word to the process that waits there is left, and what stands there before it. */
  readonly mailbox: { readonly address: number; readonly cookie: string };
}

const STATES = ['ready', 'used', 'failed', 'tested'] as const;
/**
 * `failed`: it could not be restored and is not tried again by itself. `tested`: its machine went on at once, and what it knows of
 * its file systems is no longer true. Only one that is `ready` may be resumed.
 */
export type State = (typeof STATES)[number];

export interface Image {
  readonly description: Description;
  readonly state: State;
  /** Bytes of it. */
  readonly size: number;
  /** Its pages; to be closed. */
  readonly source: PageSource;
}

const SEAL_AT = 512;
const STATE_AT = 3584;
const SECTOR = 512;
const MAGIC = 'TIDEOVER HIBERN\0';

const seal = struct('seal', 80, {
  magic: bytes(16),
  version: u32,
  /** CRC-32 of the rest. */
  checksum: u32,
  /** Up to the first page, and all of it. */
  head_size: u64n,
  file_size: u64n,
  /** SHA-256 of the first 512 bytes and of those from 4096 to head_size. */
  sha256: bytes(32),
  reserved: u64n,
});

/** The note that goes into the dump. */
export function descriptionNote(description: Description): Note {
  return { name: NOTE_NAME, type: NT_HIBERNATION, desc: Buffer.from(JSON.stringify(description)) };
}

/** Makes sure that no image is found here from now on. The caller syncs. @param ticket to find this place by */
export function clearImage(output: Output, ticket = ''): void {
  const block = Buffer.alloc(PAGE_SIZE);
  block.write(ticket, SEAL_AT, 'latin1');
  output.write(0, block);
}

/** As clearImage(), and a later boot is told that there was to be an image. */
export function beginImage(output: Output): void {
  const block = Buffer.alloc(PAGE_SIZE);
  block.write(stateText('unfinished'), STATE_AT, 'latin1');
  output.write(0, block);
}

/** What clearImage() left in a first block. */
export function ticketOf(block: Uint8Array): string {
  const text = Buffer.from(block.buffer, block.byteOffset + SEAL_AT, SECTOR).toString('latin1');
  return text.slice(0, text.indexOf('\0'));
}

/**
 * Makes an image of a dump that is whole and on the disk. The caller syncs.
 *
 * @param headSize bytes before the first page @param fileSize bytes in all
 */
export function sealImage(reader: Reader, output: Output, headSize: number, fileSize: number, state: State): void {
  // The state first: a seal without it is of no use, but the other way round neither is taken for an image.
  writeState(output, state);
  const sector = new Uint8Array(SECTOR);
  const sealed = { head_size: headSize, file_size: fileSize, sha256: headDigest(reader, headSize) };
  seal.write({ magic: Buffer.from(MAGIC, 'latin1'), version: VERSION, ...sealed }, sector);
  new DataView(sector.buffer).setUint32(seal.offsets.checksum, sealChecksum(sector), true);
  output.write(SEAL_AT, sector);
}

/** The caller syncs, before anything is done that must be done once only. */
export function writeState(output: Output, state: State): void {
  const sector = Buffer.alloc(SECTOR);
  sector.write(stateText(state), 'latin1');
  output.write(STATE_AT, sector);
}

/** Whether a first block is one of an image, whatever its state. */
export function isImage(block: Uint8Array): boolean {
  return Buffer.from(block.buffer, block.byteOffset + SEAL_AT, MAGIC.length).toString('latin1') === MAGIC;
}

/** Whether a first block is one where saving has begun and not ended. */
export function isUnfinished(block: Uint8Array): boolean {
  return !isImage(block) && stateIn(block) === 'unfinished';
}

/**
 * Opens an image, and checks all of it but the pages, which are checked when they are read. The reader is closed with it.
 * @throws FormatError where it is none, not whole or damaged
 */
export function openImage(reader: Reader): Image {
  const wrong = (offset: number, field: string, expected: string, found: string): never => {
    throw new FormatError({ file: reader.name, offset, field, expected, found });
  };
  const block = readExactly(reader, 0, PAGE_SIZE, 'first block');
  if (!isImage(block)) wrong(SEAL_AT, 'seal', 'that of a hibernation image', 'none');
  const sector = block.slice(SEAL_AT, SEAL_AT + SECTOR);
  const stated = new DataView(sector.buffer).getUint32(seal.offsets.checksum, true);
  if (sealChecksum(sector) !== stated) wrong(SEAL_AT, 'seal', 'its checksum', 'another');
  const { version, head_size: headSize, file_size: size, sha256 } = seal.read(sector);
  if (version !== VERSION) wrong(SEAL_AT, 'version', `${VERSION}`, `${version}`);
  if (size > reader.size) wrong(SEAL_AT, 'file_size', `${size} bytes`, `${reader.size}`);
  if (headSize > size || headSize < PAGE_SIZE) wrong(SEAL_AT, 'head_size', `at most ${size}`, `${headSize}`);
  if (!Buffer.from(headDigest(reader, headSize)).equals(sha256)) {
    wrong(0, 'head', 'what its digest is of', 'something else');
  }
  const state = stateIn(block);
  if (state === undefined || state === 'unfinished') throw wrong(STATE_AT, 'state', STATES.join(', '), 'none of them');
  const source = openKdump([{ reader, flattened: false, isWhole: true }]);
  const note = source.notes.find(({ name, type }) => name === NOTE_NAME && type === NT_HIBERNATION);
  if (note === undefined) throw wrong(PAGE_SIZE, 'notes', `one of ${NOTE_NAME}`, 'none');
  const description = parseDescription(Buffer.from(note.desc).toString(), reader.name);
  const clash = source.ranges.find((range) => overlaps(range, description.region));
  if (clash !== undefined)
    wrong(PAGE_SIZE, 'region', 'memory that is not in the image', `0x${clash.start.toString(16)}`);
  return { description, state, size, source };
}

function stateIn(block: Uint8Array): State | 'unfinished' | undefined {
  const text = Buffer.from(block.buffer, block.byteOffset + STATE_AT, SECTOR).toString('latin1');
  return [...STATES, 'unfinished' as const].find((each) => text === stateText(each).padEnd(SECTOR, '\0'));
}

function stateText(state: State | 'unfinished'): string {
  return `tideover hibernation image: ${state}\n`;
}

function sealChecksum(sector: Uint8Array): number {
  const rest = sector.slice(0, seal.size);
  new DataView(rest.buffer).setUint32(seal.offsets.checksum, 0, true);
  return checksum(rest);
}

const PART = 1 << 20;

function headDigest(reader: Reader, headSize: number): Uint8Array {
  const hash = createHash('sha256').update(readExactly(reader, 0, SEAL_AT, 'header'));
  for (let at = PAGE_SIZE; at < headSize; at += PART) {
    hash.update(readExactly(reader, at, Math.min(PART, headSize - at), 'head'));
  }
  return hash.digest();
}

/** @throws FormatError where a field is not what it must be */
export function parseDescription(text: string, file: string): Description {
  const fail = (field: string, expected: string, found: unknown): never => {
    const shown = (JSON.stringify(found) ?? 'nothing').slice(0, 80);
    throw new FormatError({ file, field, expected, found: shown });
  };
  const object = (field: string, value: unknown): Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : fail(field, 'an object', value);
  const string = (field: string, value: unknown, pattern = /^[^\0]{0,4096}$/): string =>
    typeof value === 'string' && pattern.test(value) ? value : fail(field, `text like ${pattern.source}`, value);
  const number = (field: string, value: unknown): number =>
    Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : fail(field, 'a number', value);
  const list = (field: string, value: unknown): unknown[] =>
    Array.isArray(value) && value.length <= 65536 ? value : fail(field, 'a list', value);
  const rangeIn = (field: string, value: unknown): Range => {
    const { start, end } = object(field, value);
    const found = { start: number(`${field}.start`, start), end: number(`${field}.end`, end) };
    return found.start < found.end ? found : fail(field, 'a range', value);
  };

  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    fail('description', 'JSON', text);
  }
  const top = object('description', json);
  const cpu = object('cpu', top.cpu);
  const mailbox = object('mailbox', top.mailbox);
  if (typeof top.fiveLevel !== 'boolean') fail('fiveLevel', 'true or false', top.fiveLevel);
  return {
    id: string('id', top.id, /^[0-9a-f]{32}$/),
    saved: number('saved', top.saved),
    entry: number('entry', top.entry),
    region: rangeIn('region', top.region),
    fiveLevel: top.fiveLevel as boolean,
    release: string('release', top.release),
    saver: string('saver', top.saver),
    cpu: {
      vendor: string('cpu.vendor', cpu.vendor),
      model: string('cpu.model', cpu.model),
      count: number('cpu.count', cpu.count),
      features: list('cpu.features', cpu.features).map((each) => string('cpu.features', each)),
    },
    firmware: list('firmware', top.firmware).map((each) => ({
      ...rangeIn('firmware', each),
      type: number('firmware.type', object('firmware', each).type),
    })),
    fileSystems: list('fileSystems', top.fileSystems).map((each) => {
      const { id, digest, at } = object('fileSystems', each);
      return {
        id: string('fileSystems.id', id),
        digest: string('fileSystems.digest', digest, /^[0-9a-f]{32}$/),
        at: string('fileSystems.at', at),
      };
    }),
    mailbox: {
      address: number('mailbox.address', mailbox.address),
      cookie: string('mailbox.cookie', mailbox.cookie, /^[0-9a-f]{32}$/),
    },
  };
}
