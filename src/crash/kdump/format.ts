/**
 * The kdump-compressed format, versions 1 to 6 (makedumpfile's diskdump_mod.h and IMPLEMENTATION). In blocks of the page size:
 *
 *     | main header | sub header | bitmap 1 | bitmap 2 | page descriptors ... | notes, VMCOREINFO | pages ... |
 *     0             1            1+sub_hdr_size         1+sub_hdr_size+bitmap_blocks
 *
 * Bitmap 1 has a bit for each page of RAM, bitmap 2 for each that is in the file, lowest bit first. For each bit of bitmap 2 there is
 * a descriptor, in the order of pages; in a file of a split set for those only that it holds.
 */
import { bytes, chars, i32, i64n, struct, u32, u64 } from '../../abi/struct.ts';

export const KDUMP_SIGNATURE = 'KDUMP   ';

const UTS_LENGTH = 65;
const new_utsname = struct('new_utsname', 6 * UTS_LENGTH, {
  sysname: chars(UTS_LENGTH),
  nodename: chars(UTS_LENGTH),
  release: chars(UTS_LENGTH),
  version: chars(UTS_LENGTH),
  machine: chars(UTS_LENGTH),
  domainname: chars(UTS_LENGTH),
});

export const disk_dump_header = struct('disk_dump_header', 464, {
  signature: chars(8),
  header_version: i32,
  utsname: new_utsname,
  /** struct timeval timestamp */
  tv_sec: u64,
  tv_usec: u64,
  status: u32,
  block_size: i32,
  /** In blocks. */
  sub_hdr_size: i32,
  bitmap_blocks: u32,
  /** One more than the last page; from version 6 on see max_mapnr_64. */
  max_mapnr: u32,
  total_ram_blocks: u32,
  device_blocks: u32,
  written_blocks: u32,
  current_cpu: u32,
  nr_cpus: i32,
});

/** Fields beyond those of a file's version are 0. */
export const kdump_sub_header = struct('kdump_sub_header', 104, {
  phys_base: u64,
  /** Version 1. */
  dump_level: i32,
  /** Version 2: 1 in a file of a split set. Its pages, until version 5. */
  split: i32,
  start_pfn: u64,
  end_pfn: u64,
  /** Version 3. */
  offset_vmcoreinfo: u64,
  size_vmcoreinfo: u64,
  /** Version 4. */
  offset_note: u64,
  size_note: u64,
  /** Version 5. */
  offset_eraseinfo: u64,
  size_eraseinfo: u64,
  /** Version 6. */
  start_pfn_64: u64,
  end_pfn_64: u64,
  max_mapnr_64: u64,
});

export const page_desc = struct('page_desc', 24, { offset: i64n, size: u32, flags: u32, page_flags: u64 });

/**
 * The upper half of `page_flags` where the lower one has the CRC-32 of the page before it was compressed. makedumpfile writes 0
 * there and no program reads it.
 */
export const PAGE_CHECKSUM = 0x43524332;

/** Bits of `status` and, but for the last two, of a descriptor's `flags`. No bit: the page as it is. */
export const DUMP_DH_COMPRESSED_ZLIB = 0x1;
export const DUMP_DH_COMPRESSED_LZO = 0x2;
export const DUMP_DH_COMPRESSED_SNAPPY = 0x4;
export const DUMP_DH_COMPRESSED_INCOMPLETE = 0x8;
export const DUMP_DH_EXCLUDED_VMEMMAP = 0x10;
export const DUMP_DH_COMPRESSED_ZSTD = 0x20;

/** The header at the beginning of makedumpfile's flattened format; numbers are big-endian. */
export const MAKEDUMPFILE_SIGNATURE = 'makedumpfile';
export const makedumpfile_header = struct(
  'makedumpfile_header',
  32,
  { signature: bytes(16), type: i64n, version: i64n },
  { endian: 'big' },
);
/** Before each piece: where it belongs, and its length. Both -1 at the end. */
export const makedumpfile_data_header = struct(
  'makedumpfile_data_header',
  16,
  { offset: i64n, buf_size: i64n },
  { endian: 'big' },
);
/** Of the whole header: the rest is zeros. */
export const FLATTENED_HEADER_SIZE = 4096;
