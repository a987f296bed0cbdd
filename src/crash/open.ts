/** Opens a dump of any format. */
import { FormatError } from '../errors.ts';
import type { Range } from '../mem/range.ts';
import { dumpIn } from './archive.ts';
import type { PageTools } from './codec/page.ts';
import { openElf } from './elf.ts';
import { withVmcoreinfo } from './findinfo.ts';
import { openFile } from './io/file.ts';
import type { Reader } from './io/reader.ts';
import { isFlattened, openFlattened } from './kdump/flattened.ts';
import { KDUMP_SIGNATURE } from './kdump/format.ts';
import { type KdumpInput, openKdump } from './kdump/reader.ts';
import { openRaw } from './raw.ts';
import type { PageSource } from './source.ts';

export interface OpenOptions {
  /** The file is an image of RAM, in which these physical ranges stand one after the other. */
  readonly ram?: readonly Range[];
  /** What pages are unpacked and checked with. */
  readonly tools?: PageTools;
}

/**
 * Opens the dump that these files hold; several are one split set. The readers are closed with it.
 * @throws FormatError where they hold none
 */
export function openDump(readers: readonly [Reader, ...Reader[]], options: OpenOptions = {}): PageSource {
  return withVmcoreinfo(openFormat(readers, options));
}

function openFormat(readers: readonly [Reader, ...Reader[]], options: OpenOptions): PageSource {
  const [first, ...others] = readers;
  if (options.ram !== undefined) return openRaw(alone(readers), options.ram);
  const inputs = readers.map((reader) => unflattened(dumpIn(reader))) as [KdumpInput, ...KdumpInput[]];
  const [{ reader, flattened, isWhole }] = inputs;
  const magic = magicOf(reader);
  if (magic.startsWith(KDUMP_SIGNATURE)) return openKdump(inputs, options.tools);
  if (others.length > 0) alone(readers);
  if (magic.startsWith('\x7fELF')) return openElf(reader, { flattened, isWhole });
  if (!flattened && Number.isFinite(first.size) && first.size > 0 && first.size % 4096 === 0) return openRaw(first);
  throw new FormatError({
    file: first.name,
    offset: 0,
    field: 'signature',
    expected: 'an ELF vmcore, a kdump-compressed or flattened file of makedumpfile, or an image of RAM in whole pages',
    found: JSON.stringify(magic),
  });
}

/** The same by path. @throws also the system's errors */
export function openDumpFiles(paths: readonly [string, ...string[]], options: OpenOptions = {}): PageSource {
  const readers: Reader[] = [];
  try {
    for (const path of paths) readers.push(openFile(path));
    return openDump(readers as [Reader, ...Reader[]], options);
  } catch (error) {
    for (const reader of readers) reader.close();
    throw error;
  }
}

function unflattened(reader: Reader): KdumpInput {
  if (!isFlattened(magicOf(reader))) return { reader, flattened: false, isWhole: true };
  const { file, isWhole } = openFlattened(reader);
  return { reader: file, flattened: true, isWhole };
}

function magicOf(reader: Reader): string {
  const start = new Uint8Array(16);
  return new TextDecoder('latin1').decode(start.subarray(0, reader.read(0, start)));
}

/** Only kdump-compressed files are split. */
function alone([first, ...others]: readonly [Reader, ...Reader[]]): Reader {
  if (others.length === 0) return first;
  throw new FormatError({
    file: first.name,
    offset: 0,
    field: 'signature',
    expected: 'a kdump-compressed file, since several files are given',
    found: JSON.stringify(magicOf(first)),
  });
}
