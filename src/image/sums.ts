/**
 * tideover.sums: size and CRC-32 of every file of an image.
 *
 *     5a0c3f91         1234 pstree.img
 *     1b2c3d4e           52 tideover.sums       last line: of this file itself, up to this line
 *
 * CRC-32 is a check against damage, not against malice: whoever can change an image can also run programs in its place.
 * It takes a fraction of the time that SHA-256 does, and an image has the size of memory: see src/crc32.ts.
 */
import { crc32 } from 'node:zlib';
import { FormatError } from '../errors.ts';
import { isMemory } from './types.ts';

export const SUMS_FILE = 'tideover.sums';
/** The same for memory that a page server has got, and put beside the rest. */
export const PAGES_SUMS_FILE = 'tideover.pages.sums';

export function isSums(file: string): boolean {
  return file === SUMS_FILE || file === PAGES_SUMS_FILE;
}

export interface Sum {
  /** In bytes. */
  readonly size: number;
  readonly crc32: number;
}

export class Sums extends Map<string, Sum> {
  #hasMemory: boolean | undefined;

  /** Whether memory is among the files, of which all are there when that is asked. */
  get hasMemory(): boolean {
    this.#hasMemory ??= [...this.keys()].some(isMemory);
    return this.#hasMemory;
  }

  /** @param own name of this file */
  text(own = SUMS_FILE): string {
    let lines = '';
    for (const [file, sum] of this) lines += line(file, sum);
    return lines + line(own, { size: lines.length, crc32: crc32(lines) });
  }

  /** @throws FormatError where the text is not what text() made */
  static parse(text: string, file: string): Sums {
    const sums = new Sums();
    let at = 0;
    for (const each of text.split('\n')) {
      const fail = (expected: string): never => {
        throw new FormatError({ file, offset: at, field: 'sum', expected, found: JSON.stringify(each.slice(0, 80)) });
      };
      const [, sum, size, name] =
        /^([0-9a-f]{8}) +(\d{1,16}) ([A-Za-z0-9._-]+)$/.exec(each) ?? fail('CRC-32, size and name');
      if (isSums(name!)) {
        const own = line(name!, { size: at, crc32: crc32(text.slice(0, at)) });
        if (text.slice(at) !== own) fail(JSON.stringify(own.trimEnd()));
        return sums;
      }
      if (sums.has(name!)) fail(`one line for ${name}`);
      sums.set(name!, { size: Number(size), crc32: Number.parseInt(sum!, 16) });
      at += each.length + 1;
    }
    throw new FormatError({ file, offset: at, field: 'sum', expected: `a line for ${SUMS_FILE}`, found: 'the end' });
  }
}

function line(file: string, { size, crc32 }: Sum): string {
  return `${crc32.toString(16).padStart(8, '0')} ${size.toString().padStart(12)} ${file}\n`;
}
