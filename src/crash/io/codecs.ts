/** zlib and zstd, of Node: the seam behind which a browser's can stand. */
import { constants, deflateSync, inflateSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

/** Level 1, as makedumpfile -c. @returns the compressed bytes */
export function zlibCompress(from: Uint8Array): Uint8Array {
  return deflateSync(from, { level: 1 });
}

/** @returns how many bytes there were, or -1 where `from` is no whole stream or holds more than fits */
export function zlibDecompress(from: Uint8Array, into: Uint8Array): number {
  return decoded(() => inflateSync(from, { maxOutputLength: into.length }), into);
}

/** Level 1, as makedumpfile -z. @returns the compressed bytes */
export function zstdCompress(from: Uint8Array): Uint8Array {
  return zstdCompressSync(from, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
}

/** @returns how many bytes there were, or -1 where `from` is no whole stream or holds more than fits */
export function zstdDecompress(from: Uint8Array, into: Uint8Array): number {
  return decoded(() => zstdDecompressSync(from, { maxOutputLength: into.length }), into);
}

function decoded(decode: () => Uint8Array, into: Uint8Array): number {
  try {
    const bytes = decode();
    into.set(bytes);
    return bytes.length;
  } catch {
    return -1;
  }
}
