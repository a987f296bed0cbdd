/**
 * The headers of a tar archive: POSIX.1-2017 pax, "ustar Interchange Format". A file has a header of 512 bytes, then its bytes
 * filled with zeros to a multiple of 512; two blocks of zeros end the archive. Sizes of 8 GiB and more stand in an extended
 * header (type x) before; GNU tar's binary form of them is read too.
 */
import { bytesOf, textOf } from '../abi/text.ts';
import { FormatError } from '../errors.ts';

export const BLOCK = 512;
const OCTAL_LIMIT = 8 ** 11;
/** Of a number of seven digits. */
const SHORT_LIMIT = 8 ** 7;
/** Extended headers have a few short records. */
const MAX_EXTENDED = 64 << 10;

export interface TarEntry {
  readonly name: string;
  /** `0` a file, `1` one more name of one, `2` a symbolic link, `3` and `4` devices, `5` a directory, `6` a FIFO. */
  readonly type: string;
  /** In bytes, of what follows. */
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: { readonly tv_sec: number; readonly tv_nsec: number };
  /** What a link leads to. */
  readonly linkname: string;
  readonly major: number;
  readonly minor: number;
}

/** Of a file as GNU tar writes it where it has holes: what follows are these pieces. */
export interface Sparse {
  /** Of the file, in bytes. */
  readonly size: number;
  readonly pieces: readonly { readonly offset: number; readonly size: number }[];
}

export interface TarHeader extends TarEntry {
  readonly sparse?: Sparse | undefined;
}

/** The header or headers of a regular file, mode 0600. */
export function fileHeader(name: string, size: number): Uint8Array {
  const mtime = { tv_sec: 0, tv_nsec: 0 };
  return header({ name, type: '0', size, mode: 0o600, uid: 0, gid: 0, mtime, linkname: '', major: 0, minor: 0 });
}

/** The header or headers of an entry. */
export function header(entry: TarEntry): Uint8Array {
  const { name, size, uid, gid, mtime, linkname } = entry;
  const records: [string, string][] = [];
  const short = { ...entry, name: bytesOf(name), linkname: bytesOf(linkname) };
  if (short.name.length > 100) {
    records.push(['path', name]);
    short.name = short.name.subarray(0, 100);
  }
  if (short.linkname.length > 100) {
    records.push(['linkpath', linkname]);
    short.linkname = short.linkname.subarray(0, 100);
  }
  if (size >= OCTAL_LIMIT) records.push(['size', `${size}`]);
  if (uid >= SHORT_LIMIT) records.push(['uid', `${uid}`]);
  if (gid >= SHORT_LIMIT) records.push(['gid', `${gid}`]);
  const negative = mtime.tv_sec < 0;
  if (mtime.tv_nsec !== 0 || negative || mtime.tv_sec >= OCTAL_LIMIT) records.push(['mtime', decimal(mtime)]);
  const main = block({
    ...short,
    size: size >= OCTAL_LIMIT ? 0 : size,
    uid: uid >= SHORT_LIMIT ? 0 : uid,
    gid: gid >= SHORT_LIMIT ? 0 : gid,
    mtime: negative || mtime.tv_sec >= OCTAL_LIMIT ? 0 : mtime.tv_sec,
  });
  if (records.length === 0) return main;
  const text = Buffer.concat(records.map(([key, value]) => extendedRecord(key, bytesOf(value))));
  const extended = new Uint8Array(text.length + paddingOf(text.length));
  extended.set(text);
  const about = Buffer.concat([Buffer.from('PaxHeaders/'), short.name]).subarray(0, 100);
  const first = { ...short, name: about, linkname: new Uint8Array(0), type: 'x', size: text.length, mode: 0o600 };
  return Buffer.concat([block({ ...first, uid: 0, gid: 0, mtime: 0, major: 0, minor: 0 }), extended, main]);
}

export function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/** Seconds with nine digits behind the point, rounded to no other number. */
function decimal({ tv_sec, tv_nsec }: TarEntry['mtime']): string {
  const whole = BigInt(tv_sec) * 1_000_000_000n + BigInt(tv_nsec);
  const size = whole < 0n ? -whole : whole;
  const digits = `${size % 1_000_000_000n}`.padStart(9, '0');
  return `${whole < 0n ? '-' : ''}${size / 1_000_000_000n}.${digits}`;
}

/** A record `LENGTH KEY=VALUE\n` whose length counts its own digits. */
function extendedRecord(key: string, value: Uint8Array): Uint8Array {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  let length = rest.length;
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
  return Buffer.concat([Buffer.from(`${length}`), rest]);
}

interface Block extends Omit<TarEntry, 'name' | 'linkname' | 'mtime'> {
  readonly name: Uint8Array;
  readonly linkname: Uint8Array;
  readonly mtime: number;
}

/** One header as it stands. A size of 8 GiB and more is in GNU tar's binary form, for archives that have no extended headers. */
export function block({ name, linkname, ...entry }: Block): Uint8Array {
  const header = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, width: number) =>
    header.write(`${value.toString(8).padStart(width - 1, '0')}\0`, at, 'latin1');
  header.set(name, 0);
  octal(entry.mode, 100, 8);
  octal(entry.uid, 108, 8);
  octal(entry.gid, 116, 8);
  if (entry.size < OCTAL_LIMIT) octal(entry.size, 124, 12);
  else {
    header[124] = 0x80;
    header.writeBigUInt64BE(BigInt(entry.size), 128);
  }
  octal(entry.mtime, 136, 12);
  header.write(entry.type, 156, 'latin1');
  header.set(linkname, 157);
  header.write('ustar\x0000', 257, 'latin1');
  if (entry.major !== 0 || entry.minor !== 0) {
    octal(entry.major, 329, 8);
    octal(entry.minor, 337, 8);
  }
  header.write(`${checksum(header).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/** Sum of all bytes, with those of the sum itself taken as spaces. */
function checksum(header: Uint8Array): number {
  let sum = 8 * 0x20;
  for (let at = 0; at < BLOCK; at++) sum += header[at]!;
  for (let at = 148; at < 156; at++) sum -= header[at]!;
  return sum;
}

/**
 * Reads headers from an archive, with the extended ones applied, also those of GNU tar: L and K for long names, S for holes.
 *
 * @param read returns exactly that many bytes of the archive, or throws
 * @param at for errors, where the header begins
 * @returns undefined at the end of the archive; some of its fields throw FormatError when they are asked for
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
    const numberIn = (bytes: Buffer, from: number, length: number, field: string): number => {
      // GNU tar: the highest bit set and a binary number, most significant byte first.
      if (bytes[from] === 0x80) return Number(BigInt(`0x${bytes.toString('hex', from + 1, from + length)}`));
      const text = bytes
        .toString('latin1', from, from + length)
        .replace(/[\0 ]+$/, '')
        .trimStart();
      if (!/^[0-7]+$/.test(text)) fail(field, 'an octal number', JSON.stringify(text));
      return Number.parseInt(text, 8);
    };
    const number = (from: number, length: number, field: string) => numberIn(header, from, length, field);
    const text = (from: number, length: number): string => upToNul(header.subarray(from, from + length));
    if (text(257, 5) !== 'ustar') fail('tar magic', 'ustar', JSON.stringify(text(257, 6)));
    const sum = number(148, 8, 'tar checksum');
    if (sum !== checksum(header)) fail('tar checksum', `${checksum(header)}`, `${sum}`);
    const type = text(156, 1) || '0';
    const size = number(124, 12, 'tar size');
    if (!Number.isSafeInteger(size)) fail('tar size', 'a number below 2^53', `${size}`);
    if ('xgLK'.includes(type)) {
      if (size > MAX_EXTENDED) fail('tar size', `at most ${MAX_EXTENDED} for an extended header`, `${size}`);
      const bytes = read(size + paddingOf(size)).subarray(0, size);
      if (type === 'L') extended.set('path', upToNul(bytes));
      if (type === 'K') extended.set('linkpath', upToNul(bytes));
      if (type === 'x') for (const [key, value] of recordsOf(bytes)) extended.set(key, value);
      continue;
    }
    const isGnu = text(257, 6) === 'ustar ';
    const prefix = isGnu ? '' : text(345, 155);
    const whole = (key: string, otherwise: () => number): number => {
      const long = extended.get(key);
      if (long === undefined) return otherwise();
      const isNumber = /^\d{1,16}$/.test(long) && Number.isSafeInteger(Number(long));
      if (!isNumber) fail(`pax ${key}`, 'a number below 2^53', JSON.stringify(long));
      return Number(long);
    };
    const isDevice = type === '3' || type === '4';
    return {
      name: extended.get('path') ?? (prefix === '' ? text(0, 100) : `${prefix}/${text(0, 100)}`),
      type: type === 'S' ? '0' : type,
      size: whole('size', () => size),
      // An image needs none of these, and has many files.
      get mode() {
        return number(100, 8, 'tar mode');
      },
      get uid() {
        return whole('uid', () => number(108, 8, 'tar uid'));
      },
      get gid() {
        return whole('gid', () => number(116, 8, 'tar gid'));
      },
      get mtime() {
        const time = /^(-?)(\d+)(?:\.(\d{1,9})\d*)?$/.exec(extended.get('mtime') ?? '');
        return time === null ? { tv_sec: number(136, 12, 'tar mtime'), tv_nsec: 0 } : timeOf(time);
      },
      get linkname() {
        return extended.get('linkpath') ?? text(157, 100);
      },
      major: isDevice ? number(329, 8, 'tar devmajor') : 0,
      minor: isDevice ? number(337, 8, 'tar devminor') : 0,
      ...(type === 'S' ? { sparse: readSparse(header, read, numberIn) } : {}),
    };
  }
}

/** GNU tar's old form of holes: four pieces in the header, 21 in each block that follows. */
function readSparse(
  header: Buffer,
  read: (count: number) => Uint8Array,
  number: (bytes: Buffer, from: number, length: number, field: string) => number,
): Sparse {
  const pieces: { offset: number; size: number }[] = [];
  const take = (bytes: Buffer, from: number, count: number): void => {
    for (let at = from; at < from + 24 * count && bytes[at] !== 0; at += 24) {
      const offset = number(bytes, at, 12, 'tar hole');
      pieces.push({ offset, size: number(bytes, at + 12, 12, 'tar hole') });
    }
  };
  take(header, 386, 4);
  for (let more = header[482] !== 0; more; ) {
    const next = Buffer.from(read(BLOCK));
    take(next, 0, 21);
    more = next[504] !== 0;
  }
  return { size: number(header, 483, 12, 'tar size'), pieces };
}

function timeOf([, sign, seconds, digits = '']: RegExpExecArray): TarEntry['mtime'] {
  const nanoseconds = Number(digits.padEnd(9, '0'));
  if (sign === '') return { tv_sec: Number(seconds), tv_nsec: nanoseconds };
  return nanoseconds === 0
    ? { tv_sec: -Number(seconds), tv_nsec: 0 }
    : { tv_sec: -Number(seconds) - 1, tv_nsec: 1_000_000_000 - nanoseconds };
}

function upToNul(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return textOf(end < 0 ? bytes : bytes.subarray(0, end));
}

/** `LENGTH KEY=VALUE\n`, one after the other; what is not of this form ends them. */
function* recordsOf(bytes: Uint8Array): Generator<[string, string]> {
  for (let at = 0; at < bytes.length; ) {
    const blank = bytes.indexOf(0x20, at);
    const length = Number(Buffer.from(bytes.subarray(at, blank)).toString('latin1'));
    const equals = bytes.indexOf(0x3d, blank);
    if (blank < 0 || equals < 0 || !(length > equals - at) || at + length > bytes.length) return;
    yield [textOf(bytes.subarray(blank + 1, equals)), textOf(bytes.subarray(equals + 1, at + length - 1))];
    at += length;
  }
}
