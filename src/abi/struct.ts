/**
 * One declaration of a kernel struct gives its size check, offsets, reader, writer and TypeScript type.
 *
 *     export const iovec = struct('iovec', 16, { iov_base: u64n, iov_len: u64n });
 *     iovec.offsets.iov_len      // 8
 *     iovec.read(bytes, at)      // { iov_base: number, iov_len: number }
 *
 * Field order and names are those of the header; padding follows the x86-64 psABI (each field at a multiple
 * of its alignment), so it is not written down. The size stands beside the name because it is the ABI: a declaration
 * that lays out differently throws when its module loads. The same declaration reads live memory, a dump
 * and an image. A loop over millions of records takes `offsets` and its own DataView instead of `read`.
 */

/** How one field lies in memory. `size` and `align` in bytes; `le` is true for little-endian. */
export interface FieldType<T> {
  readonly size: number;
  readonly align: number;
  get(view: DataView, at: number, le: boolean): T;
  set(view: DataView, at: number, value: T, le: boolean): void;
}

const TWO32 = 0x1_0000_0000;

export const u8: FieldType<number> = scalar(1, 'Uint8');
export const u16: FieldType<number> = scalar(2, 'Uint16');
export const u32: FieldType<number> = scalar(4, 'Uint32');
export const i8: FieldType<number> = scalar(1, 'Int8');
export const i16: FieldType<number> = scalar(2, 'Int16');
export const i32: FieldType<number> = scalar(4, 'Int32');

/** `__be16`: network byte order, whatever the struct around it has. */
export const be16: FieldType<number> = {
  ...u16,
  get: (view, at) => view.getUint16(at, false),
  set: (view, at, value) => u16.set(view, at, value, false),
};

/** 64 bits of which all may be used: kernel addresses, masks, hashes. */
export const u64: FieldType<bigint> = {
  size: 8,
  align: 8,
  get: (view, at, le) => view.getBigUint64(at, le),
  set: (view, at, value, le) => view.setBigUint64(at, value, le),
};

/** 64 bits that count something: sizes, offsets, physical and user addresses. A value beyond 2^53 is a RangeError. */
export const u64n: FieldType<number> = {
  size: 8,
  align: 8,
  get(view, at, le) {
    const value = view.getUint32(at + (le ? 4 : 0), le) * TWO32 + view.getUint32(at + (le ? 0 : 4), le);
    return exact(value);
  },
  set(view, at, value, le) {
    if (value < 0) throw new RangeError(`${value} is not an unsigned 64-bit number`);
    view.setUint32(at + (le ? 4 : 0), Math.floor(exact(value) / TWO32), le);
    view.setUint32(at + (le ? 0 : 4), value >>> 0, le);
  },
};

/** Signed 64 bits as a number: file positions, times, results. A value beyond 2^53 is a RangeError. */
export const i64n: FieldType<number> = {
  size: 8,
  align: 8,
  get: (view, at, le) => exact(view.getInt32(at + (le ? 4 : 0), le) * TWO32 + view.getUint32(at + (le ? 0 : 4), le)),
  set(view, at, value, le) {
    view.setInt32(at + (le ? 4 : 0), Math.floor(exact(value) / TWO32), le);
    view.setUint32(at + (le ? 0 : 4), value >>> 0, le);
  },
};

/** `type name[count]`. */
export function array<T>(type: FieldType<T>, count: number): FieldType<T[]> {
  return {
    size: type.size * count,
    align: type.align,
    get: (view, at, le) => Array.from({ length: count }, (_, i) => type.get(view, at + i * type.size, le)),
    set(view, at, values, le) {
      if (values.length !== count) throw new RangeError(`${values.length} elements for an array of ${count}`);
      for (const [i, value] of values.entries()) type.set(view, at + i * type.size, value, le);
    },
  };
}

/** `__u8 name[count]`, as a copy. */
export function bytes(count: number): FieldType<Uint8Array> {
  return {
    size: count,
    align: 1,
    get: (view, at) => window(view, at, count).slice(),
    set(view, at, value) {
      if (value.length !== count) throw new RangeError(`${value.length} bytes for a field of ${count}`);
      window(view, at, count).set(value);
    },
  };
}

/** `char name[count]`: text up to the first NUL, the rest filled with NULs. A full field has no NUL. */
export function chars(count: number): FieldType<string> {
  const raw = bytes(count);
  return {
    size: count,
    align: 1,
    get(view, at, le) {
      const value = raw.get(view, at, le);
      const end = value.indexOf(0);
      return Buffer.from(end < 0 ? value : value.subarray(0, end)).toString('latin1');
    },
    set(view, at, value, le) {
      if (value.length > count) throw new RangeError(`${value.length} characters for a field of ${count}`);
      const field = new Uint8Array(count);
      for (let i = 0; i < value.length; i++) field[i] = value.charCodeAt(i);
      raw.set(view, at, field, le);
    },
  };
}

/** A field at an alignment of its own: `__attribute__((aligned(n)))`, or 1 for one that is packed. */
export function aligned<T>(type: FieldType<T>, align: number): FieldType<T> {
  return { ...type, align };
}

export type Fields = Record<string, FieldType<unknown>>;

/** The TypeScript type of a struct's value. */
export type ValueOf<F extends Fields> = { -readonly [K in keyof F]: F[K] extends FieldType<infer T> ? T : never };

/** A struct is a field type too, so that structs nest. */
export interface Struct<F extends Fields> extends FieldType<ValueOf<F>> {
  readonly name: string;
  readonly offsets: { readonly [K in keyof F]: number };
  /** Reads one struct out of `from` at byte `at`. RangeError where it does not fit. */
  read(from: Uint8Array, at?: number): ValueOf<F>;
  /** Writes the given fields at byte `at` and zeroes the others and the padding. Without `into` makes a new buffer. */
  write(value: Partial<ValueOf<F>>, into?: Uint8Array, at?: number): Uint8Array;
}

export interface StructOptions {
  /** Byte order; x86-64 is little-endian and so is the default. */
  readonly endian?: 'little' | 'big';
  /** `__attribute__((packed))`: no padding anywhere. */
  readonly packed?: boolean;
}

/**
 * Declares a struct.
 *
 * @param name as in the header, for error messages
 * @param size sizeof in bytes, as the header's authors promise it
 * @throws Error where the fields lay out to another size
 */
export function struct<const F extends Fields>(
  name: string,
  size: number,
  fields: F,
  options: StructOptions = {},
): Struct<F> {
  const le = options.endian !== 'big';
  const list = Object.entries<FieldType<unknown>>(fields);
  const offsets: Record<string, number> = {};
  let end = 0;
  let align = 1;
  for (const [field, type] of list) {
    const fieldAlign = options.packed ? 1 : type.align;
    end = Math.ceil(end / fieldAlign) * fieldAlign;
    offsets[field] = end;
    end += type.size;
    align = Math.max(align, fieldAlign);
  }
  end = Math.ceil(end / align) * align;
  if (end !== size) throw new Error(`struct ${name}: its fields take ${end} bytes, the ABI says ${size}`);

  const get = (view: DataView, at: number) => {
    inside(view, at, size);
    const value: Record<string, unknown> = {};
    for (const [field, type] of list) value[field] = type.get(view, at + offsets[field]!, le);
    return value as ValueOf<F>;
  };
  const set = (view: DataView, at: number, value: Partial<ValueOf<F>>) => {
    window(view, at, size).fill(0);
    for (const [field, type] of list) {
      const given = (value as Record<string, unknown>)[field];
      if (given !== undefined) type.set(view, at + offsets[field]!, given, le);
    }
  };
  return {
    name,
    size,
    align,
    offsets: offsets as { [K in keyof F]: number },
    get,
    set,
    read: (from, at = 0) => get(viewOf(from), at),
    write(value, into = new Uint8Array(size), at = 0) {
      set(viewOf(into), at, value);
      return into;
    },
  };
}

/** A DataView over the same bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function inside(view: DataView, at: number, length: number): void {
  if (at < 0 || at + length > view.byteLength) {
    throw new RangeError(`bytes ${at} to ${at + length} of ${view.byteLength}`);
  }
}

/** Some bytes of a view. A DataView checks its bounds by itself; the buffer under it may be larger than the view. */
function window(view: DataView, at: number, length: number): Uint8Array {
  inside(view, at, length);
  return new Uint8Array(view.buffer, view.byteOffset + at, length);
}

function exact(value: number): number {
  if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not a whole number below 2^53`);
  return value;
}

function scalar(size: number, kind: 'Uint8' | 'Uint16' | 'Uint32' | 'Int8' | 'Int16' | 'Int32'): FieldType<number> {
  const [low, high] = kind.startsWith('U')
    ? [0, 2 ** (8 * size) - 1]
    : [-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1];
  return {
    size,
    align: size,
    get: (view, at, le) => view[`get${kind}`](at, le),
    set(view, at, value, le) {
      if (!(value >= low && value <= high)) throw new RangeError(`${value} does not fit ${kind}`);
      view[`set${kind}`](at, value, le);
    },
  };
}
