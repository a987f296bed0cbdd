/**
 * The memory of ramoops (fs/pstore/ram_core.c): zones, whose sizes are powers of 2, from a multiple of 4 KB on.
 *
 *     persistent_ram_buffer    signature, where is written next, how much is written
 *     data                     goes round: it begins at `start` once all is full
 *     parity of the data       only with ramoops.ecc=N: N bytes for each block of 128
 *     parity of the header     N bytes
 *
 * Neither the size of a zone nor N stands anywhere. But a header and what would be its parity are no code word by chance, not even one
 * with errors, so both can be tried.
 */
import { struct, u32 } from '../abi/struct.ts';
import { correct } from './codec/reedsolomon.ts';

export const persistent_ram_buffer = struct('persistent_ram_buffer', 12, { sig: u32, start: u32, size: u32 });

/** `DBGC`: PERSISTENT_RAM_SIG, of zones for logs, the console and messages of user space. */
const PERSISTENT_RAM_SIG = 0x43474244;
/** Zones are no smaller: ramoops_probe(). */
const MIN_ZONE = 4096;
/** Of data with a parity of its own, unless a device tree says otherwise: persistent_ram_init_ecc(). */
const BLOCK = 128;
/** What ramoops.ecc=1 stands for. */
const ECC_SIZE = 16;

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
  return bytes.length >= persistent_ram_buffer.size && persistent_ram_buffer.read(bytes).sig === PERSISTENT_RAM_SIG;
}

/**
 * The zones that are not empty.
 *
 * @param ecc what ramoops.ecc was; a zone whose signature is damaged is found only where this is given
 */
export function readZones(image: Uint8Array, ecc: number | undefined): RamoopsZone[] {
  const zones: RamoopsZone[] = [];
  // Not as a Buffer, whose slice() does not copy.
  const bytes = new Uint8Array(image.buffer, image.byteOffset, image.length);
  for (let at = 0; at + MIN_ZONE <= bytes.length; at += MIN_ZONE) {
    const here = bytes.subarray(at);
    if (ecc === undefined && !isRamoops(here)) continue;
    const corrected = correctZone(here, ecc === 1 ? ECC_SIZE : (ecc ?? ECC_SIZE));
    const zone = corrected?.zone ?? here;
    if (!isRamoops(zone)) continue;
    const { start, size } = persistent_ram_buffer.read(zone);
    const data = zone.subarray(persistent_ram_buffer.size);
    if (size === 0 || size > data.length || start > size) continue;
    zones.push({
      at,
      content: Buffer.concat([data.subarray(start, size), data.subarray(0, start)]),
      ecc: corrected?.ecc,
    });
  }
  return zones;
}

/** A copy of a zone with its errors put right; undefined where it has no parity. */
function correctZone(from: Uint8Array, parity: number): { zone: Uint8Array; ecc: EccResult } | undefined {
  for (let size = MIN_ZONE; size <= from.length; size *= 2) {
    const room = size - persistent_ram_buffer.size;
    const blocks = Math.ceil((room - parity) / (BLOCK + parity));
    const dataSize = room - (blocks + 1) * parity;
    if (dataSize <= 0) continue;
    const parityAt = size - (blocks + 1) * parity;
    const header = from.slice(0, persistent_ram_buffer.size);
    const inHeader = correct(header, from.slice(size - parity, size));
    if (inHeader === undefined || !isRamoops(header)) continue;
    const zone = from.slice(0, size);
    zone.set(header);
    let [correctedBytes, badBlocks] = [inHeader, 0];
    const written = Math.min(persistent_ram_buffer.read(zone).size, dataSize);
    for (let i = 0; i * BLOCK < written; i++) {
      const block = zone.subarray(
        persistent_ram_buffer.size + i * BLOCK,
        Math.min(persistent_ram_buffer.size + (i + 1) * BLOCK, parityAt),
      );
      const found = correct(block, zone.slice(parityAt + i * parity, parityAt + (i + 1) * parity));
      if (found === undefined) badBlocks++;
      else correctedBytes += found;
    }
    return { zone: zone.subarray(0, parityAt), ecc: { correctedBytes, badBlocks } };
  }
  return undefined;
}
