/**
 * The kernel's log. VMCOREINFO says where it lies and how it is made, so that it can be read without symbols or types.
 *
 * Since 5.10 it is struct printk_ringbuffer (kernel/printk/printk_ringbuffer.h):
 *
 *   desc_ring   2^count_bits descriptors: state_var = id | state << 62, and where the text begins and ends
 *               and beside them as many struct printk_info: time, level, length of the text
 *   text_data_ring   2^size_bits bytes of blocks: an id of 8 bytes and the text. A block that would go over the end begins
 *               anew at 0. Positions count on, lap by lap.
 *
 * From 3.5 to 5.9 it is log_buf, records of struct printk_log one after the other, from log_first_idx to log_next_idx.
 */
import { FormatError, HoleError } from '../../errors.ts';
import type { Vmcoreinfo } from '../vmcoreinfo.ts';
import type { Gaps } from './gaps.ts';
import type { VirtualMemory } from './memory.ts';

export interface LogRecord {
  /** Counts from 0; undefined in a log_buf that does not say. */
  readonly seq: bigint | undefined;
  /** Since boot, in nanoseconds. */
  readonly time: bigint;
  /** LOG_KERN is 0: syslog(3). */
  readonly facility: number;
  /** 0 emergency to 7 debug. */
  readonly level: number;
  /** Task or CPU that wrote it, where the kernel keeps that (CONFIG_PRINTK_CALLER, and always since 5.10). */
  readonly caller: { readonly kind: 'task' | 'cpu'; readonly id: number } | undefined;
  /** Bytes, mostly UTF-8, without the newline at the end. */
  readonly text: Uint8Array;
}

const MAX_COUNT_BITS = 22;
const MAX_SIZE_BITS = 30;
const ID_MASK = (1n << 62n) - 1n;
/** enum desc_state: both hold a whole record. */
const COMMITTED = 1n;
const FINALIZED = 2n;
/** prb_data_block.id */
const BLOCK_HEADER = 8;
/** printk_info.caller_id: with this bit the rest is the number of a CPU. */
const CALLER_CPU = 0x8000_0000;

/** The records in order. What is missing within them goes to `gaps`. @throws FormatError, HoleError where there is no log */
export function readLog(memory: VirtualMemory, info: Vmcoreinfo, gaps: Gaps): LogRecord[] {
  const ring = info.symbol('prb');
  if (ring !== undefined) return readRing(memory, info, memory.u64(ring), gaps);
  if (info.symbol('log_first_idx') !== undefined) return readBuffer(memory, info, gaps);
  const expected = 'SYMBOL(prb), or SYMBOL(log_buf) and SYMBOL(log_first_idx)';
  throw new FormatError({ file: 'VMCOREINFO', field: 'log', expected, found: 'neither' });
}

function readRing(memory: VirtualMemory, info: Vmcoreinfo, ring: bigint, gaps: Gaps): LogRecord[] {
  const offset = (member: string) => wanted(info, `OFFSET(${member})`, info.offset(member));
  const size = (type: string) => wanted(info, `SIZE(${type})`, info.size(type));
  const descRing = ring + BigInt(offset('printk_ringbuffer.desc_ring'));
  const textRing = ring + BigInt(offset('printk_ringbuffer.text_data_ring'));
  const at = (base: bigint, member: string) => base + BigInt(offset(member));
  const count = 2 ** bounded('count_bits', memory.u32(at(descRing, 'prb_desc_ring.count_bits')), MAX_COUNT_BITS);
  const length = 2 ** bounded('size_bits', memory.u32(at(textRing, 'prb_data_ring.size_bits')), MAX_SIZE_BITS);
  const descs = memory.u64(at(descRing, 'prb_desc_ring.descs'));
  const infos = memory.u64(at(descRing, 'prb_desc_ring.infos'));
  const data = memory.u64(at(textRing, 'prb_data_ring.data'));
  const tail = memory.u64(at(descRing, 'prb_desc_ring.tail_id')) & ID_MASK;
  const head = memory.u64(at(descRing, 'prb_desc_ring.head_id')) & ID_MASK;
  const many = Number((head - tail) & ID_MASK) + 1;
  if (many > count) {
    throw new FormatError({ file: 'prb', field: 'head_id', expected: `at most ${count} records`, found: `${many}` });
  }
  const [descSize, infoSize] = [size('prb_desc'), size('printk_info')];
  const block = offset('prb_desc.text_blk_lpos');
  const state = offset('prb_desc.state_var');
  const [begin, next] = [offset('prb_data_blk_lpos.begin'), offset('prb_data_blk_lpos.next')];
  const lengthAt = offset('printk_info.text_len');
  const [seqAt, timeAt] = [offset('printk_info.seq'), offset('printk_info.ts_nsec')];
  const callerAt = offset('printk_info.caller_id');

  const record = (id: bigint): LogRecord | undefined => {
    const index = id % BigInt(count);
    const desc = memory.view(descs + index * BigInt(descSize), descSize);
    const word = desc.getBigUint64(state, true);
    if ((word & ID_MASK) !== id || ![COMMITTED, FINALIZED].includes(word >> 62n)) return undefined;
    const entry = memory.view(infos + index * BigInt(infoSize), infoSize);
    let from = Number(desc.getBigUint64(block + begin, true) % BigInt(length));
    let to = Number(desc.getBigUint64(block + next, true) % BigInt(length));
    let text: Uint8Array = new Uint8Array(0);
    // Records without text have two special positions, which are the same.
    if (from !== to) {
      // A block that ends where the ring does has not gone round.
      if (to === 0) to = length;
      if (from > to) from = 0;
      from += BLOCK_HEADER;
      text = memory.read(data + BigInt(from), Math.max(0, Math.min(entry.getUint16(lengthAt, true), to - from)));
    }
    return {
      seq: entry.getBigUint64(seqAt, true),
      time: entry.getBigUint64(timeAt, true),
      // u16 text_len; u8 facility; u8 flags:5, level:3
      facility: entry.getUint8(lengthAt + 2),
      level: entry.getUint8(lengthAt + 3) >> 5,
      caller: callerOf(entry.getUint32(callerAt, true)),
      text,
    };
  };
  const records: LogRecord[] = [];
  for (let i = 0; i < many; i++) {
    const id = (tail + BigInt(i)) & ID_MASK;
    const found = gaps.try('log', () => record(id));
    if (found !== undefined) records.push(found);
  }
  return records;
}

function readBuffer(memory: VirtualMemory, info: Vmcoreinfo, gaps: Gaps): LogRecord[] {
  const symbol = (name: string) => wanted(info, `SYMBOL(${name})`, info.symbol(name));
  const offset = (member: string) => wanted(info, `OFFSET(${member})`, info.offset(member));
  const size = wanted(info, 'SIZE(printk_log)', info.size('printk_log'));
  const buffer = memory.u64(symbol('log_buf'));
  const length = bounded('log_buf_len', memory.u32(symbol('log_buf_len')), 2 ** MAX_SIZE_BITS);
  const end = memory.u32(symbol('log_next_idx'));
  const records: LogRecord[] = [];
  const walk = () => {
    let wrapped = false;
    for (let at = memory.u32(symbol('log_first_idx')); at !== end; ) {
      if (at > length - size) throw new HoleError(buffer + BigInt(at), 'damaged', 'a record outside of log_buf');
      const entry = memory.view(buffer + BigInt(at), size);
      const recordLength = entry.getUint16(offset('printk_log.len'), true);
      // A length of 0 marks that the next record is the first of the buffer.
      if (recordLength === 0) {
        if (wrapped) throw new HoleError(buffer + BigInt(at), 'damaged', 'log_buf leads in a circle');
        [at, wrapped] = [0, true];
        continue;
      }
      const dictionary = offset('printk_log.dict_len');
      const textLength = Math.min(
        entry.getUint16(offset('printk_log.text_len'), true),
        Math.max(0, recordLength - size),
      );
      records.push({
        seq: undefined,
        time: entry.getBigUint64(offset('printk_log.ts_nsec'), true),
        // u16 dict_len; u8 facility; u8 flags:5, level:3
        facility: entry.getUint8(dictionary + 2),
        level: entry.getUint8(dictionary + 3) >> 5,
        caller: undefined,
        text: memory.read(buffer + BigInt(at + size), textLength),
      });
      at += recordLength;
      if (records.length > length / size) throw new HoleError(buffer, 'damaged', 'log_buf leads in a circle');
    }
  };
  gaps.try('log', walk);
  return records;
}

function callerOf(id: number): LogRecord['caller'] {
  if (id >= CALLER_CPU) return { kind: 'cpu', id: id - CALLER_CPU };
  return { kind: 'task', id };
}

/** `   12.345678`: seconds and microseconds, as the kernel and vmcore-dmesg print a time. */
export function timeText(time: bigint): string {
  const seconds = `${time / 1_000_000_000n}`.padStart(5);
  return `${seconds}.${`${(time % 1_000_000_000n) / 1000n}`.padStart(6, '0')}`;
}

/** A record as vmcore-dmesg prints it, without the newline: what is not ASCII, and what is no text, as \xNN. */
export function rawText({ time, text }: LogRecord): string {
  let line = `[${timeText(time)}] `;
  for (const byte of text) {
    const isText = (byte >= 0x20 && byte < 0x7f) || (byte >= 0x09 && byte <= 0x0d);
    line += isText ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return line;
}

function wanted<T>(info: Vmcoreinfo, field: string, value: T | undefined): T {
  if (value !== undefined) return value;
  throw new FormatError({
    file: 'VMCOREINFO',
    field,
    expected: 'a value',
    found: info.get(field) ?? 'none',
  });
}

function bounded(field: string, value: number, limit: number): number {
  if (value <= limit) return value;
  throw new FormatError({ file: 'log', field, expected: `at most ${limit}`, found: `${value}` });
}
