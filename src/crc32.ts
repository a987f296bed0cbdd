/** CRC-32 as zlib has it: by zlib, or for much at once by something faster that is the same. */
import { crc32 as byZlib } from 'node:zlib';

/** @param value of what stands before */
export type Crc32 = (data: Uint8Array, value?: number) => number;

/** What is not worth being called for, in bytes. */
const LITTLE = 4096;

let ofMuch: Crc32 = byZlib;

/** @param value of what stands before */
export function crc32(data: Uint8Array, value = 0): number {
  return data.length < LITTLE ? byZlib(data, value) : ofMuch(data, value);
}

/** Has it be used for the life of the process. */
export function useForMuch(faster: Crc32): void {
  ofMuch = faster;
}
