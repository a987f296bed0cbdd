/**
 * The headers of a tar archive: POSIX.1-2017 pax, "ustar Interchange Format". A file has a header of 512 bytes, then its bytes
 * filled with zeros to a multiple of 512; two blocks of zeros end the archive. Sizes of 8 GiB and more stand in an extended
 * header (type x) before; GNU tar's binary form of them is read too.
 */
import { FormatError } from '../errors.ts';

export const BLOCK = 512;
const OCTAL_LIMIT = 8 ** 11;
/** Extended headers have a few short records. */
const MAX_EXTENDED = 64 << 10;

export interface TarHeader {
  readonly name: string;
  /** `0` a file, `5` a directory, `x` and `g` extended headers, `2` a symbolic link, ... */
  readonly type: string;
  /** In bytes. */
  readonly size: number;
}

/** The header or headers of a regular file, mode 0600. */
export function fileHeader(name: string, size: number): Uint8Array {
  if (size < OCTAL_LIMIT) return block(name, size, '0');
  const record = extendedRecord('size', `${size}`);
  const extended = new Uint8Array(BLOCK);
  extended.set(Buffer.from(record));
  return Buffer.concat([block(`PaxHeaders/${name}`, record.length, 'x'), extended, block(name, 0, '0')]);
}

export function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/** A record `LENGTH KEY=VALUE\n` whose length counts its own digits. */
function extendedRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length;
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
  return `${length}${rest}`;
}

function block(name: string, size: number, type: string): Uint8Array {
  const header = Buffer.alloc(BLOCK);
  if (name.length > 100) throw new RangeError(`${name} is too long for a tar header`);
  const octal = (value: number, at: number, width: number) =>
    header.write(`${value.toString(8).padStart(width - 1, '0')}\0`, at, 'latin1');
  header.write(name, 0, 'latin1');
  octal(0o600, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(0, 136, 12);
  header.write(type, 156, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  header.write(`${checksum(header).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/** Sum of all bytes, with those of the sum itself taken as spaces. */
function checksum(header: Uint8Array): number {
  let sum = 8 * 0x20;
  for (let at = 0; at < BLOCK; at++) sum += at >= 148 && at < 156 ? 0 : header[at]!;
  return sum;
}

/**
 * Reads headers from an archive, with the extended ones applied.
 *
 * @param read returns exactly that many bytes of the archive, or throws
 * @param at for errors, where the header begins
 * @returns undefined at the end of the archive
 */
export function readHeader(read: (count: number) => Uint8Array, file: string, at: () => number): TarHeader | undefined {
  const extended = new Map<string, string>();
  for (;;) {
    const offset = at();
    const header = Buffer.from(read(BLOCK));
    const fail = (field: string, expected: string, found: string): never => {
      throw new FormatError({ file, offset, field, expected, found });
    };
    if (header.every((byte) => byte === 0)) return undefined;
    const number = (from: number, length: number, field: string): number => {
      // GNU tar: the highest bit set and a binary number, most significant byte first.
      if (header[from] === 0x80) return Number(BigInt(`0x${header.toString('hex', from + 1, from + length)}`));
      const text = header
        .toString('latin1', from, from + length)
        .replace(/[\0 ]+$/, '')
        .trimStart();
      if (!/^[0-7]+$/.test(text)) fail(field, 'an octal number', JSON.stringify(text));
      return Number.parseInt(text, 8);
    };
    const text = (from: number, length: number): string =>
      header.toString('utf8', from, from + length).replace(/\0.*$/s, '');
    if (text(257, 5) !== 'ustar') fail('tar magic', 'ustar', JSON.stringify(text(257, 6)));
    const sum = number(148, 8, 'tar checksum');
    if (sum !== checksum(header)) fail('tar checksum', `${checksum(header)}`, `${sum}`);
    const type = text(156, 1) || '0';
    const size = number(124, 12, 'tar size');
    if (!Number.isSafeInteger(size)) fail('tar size', 'a number below 2^53', `${size}`);
    if (type !== 'x' && type !== 'g') {
      const prefix = text(345, 155);
      const name = extended.get('path') ?? (prefix === '' ? text(0, 100) : `${prefix}/${text(0, 100)}`);
      const long = extended.get('size');
      const isNumber = long === undefined || (/^\d{1,16}$/.test(long) && Number.isSafeInteger(Number(long)));
      if (!isNumber) fail('pax size', 'a number below 2^53', JSON.stringify(long));
      return { name, type, size: Number(long ?? size) };
    }
    if (size > MAX_EXTENDED) fail('tar size', `at most ${MAX_EXTENDED} for an extended header`, `${size}`);
    const records = Buffer.from(read(size + paddingOf(size))).toString('utf8', 0, size);
    if (type === 'x')
      for (const [, key, value] of records.matchAll(/\d+ ([^=]+)=([^\n]*)\n/g)) extended.set(key!, value!);
  }
}
