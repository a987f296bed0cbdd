/**
 * Packing pages and summing them up with the libraries that are part of Node, called as its add-ons may call them. Node's own
 * functions set up a stream for each page, which takes longer than packing it. A Node that keeps its libraries to itself is asked
 * by its functions.
 */
import { eachPageCode } from '../asm/eachpage.ts';
import { type PageTools, portableTools } from '../crash/codec/page.ts';
import { DUMP_DH_COMPRESSED_ZSTD } from '../crash/kdump/format.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { mapCode } from '../sys/region.ts';
import { callableWith, symbolAt } from '../sys/syscall.ts';
import { pageAligned } from './direct.ts';

/** Tools of one thread. */
export function nativeTools(): PageTools {
  return { ...portableTools, allocate: pageAligned, ...nativeZstd(), ...nativeChecksums() };
}

/** zlib.h: uLong crc32(uLong crc, const Bytef *buf, uInt len) */
function nativeChecksums(): Pick<PageTools, 'checksums'> | undefined {
  const crc32 = symbolAt('crc32');
  if (crc32 === undefined) return undefined;
  const { address } = mapCode(eachPageCode(), 4);
  const each = callableWith(address, ['void *', 'int64_t', 'void *', 'int64_t']);
  return { checksums: (pages, into) => void each(pages, pages.length / PAGE_SIZE, into, crc32) };
}

/** zstd.h: the simple functions with an explicit context, which must be one for each thread. */
function nativeZstd(): Partial<PageTools> | undefined {
  const [compressor, compress, decompressor, decompress] = [
    'ZSTD_createCCtx',
    'ZSTD_compressCCtx',
    'ZSTD_createDCtx',
    'ZSTD_decompressDCtx',
  ].map(symbolAt);
  if (!compressor || !compress || !decompressor || !decompress) return undefined;
  const pack = callableWith(compress, ['int64_t', 'void *', 'int64_t', 'void *', 'int64_t', 'int64_t']);
  const unpack = callableWith(decompress, ['int64_t', 'void *', 'int64_t', 'void *', 'int64_t']);
  const into = new Uint8Array(PAGE_SIZE);
  let packing: number | undefined;
  let unpacking: number | undefined;
  return {
    compressor(compression) {
      if (compression !== 'zstd') return portableTools.compressor(compression);
      packing ??= callableWith(compressor, [])();
      return (page) => {
        // An error, which is what has no room, is a small negative number as size_t.
        const length = pack(packing!, into, into.length - 1, page, page.length, 1);
        return length > 0 ? into.subarray(0, length) : page;
      };
    },
    decompress(flags, packed, page) {
      if (flags !== DUMP_DH_COMPRESSED_ZSTD) return portableTools.decompress(flags, packed, page);
      unpacking ??= callableWith(decompressor, [])();
      const length = unpack(unpacking, page, page.length, packed, packed.length);
      return length === page.length ? undefined : 'zstd does not decompress to a page';
    },
  };
}
