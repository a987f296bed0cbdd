/** zlib and zstd, of Node: the seam behind which a browser's can stand. They are loaded at first use: 5 ms. */
const zlib = () => process.getBuiltinModule('node:zlib');

/** Level 1, as makedumpfile -c. @returns the compressed bytes */
export function zlibCompress(from: Uint8Array): Uint8Array {
  return zlib().deflateSync(from, { level: 1 });
}

/** @returns how many bytes there were, or -1 where `from` is no whole stream or holds more than fits */
export function zlibDecompress(from: Uint8Array, into: Uint8Array): number {
  return decoded(() => zlib().inflateSync(from, { maxOutputLength: into.length }), into);
}

/** A deflate stream with zlib's header or without. @returns undefined where it is neither, or has more than `limit` bytes */
export function inflateUnknown(from: Uint8Array, limit: number): Uint8Array | undefined {
  for (const inflate of [zlib().inflateSync, zlib().inflateRawSync]) {
    try {
      // What is behind its end, such as a notice of the kernel's, is left alone.
      return inflate(from, { maxOutputLength: limit });
    } catch {}
  }
  return undefined;
}

/** Level 1, as makedumpfile -z. @returns the compressed bytes */
export function zstdCompress(from: Uint8Array): Uint8Array {
  const { constants, zstdCompressSync } = zlib();
  return zstdCompressSync(from, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
}

/** @returns how many bytes there were, or -1 where `from` is no whole stream or holds more than fits */
export function zstdDecompress(from: Uint8Array, into: Uint8Array): number {
  return decoded(() => zlib().zstdDecompressSync(from, { maxOutputLength: into.length }), into);
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

/** CRC-32 of ISO 3309, as zlib's: 32 bits without sign. */
export function checksum(bytes: Uint8Array): number {
  return zlib().crc32(bytes);
}
