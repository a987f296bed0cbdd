/** What the commands that write dumps share. */
import type { Compression } from '../crash/codec/page.ts';
import type { FilterOptions, FilterResult } from '../crash/filter/filter.ts';
import type { DumpFiles } from '../crash/filter/threads.ts';
import type { Reader } from '../crash/io/reader.ts';
import type { PageSource } from '../crash/source.ts';
import { parseRange } from '../mem/range.ts';
import { UsageError } from './exit.ts';
import type { Io, Output } from './io.ts';
import { byteSize, type Progress } from './progress.ts';

/** Options of makedumpfile(8), and what is added to them. */
export const writingFlags = {
  zlib: { long: 'zlib', short: 'c', summary: 'compress pages with zlib' },
  lzo: { long: 'lzo', short: 'l', summary: 'compress pages with LZO: the fastest' },
  snappy: { long: 'snappy', short: 'p', summary: 'compress pages with snappy' },
  zstd: { long: 'zstd', short: 'z', summary: 'compress pages with zstd: the smallest' },
  flattened: {
    long: 'flattened',
    short: 'F',
    summary: 'write the stream format that makedumpfile -R puts together; to stdout if no OUT is given',
  },
  split: { long: 'split', summary: 'write about as many pages into each of several OUTs' },
  threads: { long: 'num-threads', value: 'N', summary: 'threads that compress; as many as there are CPUs, up to 8' },
  force: { long: 'force', short: 'f', summary: 'overwrite OUT if it exists' },
  verify: { long: 'verify', summary: 'read back what was written and compare it with IN' },
  ram: {
    long: 'ram',
    value: 'RANGES',
    summary: 'IN is an image of RAM: of which physical addresses, such as 0x0-0x7fffffff,0x100000000-0x17fffffff',
  },
} as const;

export const writingExits = {
  0: 'Done. With `partial` in the JSON and a warning, IN is not whole or pages of it could not be read.',
  1: 'OUT could not be written. Nothing is left of it.',
  3: 'The kernel of IN does not say what must be known to filter it.',
  5: 'IN is no dump, or its headers are damaged; or with --verify OUT is not what was to be written.',
} as const;

interface WritingFlags {
  readonly zlib: boolean;
  readonly lzo: boolean;
  readonly snappy: boolean;
  readonly zstd: boolean;
  readonly flattened: boolean;
  readonly split: boolean;
  readonly threads: string | undefined;
  readonly force: boolean;
  readonly verify: boolean;
  readonly ram: string | undefined;
}

/** Opens a dump to look into. Of a sparse file - a large image of RAM - the holes are passed over when something is searched for. */
export async function openDumpAt({ paths, ram }: DumpFiles): Promise<PageSource> {
  const { statSync } = await import('node:fs');
  const { openDump } = await import('../crash/open.ts');
  const { openFile } = await import('../crash/io/file.ts');
  const readers: Reader[] = [];
  try {
    for (const path of paths) {
      const stat = statSync(path);
      const isSparse = stat.isFile() && stat.blocks * 512 < stat.size / 2;
      readers.push(openFile(path, isSparse ? await dataSeeker() : undefined));
    }
    return openDump(readers as [Reader, ...Reader[]], ram === undefined ? {} : { ram });
  } catch (error) {
    for (const reader of readers) reader.close();
    throw error;
  }
}

async function dataSeeker(): Promise<(fd: number, position: number) => number> {
  const { lseek } = await import('../sys/files.ts');
  const { SEEK_DATA } = await import('../abi/fcntl.ts');
  const { SyscallError } = await import('../errors.ts');
  return (fd, offset) => {
    try {
      return Number(lseek({ fd, offset, whence: SEEK_DATA }));
    } catch (error) {
      // Nothing but holes up to the end, or a file system that does not know.
      if (error instanceof SyscallError) return error.errnoName === 'ENXIO' ? Number.POSITIVE_INFINITY : offset;
      throw error;
    }
  };
}

/** undefined where none is asked for. */
export function compressionOf(flags: WritingFlags): Compression | undefined {
  const chosen = (['zlib', 'lzo', 'snappy', 'zstd'] as const).filter((name) => flags[name]);
  if (chosen.length > 1) throw new UsageError(`--${chosen.join(' and --')} exclude each other`);
  return chosen[0];
}

export function filesOf(paths: readonly [string, ...string[]], flags: Pick<WritingFlags, 'ram'>): DumpFiles {
  if (flags.ram === undefined) return { paths };
  const ram = flags.ram.split(',').map((text) => {
    const range = parseRange(text);
    if (range === undefined) throw new UsageError(`--ram: '${text}' is no range of addresses`);
    return range;
  });
  return { paths, ram };
}

/** Writes and tells. @throws UsageError for options that do not fit together */
export async function writeDump(
  io: Io,
  input: DumpFiles,
  outputs: readonly string[],
  flags: WritingFlags,
  options: Pick<FilterOptions, 'to' | 'compression' | 'level'>,
): Promise<Output> {
  const { existsSync, statSync } = await import('node:fs');
  const { availableParallelism } = await import('node:os');
  const { filterDump } = await import('../crash/filter/filter.ts');
  const { flattened, split, verify } = flags;
  const toStdout = outputs.length === 0 || outputs[0] === '-';
  if (toStdout && !flattened) throw new UsageError('no OUT is given: only a stream (-F) can go to stdout');
  if (toStdout && verify) throw new UsageError('what goes to stdout cannot be read back for --verify');
  if (split && (outputs.length < 2 || flattened)) throw new UsageError('--split wants two OUTs or more, and no stream');
  if (!split && outputs.length > 1) throw new UsageError('several OUTs want --split');
  if (split && options.to !== 'kdump') throw new UsageError('only kdump-compressed dumps can be split');
  if (options.to !== 'kdump' && compressionOf(flags) !== undefined) {
    throw new UsageError('only the pages of kdump-compressed dumps can be compressed');
  }
  const taken = toStdout ? undefined : outputs.find((path) => existsSync(path));
  if (taken !== undefined && !flags.force) throw new UsageError(`${taken} exists already; -f overwrites it`);
  let progress: Progress | undefined;
  const threads = flags.threads === undefined ? Math.min(8, availableParallelism()) : threadsOf(flags.threads);
  let result: FilterResult;
  try {
    result = await filterDump(input, toStdout ? [] : outputs, {
      ...options,
      flattened,
      verify,
      threads,
      signal: io.signal,
      onProgress(done, total) {
        progress ??= io.progress({ label: `writing ${outputs[0] ?? 'the dump'}`, total, unit: 'bytes' });
        progress.update(done);
      },
    });
  } finally {
    progress?.end();
  }
  if (result.partial) io.warn(`${input.paths[0]} is not whole, or pages of it could not be read`);
  const bytes = toStdout ? undefined : outputs.reduce((sum, path) => sum + statSync(path).size, 0);
  const { written, total, unreadable } = result;
  const lost = unreadable > 0 ? `, ${unreadable} could not be read` : '';
  const size = bytes === undefined ? '' : ` in ${byteSize(bytes)}`;
  const line = `${written} of ${total} pages${size}${lost}`;
  if (toStdout) io.info(line);
  return { json: { ...result, ...(bytes !== undefined && { bytes }) }, text: () => (toStdout ? [] : [line]) };
}

function threadsOf(text: string): number {
  if (/^[1-9]\d{0,2}$/.test(text)) return Number(text);
  throw new UsageError(`--num-threads: '${text}' is no number of threads`);
}
