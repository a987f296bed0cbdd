/** Pages compressed as a kdump file may hold them: by the flag of a descriptor or of the header. */
import { PAGE_SIZE } from '../../mem/address.ts';
import { checksum, zlibCompress, zlibDecompress, zstdCompress, zstdDecompress } from '../io/codecs.ts';
import {
  DUMP_DH_COMPRESSED_LZO,
  DUMP_DH_COMPRESSED_SNAPPY,
  DUMP_DH_COMPRESSED_ZLIB,
  DUMP_DH_COMPRESSED_ZSTD,
} from '../kdump/format.ts';
import { lzoBound, lzoCompress, lzoDecompress, lzoTable } from './lzo.ts';
import { snappyBound, snappyCompress, snappyDecompress, snappyTable } from './snappy.ts';

export type Compression = 'none' | 'zlib' | 'lzo' | 'snappy' | 'zstd';

export const flagOf: Readonly<Record<Compression, number>> = {
  none: 0,
  zlib: DUMP_DH_COMPRESSED_ZLIB,
  lzo: DUMP_DH_COMPRESSED_LZO,
  snappy: DUMP_DH_COMPRESSED_SNAPPY,
  zstd: DUMP_DH_COMPRESSED_ZSTD,
};

/** What the header's status says of the pages: 'none' where it says nothing. */
export function compressionOf(status: number): Compression {
  const found = Object.entries(flagOf).find(([, flag]) => (status & flag) !== 0);
  return found === undefined ? 'none' : (found[0] as Compression);
}

/** What handles pages, many of them: who may call more than Node's functions has quicker ones. */
export interface PageTools {
  /** Memory for a chunk of pages. */
  allocate(size: number): Uint8Array;
  compressor(compression: Compression): PageCompressor;
  /** See decompressPage(). */
  decompress(flags: number, packed: Uint8Array, page: Uint8Array): string | undefined;
  /** The checksum of each page of `pages`. */
  checksums(pages: Uint8Array, into: Uint32Array): void;
}

export const portableTools: PageTools = {
  allocate: (size) => new Uint8Array(size),
  compressor: (compression) => pageCompressor(compression, PAGE_SIZE),
  decompress: decompressPage,
  checksums(pages, into) {
    for (let at = 0; at < pages.length; at += PAGE_SIZE) {
      into[at / PAGE_SIZE] = checksum(pages.subarray(at, at + PAGE_SIZE));
    }
  },
};

/** @returns the compressed page, valid until the next call, or the page itself where it would not be smaller */
export type PageCompressor = (page: Uint8Array) => Uint8Array;

export function pageCompressor(compression: Compression, pageSize: number): PageCompressor {
  const smaller = (packed: Uint8Array, page: Uint8Array) => (packed.length < page.length ? packed : page);
  switch (compression) {
    case 'none':
      return (page) => page;
    case 'zlib':
      return (page) => smaller(zlibCompress(page), page);
    case 'zstd':
      return (page) => smaller(zstdCompress(page), page);
    case 'lzo': {
      const into = new Uint8Array(lzoBound(pageSize));
      const table = lzoTable();
      return (page) => smaller(into.subarray(0, lzoCompress(page, into, table)), page);
    }
    case 'snappy': {
      const into = new Uint8Array(snappyBound(pageSize));
      const table = snappyTable();
      return (page) => smaller(into.subarray(0, snappyCompress(page, into, table)), page);
    }
  }
}

/**
 * @param flags of the page's descriptor
 * @returns what is wrong, or undefined when `page` is filled
 */
function decompressPage(flags: number, packed: Uint8Array, page: Uint8Array): string | undefined {
  if (flags === 0) {
    if (packed.length !== page.length) return `${packed.length} bytes that are not compressed`;
    page.set(packed);
    return undefined;
  }
  const decompress = decompressors.get(flags);
  if (decompress === undefined) return `unknown compression 0x${flags.toString(16)}`;
  const length = decompress(packed, page);
  return length === page.length ? undefined : `${nameOf(flags)} does not decompress to a page`;
}

const decompressors: ReadonlyMap<number, (from: Uint8Array, into: Uint8Array) => number> = new Map([
  [DUMP_DH_COMPRESSED_ZLIB, zlibDecompress],
  [DUMP_DH_COMPRESSED_LZO, lzoDecompress],
  [DUMP_DH_COMPRESSED_SNAPPY, snappyDecompress],
  [DUMP_DH_COMPRESSED_ZSTD, zstdDecompress],
]);

function nameOf(flags: number): string {
  return Object.entries(flagOf).find(([, flag]) => flag === flags)![0];
}
