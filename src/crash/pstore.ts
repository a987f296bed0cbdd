/**
 * What a kernel that died left of its log in persistent storage (fs/pstore of the kernel, Documentation/admin-guide/ramoops.rst): the end
 * of it, some kilobytes. It comes as
 *
 * - files of /sys/fs/pstore, or as systemd-pstore keeps them: `Panic#2 Part1` and then the log, the newest part being 1. Those
 *   that the kernel could not unpack are called *.enc.z and hold a deflate stream;
 * - ramoops' memory itself (ramoops.ts). In the zone of a log stands `====SECONDS.MICROSECONDS-C`, C for compressed and D for not, and
 *   then the same as in a file.
 *
 * Lines begin with `<LEVEL>[SECONDS]`, as the kernel gives them to its dumpers (kernel/printk/printk.c, kmsg_dump_get_buffer()).
 */

import { bytesOf, textOf } from '../abi/text.ts';
import { FormatError } from '../errors.ts';
import { inflateUnknown } from './io/codecs.ts';
import type { LogRecord } from './kernel/printk.ts';
import { type EccResult, isRamoops, readZones } from './ramoops.ts';

/** Of an unpacked record; a kernel keeps 10 KB of each dump unless it is told otherwise (pstore.kmsg_bytes). */
const MAX_RECORD = 2 ** 22;

/** enum kmsg_dump_reason, as kmsg_dump_reason_str() and older get_reason_str() call it. */
const HEADER = /^(Panic|Oops|Emergency|Shutdown|Restart|Halt|Poweroff|Unknown)#(\d+) Part(\d+)\r?\n/;
/** ramoops_write_kmsg_hdr() */
const RAMOOPS_HEADER = /^====-?\d+\.\d+(?:-([CD]))?\n/;
/** persistent_ram_ecc_string(), behind the text */
const ECC_NOTICE = /\nECC: (?:No errors detected|(\d+) Corrected bytes, (\d+) unrecoverable blocks)\n$/;
/** With CONFIG_PRINTK_CALLER also who wrote it. */
const LINE = /^<(\d+)>(?:\[ *(\d+)\.(\d{6})\])?(?:\[ *([TC])(\d+)\])? ?/;

const CALLERS = { T: 'task', C: 'cpu' } as const;

/** One part of what one dump of the log left. */
export interface PstoreRecord {
  /** `Panic`, `Oops`, ... */
  readonly reason: string;
  /** Counts the dumps since boot. */
  readonly count: number;
  /** 1 is the newest. */
  readonly part: number;
  readonly text: string;
  /** What the error correction of ramoops found, where it was on. */
  readonly ecc?: EccResult;
}

/** Whether a file is one of these, by its name and how it begins. */
export function isPstore(name: string, start: Uint8Array): boolean {
  if (/(?:^|\/)dmesg-[^/]*\.enc\.z$/.test(name)) return true;
  return isRamoops(start) || HEADER.test(textOf(start.subarray(0, 64)));
}

/**
 * @param name of the file, for messages
 * @param ecc that the file is ramoops' memory, and which parameter `ecc` ramoops had; undefined to see for oneself
 * @throws FormatError for what is none, or is packed otherwise than by deflate
 */
export function readPstore(name: string, bytes: Uint8Array, ecc?: number): PstoreRecord[] {
  if (ecc !== undefined || isRamoops(bytes)) return ramoopsRecords(name, bytes, ecc);
  const record = recordOf(name.endsWith('.enc.z') ? unpacked(name, bytes) : textOf(bytes));
  if (record !== undefined) return [record];
  const expected = 'Panic#1 Part1 or the like, as pstore writes it';
  throw new FormatError({
    file: name,
    offset: 0,
    field: 'header',
    expected,
    found: JSON.stringify(textOf(bytes.subarray(0, 32))),
  });
}

/** The log of all that is left, in order. What a later dump repeats of an earlier one is there once. */
export function pstoreLog(records: readonly PstoreRecord[]): LogRecord[] {
  const inOrder = records.toSorted((a, b) => a.count - b.count || b.part - a.part);
  // By the dump that had it first: within one, a line that is there twice was written twice.
  const seen = new Map<string, string>();
  const log: LogRecord[] = [];
  for (const { reason, count, text } of inOrder) {
    const dump = `${reason}#${count}`;
    let before = { level: 4, facility: 0, time: 0n };
    let head = '';
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const found = LINE.exec(line);
      // What was written without a line's beginning belongs to the one before it.
      const key = found === null ? `${head}\n${line}` : line;
      if (found !== null) {
        head = line;
        const [, priority, seconds = '0', microseconds = '0'] = found;
        const time = BigInt(seconds) * 1_000_000_000n + BigInt(microseconds) * 1000n;
        before = { level: Number(priority) & 7, facility: Number(priority) >> 3, time };
      }
      if ((seen.get(key) ?? dump) !== dump) continue;
      seen.set(key, dump);
      const [prefix, , , , kind, id] = found ?? [''];
      const caller = kind === undefined ? undefined : { kind: CALLERS[kind as 'T' | 'C'], id: Number(id) };
      log.push({ ...before, seq: undefined, caller, text: bytesOf(line.slice(prefix!.length)) });
    }
  }
  return log;
}

function recordOf(text: string, ecc?: EccResult): PstoreRecord | undefined {
  const found = HEADER.exec(text);
  if (found === null) return undefined;
  const [header, reason, count, part] = found;
  const notice = ECC_NOTICE.exec(text);
  const [, corrected = '0', bad = '0'] = notice ?? [];
  const told = notice === null ? ecc : { correctedBytes: Number(corrected), badBlocks: Number(bad) };
  const rest = text.slice(header.length).replace(ECC_NOTICE, '\n');
  const record = { reason: reason!, count: Number(count), part: Number(part), text: rest };
  return told === undefined ? record : { ...record, ecc: told };
}

/** The logs of all zones; those of the console and of messages have no header. */
function ramoopsRecords(name: string, image: Uint8Array, given: number | undefined): PstoreRecord[] {
  return readZones(image, given).flatMap(({ at, content, ecc }) => {
    const found = RAMOOPS_HEADER.exec(Buffer.from(content.subarray(0, 40)).toString('latin1'));
    if (found === null) return [];
    const body = content.subarray(found[0].length);
    const text = found[1] === 'C' ? unpacked(`${name}, zone at 0x${at.toString(16)}`, body) : textOf(body);
    return recordOf(text, ecc) ?? [];
  });
}

function unpacked(name: string, bytes: Uint8Array): string {
  const text = inflateUnknown(bytes, MAX_RECORD);
  if (text !== undefined) return textOf(text);
  const expected = 'a deflate stream, which is how pstore packs them by default';
  throw new FormatError({ file: name, offset: 0, field: 'content', expected, found: 'something else' });
}
