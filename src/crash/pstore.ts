/**
 * What a kernel that died left of its log in persistent storage (fs/pstore of the kernel, Documentation/admin-guide/ramoops.rst): the end
 * of it, some kilobytes. It comes as
 *
 * - files of /sys/fs/pstore, or as systemd-pstore keeps them: `Panic#2 Part1` and then the log, the newest part being 1. Those
 *   that the kernel could not unpack are called *.enc.z and hold a deflate stream;
 * - ramoops' memory itself: zones, each a struct persistent_ram_buffer. In that of a log stands `====SECONDS.MICROSECONDS-C`, C for
 *   compressed and D for not, and then the same as in a file.
 *
 * Lines begin with `<LEVEL>[SECONDS]`, as the kernel gives them to its dumpers (kernel/printk/printk.c, kmsg_dump_get_buffer()).
 */

import { struct, u32 } from '../abi/struct.ts';
import { bytesOf, textOf } from '../abi/text.ts';
import { FormatError } from '../errors.ts';
import { inflateUnknown } from './io/codecs.ts';
import type { LogRecord } from './kernel/printk.ts';

/** fs/pstore/ram_core.c. What is written goes round: it begins at `start` once `size` bytes are full. */
export const persistent_ram_buffer = struct('persistent_ram_buffer', 12, { sig: u32, start: u32, size: u32 });

/** `DBGC`: PERSISTENT_RAM_SIG, of zones for logs, the console and messages of user space. */
const PERSISTENT_RAM_SIG = 0x43474244;
/** Zones are no smaller, and their sizes powers of 2: ramoops_probe(). */
const MIN_ZONE = 4096;
/** Of an unpacked record; a kernel keeps 10 KB of each dump unless it is told otherwise (pstore.kmsg_bytes). */
const MAX_RECORD = 2 ** 22;

/** enum kmsg_dump_reason, as kmsg_dump_reason_str() and older get_reason_str() call it. */
const HEADER = /^(Panic|Oops|Emergency|Shutdown|Restart|Halt|Poweroff|Unknown)#(\d+) Part(\d+)\r?\n/;
/** ramoops_write_kmsg_hdr() */
const RAMOOPS_HEADER = /^====-?\d+\.\d+(?:-([CD]))?\n/;
/** persistent_ram_ecc_string(), behind the text */
const ECC_NOTICE = /\nECC: (?:No errors detected|\d+ Corrected bytes, \d+ unrecoverable blocks)\n$/;
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
}

/** Whether a file is one of these, by its name and how it begins. */
export function isPstore(name: string, start: Uint8Array): boolean {
  if (/(?:^|\/)dmesg-[^/]*\.enc\.z$/.test(name)) return true;
  return isRamoops(start) || HEADER.test(textOf(start.subarray(0, 64)));
}

/**
 * @param name of the file, for messages
 * @throws FormatError for what is none, or is packed otherwise than by deflate
 */
export function readPstore(name: string, bytes: Uint8Array): PstoreRecord[] {
  if (isRamoops(bytes)) return ramoopsTexts(name, bytes).flatMap((text) => recordOf(text) ?? []);
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

function recordOf(text: string): PstoreRecord | undefined {
  const found = HEADER.exec(text);
  if (found === null) return undefined;
  const [header, reason, count, part] = found;
  const rest = text.slice(header.length).replace(ECC_NOTICE, '\n');
  return { reason: reason!, count: Number(count), part: Number(part), text: rest };
}

function isRamoops(bytes: Uint8Array): boolean {
  return bytes.length >= persistent_ram_buffer.size && persistent_ram_buffer.read(bytes).sig === PERSISTENT_RAM_SIG;
}

/** The logs of all zones; those of the console and of messages have no header. */
function ramoopsTexts(name: string, bytes: Uint8Array): string[] {
  const texts: string[] = [];
  for (let at = 0; at + MIN_ZONE <= bytes.length; at += MIN_ZONE) {
    const zone = bytes.subarray(at);
    if (!isRamoops(zone)) continue;
    const { start, size } = persistent_ram_buffer.read(zone);
    const data = zone.subarray(persistent_ram_buffer.size);
    if (size > data.length || start > size) continue;
    const whole = Buffer.concat([data.subarray(start, size), data.subarray(0, start)]);
    const found = RAMOOPS_HEADER.exec(whole.toString('latin1', 0, 40));
    if (found === null) continue;
    const body = whole.subarray(found[0].length);
    texts.push(found[1] === 'C' ? unpacked(`${name}, zone at 0x${at.toString(16)}`, body) : textOf(body));
  }
  return texts;
}

function unpacked(name: string, bytes: Uint8Array): string {
  const text = inflateUnknown(bytes, MAX_RECORD);
  if (text !== undefined) return textOf(text);
  const expected = 'a deflate stream, which is how pstore packs them by default';
  throw new FormatError({ file: name, offset: 0, field: 'content', expected, found: 'something else' });
}
