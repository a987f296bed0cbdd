/**
 * The scalar types of the .proto language, enumerations, and what each is in TypeScript and in JSON. 64 bits come as a
 * number or as a bigint, and which of the two is said field by field.
 *
 * JSON has crit's shape: whole numbers without quotes however large, names of enumerations, base64.
 */
import { bytesOf, textOf } from '../abi/text.ts';
import { FormatError } from '../errors.ts';
import { type Reader, TWO32, type Writer } from './wire.ts';

/** How a value lies in the file: varint, 64 bits, length-delimited, 32 bits. Groups (3, 4) CRIU never had. */
export type Wire = 0 | 1 | 2 | 5;

/** A scalar, enumeration or message type. `name` is the word of the .proto language. */
export interface Kind<T> {
  readonly name: string;
  readonly wire: Wire;
  read(from: Reader): T;
  write(to: Writer, value: T): void;
  /** A value that JSON.stringify takes, of crit's shape. */
  toJson(value: T): unknown;
  /** @throws FormatError where the JSON value is not of this kind */
  fromJson(json: unknown, at: JsonPlace): T;
}

export interface JsonPlace {
  readonly file: string;
  readonly field: string;
}

/** Throws the FormatError of a JSON value that is of another kind. */
export function notOfKind(at: JsonPlace, expected: string, json: unknown): never {
  throw new FormatError({ file: at.file, field: at.field, expected, found: `${json}`.slice(0, 40) });
}

/** JSON of a whole number: a bigint only where a double is not exact. */
function wholeToJson(value: number | bigint): number | bigint {
  return Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value);
}

function whole(json: unknown, at: JsonPlace, low: bigint, high: bigint): bigint {
  if (typeof json !== 'bigint' && !Number.isInteger(json)) notOfKind(at, 'a whole number', json);
  const value = BigInt(json as number | bigint);
  if (value < low || value > high) notOfKind(at, `a number from ${low} to ${high}`, json);
  return value;
}

function inRange(to: Writer, value: number, low: number, high: number, what: string): void {
  if (!(Number.isInteger(value) && value >= low && value <= high)) to.refuse(value, what);
}

/** A kind whose JSON is a whole number from `low` to `high`. */
function integer<T extends number | bigint>(
  name: string,
  range: readonly [low: bigint, high: bigint],
  from: (value: bigint) => T,
  read: (from: Reader) => T,
  write: (to: Writer, value: T) => void,
  wire: Wire = 0,
): Kind<T> {
  return {
    name,
    wire,
    read,
    write,
    toJson: wholeToJson,
    fromJson: (json, at) => from(whole(json, at, ...range)),
  };
}

const U32: readonly [bigint, bigint] = [0n, 2n ** 32n - 1n];
const I32: readonly [bigint, bigint] = [-(2n ** 31n), 2n ** 31n - 1n];
const U64: readonly [bigint, bigint] = [0n, 2n ** 64n - 1n];
const I64N: readonly [bigint, bigint] = [-(2n ** 53n - 1n), 2n ** 53n - 1n];

export const u32: Kind<number> = integer('uint32', U32, Number, readU32, (to, value) => {
  inRange(to, value, 0, 0xffff_ffff, 'uint32');
  to.varint(value, 0);
});

/** A negative one takes ten bytes: it is extended to 64 bits. */
export const i32: Kind<number> = integer(
  'int32',
  I32,
  Number,
  (from) => {
    const start = from.at;
    from.varint();
    const value = from.lo | 0;
    if (from.hi !== 0 && from.hi !== (value >> 31) >>> 0) from.fail(start, '32 bits', 'a larger number');
    return value;
  },
  (to, value) => {
    inRange(to, value, -0x8000_0000, 0x7fff_ffff, 'int32');
    to.varint(value, value >> 31);
  },
);

/** `sint32`: the sign is in the lowest bit. */
export const s32: Kind<number> = integer(
  'sint32',
  I32,
  Number,
  (from) => {
    const bits = readU32(from);
    return (bits >>> 1) ^ -(bits & 1);
  },
  (to, value) => {
    inRange(to, value, -0x8000_0000, 0x7fff_ffff, 'sint32');
    to.varint((value << 1) ^ (value >> 31), 0);
  },
);

/** 64 bits of which all may be used, or that a program chose freely: registers, masks, inode numbers, user data. */
export const u64: Kind<bigint> = integer(
  'uint64',
  U64,
  (value) => value,
  (from) => {
    from.varint();
    return from.hi === 0 ? BigInt(from.lo) : (BigInt(from.hi) << 32n) | BigInt(from.lo);
  },
  (to, value) => {
    if (value < 0n || value > U64[1]) to.refuse(value, 'uint64');
    to.varint64(value);
  },
);

/**
 * 64 bits as a number: sizes, positions, times, addresses of mappings. Those of the upper half of the address space
 * (the vsyscall page) are exact too, as a double holds every multiple of 2048 up to 2^64; other numbers beyond 2^53 are refused.
 */
export const u64n: Kind<number> = integer(
  'uint64',
  U64,
  Number,
  (from) => {
    const start = from.at;
    from.varint();
    if (!isExact(from.lo, from.hi)) from.fail(start, 'a number below 2^53', `${from.hi * TWO32 + from.lo}`);
    return from.hi * TWO32 + from.lo;
  },
  (to, value) => {
    inRange(to, value, 0, 2 ** 64 - 2048, 'uint64');
    const hi = Math.floor(value / TWO32);
    if (!isExact(value >>> 0, hi)) to.refuse(value, 'a number that is exact');
    to.varint(value, hi);
  },
);

/** Signed 64 bits as a number. */
export const i64n: Kind<number> = integer(
  'int64',
  I64N,
  Number,
  (from) => {
    const start = from.at;
    from.varint();
    const value = (from.hi | 0) * TWO32 + from.lo;
    if (!Number.isSafeInteger(value)) from.fail(start, 'a number within 2^53', `${value}`);
    return value;
  },
  (to, value) => {
    inRange(to, value, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 'int64');
    to.varint(value, Math.floor(value / TWO32));
  },
);

/** `sint64` as a number: the sign is in the lowest bit. */
export const s64n: Kind<number> = integer(
  'sint64',
  I64N,
  Number,
  (from) => {
    const start = from.at;
    from.varint();
    const half = from.hi * 2 ** 31 + (from.lo >>> 1);
    if (!Number.isSafeInteger(half)) from.fail(start, 'a number within 2^53', `${half}`);
    return from.lo & 1 ? -half - 1 : half;
  },
  (to, value) => {
    inRange(to, value, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 'sint64');
    const half = value < 0 ? -value - 1 : value;
    to.varint((half << 1) | (value < 0 ? 1 : 0), Math.floor(half / 2 ** 31));
  },
);

export const fixed64: Kind<bigint> = integer(
  'fixed64',
  U64,
  (value) => value,
  (from) => {
    const bytes = from.take(8);
    return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  },
  (to, value) => {
    if (value < 0n || value > U64[1]) to.refuse(value, 'fixed64');
    to.room(8);
    new DataView(to.bytes.buffer, to.at, 8).setBigUint64(0, value, true);
    to.at += 8;
  },
  1,
);

export const bool: Kind<boolean> = {
  name: 'bool',
  wire: 0,
  read(from) {
    const start = from.at;
    from.varint();
    if (from.hi !== 0 || from.lo > 1) from.fail(start, '0 or 1', `${from.hi * TWO32 + from.lo}`);
    return from.lo === 1;
  },
  write: (to, value) => to.varint(value ? 1 : 0, 0),
  toJson: (value) => value,
  fromJson: (json, at) => (typeof json === 'boolean' ? json : notOfKind(at, 'true or false', json)),
};

/** A name or a path: what is not valid UTF-8 in it is kept (src/abi/text.ts). */
export const string: Kind<string> = {
  name: 'string',
  wire: 2,
  read: (from) => textOf(from.take(from.length())),
  write: (to, value) => to.blob(bytesOf(value)),
  toJson: (value) => value,
  fromJson: (json, at) => (typeof json === 'string' ? json : notOfKind(at, 'a text', json)),
};

/** Bytes, as a copy; base64 in JSON. */
export const bytes: Kind<Uint8Array> = {
  name: 'bytes',
  wire: 2,
  read: (from) => from.take(from.length()).slice(),
  write: (to, value) => to.blob(value),
  toJson: base64,
  fromJson: fromBase64,
};

/** The address of a Unix socket, which may begin with NUL; quoted-printable in JSON, as crit has it. */
export const unixName: Kind<Uint8Array> = {
  ...bytes,
  toJson: (value) =>
    Array.from(value, (byte) =>
      byte > 0x20 && byte < 0x7f && byte !== 0x3d
        ? String.fromCharCode(byte)
        : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`,
    ).join(''),
  fromJson(json, at) {
    if (typeof json !== 'string') notOfKind(at, 'quoted-printable text', json);
    const joined = json.replace(/=\r?\n/g, '');
    const text = joined.replace(/=([0-9A-Fa-f]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
    return Uint8Array.from(Buffer.from(text, 'latin1'));
  },
};

export function base64(value: Uint8Array): string {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64');
}

/** Line breaks within are allowed: crit makes them. */
export function fromBase64(json: unknown, at: JsonPlace): Uint8Array {
  if (typeof json !== 'string') notOfKind(at, 'base64', json);
  const packed = json.replace(/\s/g, '');
  if (packed.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(packed)) notOfKind(at, 'base64', json);
  return Uint8Array.from(Buffer.from(packed, 'base64'));
}

/** An enumeration: its names, and for a value that has none (a newer CRIU's) the number. */
export function enumeration<const E extends Readonly<Record<string, number>>>(
  name: string,
  values: E,
): Kind<(keyof E & string) | number> & { readonly values: E } {
  type Name = keyof E & string;
  const names = new Map(Object.entries(values).map(([key, value]) => [value, key as Name]));
  return {
    name,
    values,
    wire: 0,
    read(from) {
      const number = i32.read(from);
      return names.get(number) ?? number;
    },
    write(to, value) {
      const number = typeof value === 'number' ? value : values[value];
      i32.write(to, number ?? to.refuse(value, name));
    },
    toJson: (value) => value,
    fromJson(json, at) {
      if (typeof json === 'string' && Object.hasOwn(values, json)) return json as Name;
      if (typeof json === 'string') notOfKind(at, `a name of ${name}`, json);
      const number = i32.fromJson(json, at);
      return names.get(number) ?? number;
    },
  };
}

/** A kind that is named before it is declared: a message that contains itself. */
export function lazy<T>(kind: () => Kind<T>): Kind<T> {
  return {
    get name() {
      return kind().name;
    },
    wire: 2,
    read: (from) => kind().read(from),
    write: (to, value) => kind().write(to, value),
    toJson: (value) => kind().toJson(value),
    fromJson: (json, at) => kind().fromJson(json, at),
  };
}

/** Whether a double holds the number with these halves: below 2^53 each, above it at least the multiples of 2048. */
export function isExact(lo: number, hi: number): boolean {
  return hi < 0x20_0000 || (lo & 0x7ff) === 0;
}

export function readU32(from: Reader): number {
  const start = from.at;
  from.varint();
  if (from.hi !== 0) from.fail(start, '32 bits', `${from.hi * TWO32 + from.lo}`);
  return from.lo;
}
