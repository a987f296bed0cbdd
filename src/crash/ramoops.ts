/**
 * The memory of ramoops (fs/pstore/ram.c and ram_core.c): zones, one after the other.
 *
 *     persistent_ram_buffer    signature, where is written next, how much is written
 *     data                     goes round: it begins at `start` once all is full
 *     parity of the data       only with ramoops.ecc=N: N bytes for each block of 128
 *     parity of the header     N bytes
 *
 * Neither the size of a zone nor N stands anywhere. Zones of the log have what the others leave of all memory, in equal parts, which
 * may be any number of bytes. But a header and what would be its parity are no code word by chance, not even one with errors, so sizes can be tried.
 */
import { struct, u32 } from '../abi/struct.ts';
import { correct } from './codec/reedsolomon.ts';

export const persistent_ram_buffer = struct('persistent_ram_buffer', 12, { sig: u32, start: u32, size: u32 });

/** PERSISTENT_RAM_SIG, of zones for logs, the console and messages of user space. */
const SIGNATURE = Buffer.from('DBGC', 'latin1');
/** Of data with a parity of its own, unless a device tree says otherwise: persistent_ram_init_ecc(). */
const BLOCK = 128;
/** What ramoops.ecc=1 stands for. */
const ECC_SIZE = 16;
/** A zone is tried with the sizes of others, and as if it ended where one of the next begins: so many signatures in a row may be hurt. */
const MAX_TRIES = 8;
/** 16 MB of the smallest that the kernel's documentation names. */
const MAX_ZONES = 4096;

/** What the parity of a zone, or of several, showed. */
export interface EccResult {
  readonly correctedBytes: number;
  /** Blocks with more wrong bytes than can be put right. They are as they were found. */
  readonly badBlocks: number;
}

export interface RamoopsZone {
  /** Where it begins. */
  readonly at: number;
  /** What was written, the oldest first. */
  readonly content: Uint8Array;
  /** undefined where it has no parity. */
  readonly ecc: EccResult | undefined;
}

/** Whether a zone begins here. */
export function isRamoops(bytes: Uint8Array): boolean {
  return bytes.length >= persistent_ram_buffer.size && SIGNATURE.equals(bytes.subarray(0, SIGNATURE.length));
}

/**
 * The zones that are not empty.
 *
 * @param ecc what ramoops.ecc was; a zone whose signature is damaged is found only where this is given
 */
export function readZones(image: Uint8Array, ecc: number | undefined): RamoopsZone[] {
  const parity = ecc === 1 ? ECC_SIZE : (ecc ?? ECC_SIZE);
  const zones: RamoopsZone[] = [];
  /** Of zones with parity, the last first. */
  let known: readonly number[] = [];
  for (let at = 0, count = 0; at < image.length && count < MAX_ZONES; count++) {
    const next = nextPlaces(image, at);
    const sizes = new Set([...known, ...[...next, image.length].flatMap((end) => equalParts(end - at))]);
    const corrected =
      ecc === undefined && !isRamoops(image.subarray(at)) ? undefined : correctZone(image, at, [...sizes], parity);
    const zone = corrected?.bytes ?? image.subarray(at, next.find((each) => headerAt(image, each)) ?? image.length);
    let end = next[0] ?? image.length;
    if (corrected !== undefined) {
      end = at + corrected.size;
      known = [corrected.size, ...known.filter((size) => size !== corrected.size)].slice(0, MAX_TRIES);
    }
    const header = headerAt(zone, 0);
    const data = zone.subarray(persistent_ram_buffer.size);
    if (header !== undefined && header.size > 0 && header.size <= data.length) {
      const content = Buffer.concat([data.subarray(header.start, header.size), data.subarray(0, header.start)]);
      zones.push({ at, content, ecc: corrected?.ecc });
    }
    at = end;
  }
  return zones;
}

/** A header that can be one. */
function headerAt(image: Uint8Array, at: number): { start: number; size: number } | undefined {
  if (!isRamoops(image.subarray(at))) return undefined;
  const header = persistent_ram_buffer.read(image, at);
  return header.start <= header.size ? header : undefined;
}

/** Of so many bytes, sizes of zones that are equally large. */
function equalParts(size: number): number[] {
  return [1, 2, 3, 4].map((parts) => size / parts).filter((part) => Number.isInteger(part));
}

/** Where the next signatures stand. */
function nextPlaces(image: Uint8Array, after: number): number[] {
  const buffer = Buffer.from(image.buffer, image.byteOffset, image.length);
  const found: number[] = [];
  for (let at = after; found.length < MAX_TRIES; ) {
    at = buffer.indexOf(SIGNATURE, at + 1);
    if (at < 0) break;
    found.push(at);
  }
  return found;
}

interface Corrected {
  /** Without its parity. */
  readonly bytes: Uint8Array;
  readonly size: number;
  readonly ecc: EccResult;
}

/**
 * A copy of a zone with its errors put right; undefined where it has no parity.
 *
 * @param sizes that it may have. Headers of zones differ in few bytes, so that the parity of another one may do as well: it is the size
 *   with the fewest errors in the header, and then the fewest blocks that are beyond help
 */
function correctZone(image: Uint8Array, at: number, sizes: readonly number[], parity: number): Corrected | undefined {
  const headers = sizes.flatMap((size) => {
    if (at + size > image.length || dataSize(size, parity) <= 0) return [];
    const header = Uint8Array.from(image.subarray(at, at + persistent_ram_buffer.size));
    const errors = correct(header, Uint8Array.from(image.subarray(at + size - parity, at + size)));
    return errors === undefined || !isRamoops(header) ? [] : [{ size, header, errors }];
  });
  const fewest = Math.min(...headers.map(({ errors }) => errors));
  let best: Corrected | undefined;
  for (const { size, header, errors } of headers) {
    if (errors > fewest) continue;
    const zone = Uint8Array.from(image.subarray(at, at + size));
    zone.set(header);
    const corrected = correctData(zone, parity, errors);
    if (best === undefined || corrected.ecc.badBlocks < best.ecc.badBlocks) best = { ...corrected, size };
  }
  return best;
}

function correctData(zone: Uint8Array, parity: number, inHeader: number): Omit<Corrected, 'size'> {
  const parityAt = persistent_ram_buffer.size + dataSize(zone.length, parity);
  const data = zone.subarray(persistent_ram_buffer.size, parityAt);
  const written = Math.min(persistent_ram_buffer.read(zone).size, data.length);
  let [correctedBytes, badBlocks] = [inHeader, 0];
  for (let block = 0; block * BLOCK < written; block++) {
    const itsParity = zone.subarray(parityAt + block * parity).subarray(0, parity);
    const found = correct(data.subarray(block * BLOCK, (block + 1) * BLOCK), itsParity);
    if (found === undefined) badBlocks++;
    else correctedBytes += found;
  }
  return { bytes: zone.subarray(0, parityAt), ecc: { correctedBytes, badBlocks } };
}

/** What header and parity leave of a zone. */
function dataSize(size: number, parity: number): number {
  const room = size - persistent_ram_buffer.size;
  const blocks = Math.ceil((room - parity) / (BLOCK + parity));
  return room - (blocks + 1) * parity;
}
