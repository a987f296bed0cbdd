/**
 * Protocol Buffers, version 2 of the language, from tables that are declared here and not generated:
 *
 *     export const pstree_entry = message('pstree_entry', { pid: [1, u32, required], threads: [5, u32, repeated] });
 *     pstree_entry.decode(bytes)     // { pid: number, threads: number[] }
 *
 * One table gives reader, writer, JSON and the TypeScript type. Encoding: protobuf.dev/programming-guides/encoding.
 * Fields are written in the order of their numbers, as protobuf-c does, so that what CRIU wrote comes back byte for byte.
 * Fields that a table does not know are kept in `[unknownFields]` and written after the known ones.
 *
 * The reader trusts nothing: a length is compared with what is there before anything is allocated, messages nest to a
 * limit, a varint has one value, and a singular field stands once. Whatever is wrong becomes a FormatError
 * that names file, byte and field.
 */
import { base64, fromBase64, type Kind, notOfKind, readU32 } from './kinds.ts';
import { Reader, Writer } from './wire.ts';

export * from './kinds.ts';

export const required = 'required';
export const repeated = 'repeated';

/** `[number, kind]` is an optional field, and a default is what its absence means: absence itself is kept. */
export type Field<T = unknown> =
  | readonly [number: number, kind: Kind<T>]
  | readonly [number: number, kind: Kind<T>, label: typeof required | typeof repeated]
  | readonly [number: number, kind: Kind<T>, option: { readonly default: T }];

export type Table = Readonly<Record<string, Field>>;

type KindOf<F> = F extends readonly [number, Kind<infer T>, ...unknown[]] ? T : never;
type Labelled<F extends Table, L> = {
  [K in keyof F]: F[K] extends readonly [number, unknown, L] ? K : never;
}[keyof F];
type Optional<F extends Table> = Exclude<keyof F, Labelled<F, typeof required> | Labelled<F, typeof repeated>>;
type Flat<T> = { [K in keyof T]: T[K] };

export const unknownFields = Symbol('unknown fields');

/** Raw tags and values of fields that the table does not know, as they stood in the file. */
export interface Unknown {
  [unknownFields]?: Uint8Array;
}

/** The TypeScript type of a message's value: an empty repeated field is an empty list, an absent one is undefined. */
export type ValueOf<F extends Table> = Unknown &
  Flat<
    { [K in Labelled<F, typeof required>]: KindOf<F[K]> } & { [K in Labelled<F, typeof repeated>]: KindOf<F[K]>[] } & {
      [K in Optional<F>]?: KindOf<F[K]> | undefined;
    }
  >;

/** The value type of a declared message: `Value<typeof pstree_entry>`. */
export type Value<M> = M extends Message<infer V> ? V : never;

/** A message is a kind too, so that messages nest. */
export interface Message<V> extends Kind<V> {
  readonly table: Table;
  /** What an absent field means, for the fields that say so. */
  readonly defaults: { readonly [K in keyof V]?: NonNullable<V[K]> };
  /**
   * @param bytes one whole message
   * @param at for errors: the file, and the byte of it where `bytes` begins
   * @throws FormatError
   */
  decode(bytes: Uint8Array, at?: { file: string; offset: number }): V;
  /** @throws RangeError for a value that its field cannot hold, TypeError where a required one is missing */
  encode(value: V): Uint8Array;
  /** As encode(), behind what the writer has. */
  append(to: Writer, value: V): void;
}

/** Messages within messages. The deepest that CRIU has is its tree of control groups. */
const MAX_DEPTH = 100;
/** Elements of one repeated field: above what max_map_count and pid_max allow a kernel in use. */
const MAX_ELEMENTS = 1 << 22;
interface Member {
  readonly name: string;
  readonly place: string;
  readonly number: number;
  /** What stands before each value. */
  readonly tag: number;
  readonly kind: Kind<unknown>;
  readonly required: boolean;
  readonly repeated: boolean;
}

/** JSON's key for unknown fields; no field of CRIU's begins with an underscore. */
const UNKNOWN_KEY = '_unknown';

/** Declares a message. The name is the one in CRIU's .proto files. */
export function message<const F extends Table>(name: string, table: F): Message<ValueOf<F>> {
  type Loose = Record<string, unknown> & Unknown;
  const members: Member[] = Object.entries(table as Table)
    .map(([field, [number, kind, option]]) => ({
      name: field,
      place: `${name}.${field}`,
      number,
      tag: (number << 3) | kind.wire,
      kind,
      required: option === required,
      repeated: option === repeated,
    }))
    .sort((a, b) => a.number - b.number);
  const byNumber = new Map(members.map((member) => [member.number, member]));
  if (byNumber.size !== members.length) throw new Error(`message ${name}: a field number stands twice`);
  const lists = members.filter((member) => member.repeated);
  const demanded = members.filter((member) => member.required);
  const defaults: Record<string, NonNullable<unknown>> = {};
  for (const [field, [, , option]] of Object.entries(table as Table)) {
    if (typeof option === 'object') defaults[field] = option.default as NonNullable<unknown>;
  }

  function fields(from: Reader): Loose {
    const begin = from.at;
    const value: Loose = {};
    let unknown: Writer | undefined;
    for (const list of lists) value[list.name] = [];
    while (from.at < from.end) {
      const start = from.at;
      from.field = name;
      const tag = readU32(from);
      const member = byNumber.get(tag >>> 3);
      if (tag >>> 3 === 0) from.fail(start, 'a field number', '0');
      if (member === undefined) {
        from.skip(tag & 7);
        unknown ??= new Writer();
        unknown.raw(from.bytes.subarray(start, from.at));
        continue;
      }
      from.field = member.place;
      readMember(from, member, tag & 7, start, value);
    }
    for (const member of demanded) {
      if (value[member.name] !== undefined) continue;
      from.field = member.place;
      from.fail(begin, 'a value, as it is required', 'none');
    }
    if (unknown !== undefined) value[unknownFields] = unknown.finish();
    return value;
  }

  function readMember(from: Reader, member: Member, wire: number, start: number, value: Loose): void {
    const { kind } = member;
    if (!member.repeated) {
      if (wire !== kind.wire) from.fail(start, `wire type ${kind.wire}`, `${wire}`);
      if (value[member.name] !== undefined) from.fail(start, 'one value', 'a second one');
      value[member.name] = kind.read(from);
      return;
    }
    const list = value[member.name] as unknown[];
    if (wire === kind.wire) {
      // Most stand one behind the other.
      do readElement(from, member, list);
      while (list.length <= MAX_ELEMENTS && from.goesOn(member.tag));
    } else if (wire === 2) {
      // Packed: the elements one after the other behind one length.
      const outer = from.end;
      from.end = from.length() + from.at;
      while (from.at < from.end && list.length <= MAX_ELEMENTS) list.push(kind.read(from));
      from.end = outer;
    } else from.fail(start, `wire type ${kind.wire} or 2`, `${wire}`);
    if (list.length > MAX_ELEMENTS) from.fail(start, `at most ${MAX_ELEMENTS} elements`, 'more');
  }

  /** Reads one, and zeros behind one that is 0: three quarters of the registers of a thread are. */
  function readElement(from: Reader, { kind, tag }: Member, list: unknown[]): void {
    const value = kind.read(from);
    list.push(value);
    if (value !== 0 && value !== 0n) return;
    for (let left = kind.wire === 0 ? from.zeros(tag, MAX_ELEMENTS + 1 - list.length) : 0; left > 0; left--)
      list.push(value);
  }

  function write(to: Writer, value: Loose): void {
    for (const member of members) {
      const given = value[member.name];
      if (given === undefined) {
        if (member.required) throw new TypeError(`${member.place} is required`);
      } else if (member.repeated) writeElements(to, member, given as unknown[]);
      else writeMember(to, member, given);
    }
    if (value[unknownFields] !== undefined) to.raw(value[unknownFields]);
  }

  function writeElements(to: Writer, member: Member, list: readonly unknown[]): void {
    const { length } = list;
    let zeros = 0;
    let last = 0;
    for (let i = 0; i < length; i++) {
      const value = list[i];
      // Most actions of signals are the default one, which is one object.
      if (member.kind.wire === 2 && i > 0 && value === list[i - 1]) {
        const { at } = to;
        to.again(last);
        last = at;
        continue;
      }
      if (member.kind.wire === 0 && (value === 0 || value === 0n)) {
        zeros++;
        continue;
      }
      if (zeros > 0) to.zeros(member.tag, zeros);
      zeros = 0;
      last = to.at;
      writeMember(to, member, value);
    }
    if (zeros > 0) to.zeros(member.tag, zeros);
  }

  function writeMember(to: Writer, { place, tag, kind }: Member, value: unknown): void {
    to.varint(tag, 0);
    to.field = place;
    kind.write(to, value);
  }

  const declared: Message<Loose> = {
    name,
    wire: 2,
    table,
    defaults,
    read(from) {
      const start = from.at;
      const outer = from.end;
      from.end = from.length() + from.at;
      if (++from.depth > MAX_DEPTH) from.fail(start, `at most ${MAX_DEPTH} messages within each other`, 'more');
      const value = fields(from);
      from.depth--;
      from.end = outer;
      return value;
    },
    write(to, value) {
      const start = to.begin();
      write(to, value);
      to.end(start);
    },
    decode(bytes, at = { file: name, offset: 0 }) {
      return fields(new Reader(bytes, at.file, at.offset));
    },
    encode(value) {
      const to = new Writer();
      write(to, value);
      return to.finish();
    },
    append: write,
    toJson(value) {
      const json: Record<string, unknown> = {};
      for (const { name: field, kind, repeated } of members) {
        const given = value[field];
        if (repeated) {
          if ((given as unknown[]).length > 0) json[field] = (given as unknown[]).map((each) => kind.toJson(each));
        } else if (given !== undefined) json[field] = kind.toJson(given);
      }
      if (value[unknownFields] !== undefined) json[UNKNOWN_KEY] = base64(value[unknownFields]);
      return json;
    },
    fromJson(json, at) {
      if (typeof json !== 'object' || json === null || Array.isArray(json)) notOfKind(at, `an object (${name})`, json);
      const given = json as Record<string, unknown>;
      const value: Loose = {};
      for (const { name: field, place, kind, repeated, required } of members) {
        const here = { file: at.file, field: place };
        const each = given[field];
        if (repeated) {
          if (each !== undefined && !Array.isArray(each)) notOfKind(here, 'a list', each);
          value[field] = (each ?? []).map((element: unknown) => kind.fromJson(element, here));
        } else if (each !== undefined) value[field] = kind.fromJson(each, here);
        else if (required) notOfKind(here, 'a value, as it is required', 'none');
      }
      for (const field of Object.keys(given)) {
        if (field === UNKNOWN_KEY) value[unknownFields] = fromBase64(given[field], { file: at.file, field });
        else if (!Object.hasOwn(table, field))
          notOfKind({ file: at.file, field: name }, 'fields of this message', field);
      }
      return value;
    },
  };
  return declared as unknown as Message<ValueOf<F>>;
}
