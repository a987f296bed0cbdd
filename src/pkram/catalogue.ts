/**
 * The catalogue of a node that holds files: its byte stream, one file a line, each a JSON object. Names are text as
 * src/abi/text.ts has it. Fields that are not known are passed over.
 */
import { FormatError } from '../errors.ts';
import type { ObjectReader } from './load.ts';

export type FileType = 'file' | 'directory' | 'symlink' | 'fifo' | 'socket' | 'character' | 'block';

export interface FileRecord {
  /** From the directory that was saved on; `.` is that directory itself. A directory comes before what is in it. */
  readonly path: string;
  readonly type: FileType;
  /** Permissions, with those for set-user-id and so on. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Nanoseconds since 1970, in decimal. */
  readonly atime: string;
  readonly mtime: string;
  /** Names and values, these in base64. */
  readonly xattrs?: Readonly<Record<string, string>>;
  /** Of a file, in bytes. */
  readonly size?: number;
  /** Of a file: offset and length of each part that is no hole. Their pages are the next ones of the page stream. */
  readonly data?: readonly (readonly [offset: number, length: number])[];
  /** The path, further up, of the file that this is another name of; nothing else of it counts then. */
  readonly link?: string;
  /** Of a symbolic link. */
  readonly target?: string;
  /** Of a device. */
  readonly rdev?: readonly [major: number, minor: number];
}

const TYPES: readonly string[] = ['file', 'directory', 'symlink', 'fifo', 'socket', 'character', 'block'];
/** A record is longer only for a file of a hundred thousand parts. */
const LINE_MAX = 16 << 20;
const CHUNK = 64 << 10;

export function writeRecord(record: FileRecord): Uint8Array {
  return Buffer.from(`${JSON.stringify(record)}\n`);
}

/** Reads the records of a node. @throws FormatError */
export function* readRecords(object: ObjectReader, source: string): Generator<FileRecord> {
  const directories = new Set<string>();
  const others = new Set<string>();
  const chunk = new Uint8Array(CHUNK);
  let rest = Buffer.alloc(0);
  let number = 1;
  for (;;) {
    const got = object.read(chunk);
    rest = Buffer.concat([rest, chunk.subarray(0, got)]);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const record = parseRecord(
        rest.toString('utf8', 0, end),
        { directories, others },
        `${source}, catalogue line ${number++}`,
      );
      (record.type === 'directory' ? directories : others).add(record.path);
      yield record;
      rest = rest.subarray(end + 1);
    }
    if (got === 0 || rest.length > LINE_MAX) break;
  }
  if (rest.length > 0) fail(source, 'catalogue', 'a whole line', `${rest.length} bytes`);
}

/** Paths of the records so far. */
interface Known {
  readonly directories: ReadonlySet<string>;
  readonly others: ReadonlySet<string>;
}

function parseRecord(line: string, { directories, others }: Known, source: string): FileRecord {
  let record: FileRecord;
  try {
    record = JSON.parse(line) as FileRecord;
  } catch (error) {
    return fail(source, 'record', 'JSON', (error as Error).message);
  }
  if (typeof record !== 'object' || record === null) fail(source, 'record', 'an object', line.slice(0, 40));
  const { path, type, mode, uid, gid, atime, mtime, xattrs, size, data, link, target, rdev } = record;
  const check = (field: string, holds: boolean, expected: string) => {
    if (!holds) fail(source, field, expected, JSON.stringify(record[field as keyof FileRecord]) ?? 'none');
  };
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  const isText = (value: unknown): value is string => typeof value === 'string' && !value.includes('\0');
  check('type', TYPES.includes(type), `one of ${TYPES.join(', ')}`);
  const parts = isText(path) ? path.split('/') : [];
  check(
    'path',
    path === '.' || (parts.length > 0 && !parts.some((part) => ['', '.', '..'].includes(part))),
    'a path below',
  );
  // A name that leads over a symbolic link would leave the directory.
  check('path', parts.length <= 1 || directories.has(parts.slice(0, -1).join('/')), 'one in a directory further up');
  check('mode', isCount(mode) && mode <= 0o7777, 'permissions');
  check('uid', isCount(uid) && uid < 2 ** 32, 'a number');
  check('gid', isCount(gid) && gid < 2 ** 32, 'a number');
  for (const [field, time] of Object.entries({ atime, mtime })) {
    check(field, typeof time === 'string' && /^-?\d{1,19}$/.test(time), 'nanoseconds');
  }
  const values = Object.values(xattrs ?? {});
  check(
    'xattrs',
    values.every((value) => typeof value === 'string'),
    'names and values',
  );
  if (link !== undefined) check('link', type !== 'directory' && others.has(link), 'the path of a file further up');
  else if (type === 'file') {
    check('size', isCount(size), 'a number');
    let end = 0;
    const inOrder = (part: readonly [number, number]) => {
      const [offset, length] = Array.isArray(part) ? part : [-1, -1];
      const fits = isCount(offset) && isCount(length) && length > 0 && offset >= end && offset + length <= size!;
      end = offset + length;
      return fits;
    };
    check('data', Array.isArray(data) && data.every(inOrder), 'parts of the file, in order');
  } else if (type === 'symlink') check('target', isText(target), 'a path');
  else if (type === 'character' || type === 'block') {
    check('rdev', Array.isArray(rdev) && rdev.length === 2 && rdev.every(isCount), 'two numbers');
  }
  return record;
}

function fail(file: string, field: string, expected: string, found: string): never {
  throw new FormatError({ file, field, expected, found });
}
