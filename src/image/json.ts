/**
 * Images as JSON and back, without loss, in the shape of `crit decode` and `crit encode`:
 *
 *     { "magic": "PSTREE", "entries": [ { "pid": 17, ... }, ... ] }
 *
 * Whole numbers have no quotes however large they are. What is raw behind a message is `extra`: base64; for a TCP stream
 * `{inq, outq}`, for semaphores their values, for message queues messages and texts in turn. Beyond crit's there is
 * `_unknown`, the fields that a newer CRIU wrote. Pages and other raw files are not put into JSON but copied.
 */
import { FormatError } from '../errors.ts';
import { type ImageRecord, ImageWriter, isRecord, readBlob, records, typeOf } from './file.ts';
import { INFO_FILE } from './info.ts';
import { ipc_msg_entry, ipc_sem_entry } from './messages/ipc.ts';
import { tcp_stream_entry } from './messages/sockets.ts';
import { base64, fromBase64, type JsonPlace, type Message } from './proto.ts';
import {
  copySource,
  type ImageDraft,
  type ImageStore,
  readWhole,
  type Sink,
  type Source,
  withSource,
} from './store.ts';
import { isSums } from './sums.ts';
import { type ImageType, isRaw, type Part, typeByName } from './types.ts';

/** A text longer than this is not JSON of an image: V8's longest string is 512 MiB. */
const MAX_TEXT = 256 << 20;

type Json = Record<string, unknown>;

/** Writes an image as JSON, a line for each entry. Errors as for records(). */
export function imageToJson(source: Source, sink: Sink): void {
  const type = typeOf(source);
  const write = (text: string) => sink.write(Buffer.from(text));
  write(`{"magic": ${JSON.stringify(type.name)}, "entries": [`);
  let separator = '\n';
  let message: Json | undefined;
  const flush = () => {
    if (message === undefined) return;
    write(separator + stringify(message));
    separator = ',\n';
  };
  for (const record of records(source, type)) {
    if (type.inner !== undefined && (record.message as unknown) === type.inner.part.message) {
      // Messages of a queue stand within their queue.
      const extra = message!.extra as unknown[];
      extra.push(record.message.toJson(record.value), base64(readBlob(source, record)));
      continue;
    }
    flush();
    message = record.message.toJson(record.value) as Json;
    const extra = extraToJson(source, record, type);
    if (extra !== undefined) message.extra = extra;
  }
  flush();
  write('\n]}\n');
  sink.close();
}

function extraToJson(source: Source, record: ImageRecord, type: ImageType): unknown {
  if (isRecord(record, ipc_msg_entry)) return [];
  const part = partOf(type, record.message);
  if (part.blob === undefined) return undefined;
  const blob = readBlob(source, record);
  if (isRecord(record, tcp_stream_entry)) {
    const { inq_len } = record.value;
    return { inq: base64(blob.subarray(0, inq_len)), outq: base64(blob.subarray(inq_len)) };
  }
  if (isRecord(record, ipc_sem_entry)) {
    const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
    return Array.from({ length: record.value.nsems }, (_, index) => view.getUint16(2 * index, true));
  }
  return blob.length > 0 || record.message !== type.head?.message ? base64(blob) : undefined;
}

/**
 * Writes the image of a JSON text.
 *
 * @param file name of the text, for errors
 * @throws FormatError where it is not the JSON of an image
 */
export function jsonToImage(text: string, file: string, sink: Sink): void {
  const { type, entries } = parseImage(text, file);
  const writer = new ImageWriter(sink, type);
  for (const [index, json] of entries.entries()) {
    const part = index === 0 && type.head !== undefined ? type.head : type.entry;
    writeEntry(writer, type, part, json, { file, field: `${type.name} entry ${index}` });
  }
  writer.close();
}

function parseImage(text: string, file: string): { type: ImageType; entries: Json[] } {
  const fail = (field: string, expected: string, found: string): never => {
    throw new FormatError({ file, field, expected, found: found.slice(0, 80) });
  };
  let image: { magic?: unknown; entries?: unknown } | null;
  try {
    image = parse(text) as typeof image;
  } catch (error) {
    return fail('text', 'JSON', (error as Error).message);
  }
  const name = image?.magic;
  const type = typeof name === 'string' ? typeByName(name) : undefined;
  if (type === undefined) return fail('magic', 'the name of an image type', `${JSON.stringify(name)}`);
  const entries = image!.entries;
  const areEntries = Array.isArray(entries) && entries.every((entry) => typeof entry === 'object' && entry !== null);
  return areEntries ? { type, entries } : fail('entries', 'a list of objects', typeof entries);
}

function writeEntry(
  writer: ImageWriter<unknown, unknown, unknown>,
  type: ImageType,
  part: Part<unknown>,
  json: Json,
  at: JsonPlace,
): void {
  const { extra, ...fields } = json;
  const value = part.message.fromJson(fields, at);
  const place = { file: at.file, field: `${at.field}: extra` };
  const isInner = type.inner !== undefined;
  const blob = extra === undefined || isInner ? undefined : extraFromJson(part.message, extra, place);
  const length = part.blob?.(value, blob?.length ?? 0) ?? 0;
  if ((blob?.length ?? 0) !== length) {
    throw new FormatError({ ...place, expected: `${length} bytes`, found: `${blob?.length ?? 'none'}` });
  }
  if (part === type.head) writer.head(value, blob);
  else writer.entry(value, blob);
  if (!isInner) return;
  const messages = Array.isArray(extra) ? extra : [];
  const count = type.inner.count(value);
  if (messages.length !== 2 * count) {
    throw new FormatError({ ...place, expected: `${count} messages and their texts`, found: `${messages.length}` });
  }
  for (let index = 0; index < messages.length; index += 2) {
    const inner = type.inner.part.message.fromJson(messages[index], place);
    const text = fromBase64(messages[index + 1], place);
    const size = type.inner.part.blob?.(inner, text.length) ?? 0;
    if (text.length !== size) throw new FormatError({ ...place, expected: `${size} bytes`, found: `${text.length}` });
    writer.inner(inner, text);
  }
}

function extraFromJson(message: Message<unknown>, extra: unknown, at: JsonPlace): Uint8Array {
  if (is(message, tcp_stream_entry)) {
    const { inq, outq } = (extra ?? {}) as Json;
    return Buffer.concat([fromBase64(inq, at), fromBase64(outq, at)]);
  }
  if (is(message, ipc_sem_entry)) {
    const values = Array.isArray(extra) ? extra : [];
    if (!values.every((value) => Number.isInteger(value) && value >= 0 && value < 0x1_0000)) {
      throw new FormatError({ ...at, expected: 'values of 16 bits', found: `${values}`.slice(0, 80) });
    }
    const blob = Buffer.alloc(2 * values.length);
    for (const [index, value] of values.entries()) blob.writeUInt16LE(value, 2 * index);
    return blob;
  }
  return fromBase64(extra, at);
}

/** Every image of a store as NAME.json; pages and other raw files stay as they are. */
export function storeToJson(store: ImageStore, draft: ImageDraft): void {
  for (const file of store.names()) {
    if (file === INFO_FILE || isSums(file)) continue;
    withSource(store, file, (source) => {
      if (isRaw(file)) copySource(source, draft.create(file, source.size));
      else imageToJson(source, draft.create(`${file}.json`));
    });
  }
}

/** The way back from storeToJson(). */
export function storeFromJson(store: ImageStore, draft: ImageDraft): void {
  for (const file of store.names()) {
    if (file === INFO_FILE || isSums(file)) continue;
    withSource(store, file, (source) => {
      if (file.endsWith('.json')) {
        const text = Buffer.from(readWhole(source, MAX_TEXT)).toString('utf8');
        jsonToImage(text, source.name, draft.create(file.replace(/\.json$/, '')));
      } else copySource(source, draft.create(file, source.size));
    });
  }
}

function partOf(type: ImageType, message: Message<unknown>): Part<unknown> {
  return message === type.head?.message ? type.head : type.entry;
}

function is(message: unknown, other: unknown): boolean {
  return message === other;
}

/** JSON.rawJSON and the reviver's `source` are in Node 24; the types of TypeScript do not have them yet. */
const rawJSON = (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON;

function stringify(json: unknown): string {
  return JSON.stringify(json, (_, value) => (typeof value === 'bigint' ? rawJSON(`${value}`) : value));
}

/** A whole number that a double does not hold becomes a bigint. */
function parse(text: string): unknown {
  const exact = (_: string, value: unknown, context?: { source?: string }): unknown => {
    const isInexact = typeof value === 'number' && !Number.isSafeInteger(value);
    return isInexact && /^-?\d{1,20}$/.test(context?.source ?? '') ? BigInt(context!.source!) : value;
  };
  return JSON.parse(text, exact as (this: unknown, key: string, value: unknown) => unknown);
}
