/** Writes chosen pages of a dump as a kdump-compressed file. */
import { NT_PRSTATUS } from '../../abi/ptrace.ts';
import { FormatError, HoleError, UnsupportedError } from '../../errors.ts';
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Range } from '../../mem/range.ts';
import { type Compression, flagOf, pageCompressor } from '../codec/page.ts';
import type { Output } from '../io/output.ts';
import { type KdumpContents, kdumpLayout, writeKdumpHead } from '../kdump/writer.ts';
import { readUtsname } from '../kernel/identity.ts';
import { VirtualMemory } from '../kernel/memory.ts';
import { kernelSpace } from '../kernelspace.ts';
import type { PageSource } from '../source.ts';
import { type Vmcoreinfo, vmcoreinfoOf } from '../vmcoreinfo.ts';
import { type Copied, type KdumpForm, ranksOf } from './job.ts';

export interface KdumpPages {
  /** A bit for each page that is written, of all files of a split set. */
  readonly bits: Uint8Array;
  /** How many pages they stand for, from 0 on. */
  readonly length: number;
  /** Those that this file gets. */
  readonly pages: Range;
}

export interface KdumpOptions {
  readonly compression: Compression;
  /** DL_EXCLUDE_*: what was left out. */
  readonly level: number;
  /** Each page gets a checksum, which readers of this project compare. */
  readonly checksums: boolean;
  /** See KdumpForm. */
  readonly alignment?: number;
}

/**
 * Writes all but the header, lets `copy` write pages and descriptors, and writes the header last.
 *
 * @param copy from where in the output on pages go
 */
export async function writeKdump(
  source: PageSource,
  output: Output,
  { bits, length, pages }: KdumpPages,
  { compression, level, checksums, alignment = 1 }: KdumpOptions,
  copy: (form: KdumpForm, at: number) => Promise<Copied>,
): Promise<Copied> {
  const { header, notes, ranges } = source;
  const { ranks, count } = ranksOf(bits, pages);
  const isPart = pages.start > 0 || pages.end < length;
  const contents: KdumpContents = {
    ranges,
    bits,
    length,
    ...(isPart && { part: pages }),
    count,
    notes,
    compression,
    dumpLevel: level | (header.dumpLevel ?? 0),
    utsname: {
      ...header.utsname,
      ...known(source, (info) => readUtsname(new VirtualMemory(kernelSpace(source, info)), info)),
    },
    time: header.time ?? 0,
    cpus: header.cpus ?? notes.filter(({ name, type }) => name === 'CORE' && type === NT_PRSTATUS).length,
    physBase: BigInt.asUintN(64, BigInt(vmcoreinfoOf(notes)?.number('phys_base') ?? 0)),
  };
  const layout = kdumpLayout(contents);
  const zeros = new Uint8Array(PAGE_SIZE);
  const packed = pageCompressor(compression, PAGE_SIZE)(zeros);
  output.write(layout.dataAt, packed);
  const zero = { at: layout.dataAt, size: packed.length, flags: packed === zeros ? 0 : flagOf[compression] };
  const form: KdumpForm = {
    kind: 'kdump',
    compression,
    checksums,
    alignment,
    descriptorsAt: layout.descriptorsAt,
    ranks,
    zero,
  };
  const copied = await copy(form, layout.dataAt + packed.length);
  writeKdumpHead(output, contents, layout, header.incomplete || copied.unreadable > 0);
  return copied;
}

/** What the kernel says of itself, or undefined where it does not or cannot be read. */
export function known<T>(source: PageSource, get: (info: Vmcoreinfo) => T): T | undefined {
  const info = vmcoreinfoOf(source.notes);
  if (info === undefined) return undefined;
  try {
    return get(info);
  } catch (error) {
    if (error instanceof FormatError || error instanceof HoleError || error instanceof UnsupportedError)
      return undefined;
    throw error;
  }
}
