/** Opens a dump of any format. */
import { FormatError } from '../errors.ts';
import type { Range } from '../mem/range.ts';
import { openElf } from './elf.ts';
import { openFile } from './io/file.ts';
import type { Reader } from './io/reader.ts';
import { openRaw } from './raw.ts';
import type { PageSource } from './source.ts';

export interface OpenOptions {
  /** The file is an image of RAM, in which these physical ranges stand one after the other. */
  readonly ram?: readonly Range[];
}

/**
 * Opens the dump that these files hold; several are one split set. The readers are closed with it.
 * @throws FormatError where they hold none
 */
export function openDump(readers: readonly [Reader, ...Reader[]], options: OpenOptions = {}): PageSource {
  const [first] = readers;
  if (options.ram !== undefined) return openRaw(first, options.ram);
  const start = new Uint8Array(16);
  const magic = new TextDecoder('latin1').decode(start.subarray(0, first.read(0, start)));
  if (magic.startsWith('\x7fELF')) return openElf(first);
  if (Number.isFinite(first.size) && first.size > 0 && first.size % 4096 === 0) return openRaw(first);
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
