/**
 * The bytes of a Protocol Buffers message, forwards and back: varints, lengths, raw bytes.
 * Encoding: protobuf.dev/programming-guides/encoding.
 */
import { FormatError } from '../errors.ts';

export const TWO32 = 0x1_0000_0000;

/** Walks over the bytes of one message. */
export class Reader {
  readonly bytes: Uint8Array;
  at = 0;
  end: number;
  /** The last varint, as two unsigned halves. */
  lo = 0;
  hi = 0;
  depth = 0;
  /** The field being read, for errors. */
  field = '';
  readonly file: string;
  readonly base: number;

  constructor(bytes: Uint8Array, file: string, base: number) {
    this.bytes = bytes;
    this.end = bytes.length;
    this.file = file;
    this.base = base;
  }

  fail(at: number, expected: string, found: string): never {
    throw new FormatError({ file: this.file, offset: this.base + at, field: this.field, expected, found });
  }

  /** Reads a varint into `lo` and `hi`. */
  varint(): void {
    const { bytes, end, at: start } = this;
    if (start < end && bytes[start]! < 0x80) {
      this.lo = bytes[start]!;
      this.hi = 0;
      this.at = start + 1;
      return;
    }
    let lo = 0;
    let hi = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.at >= end) this.fail(start, 'a varint', 'the end of the message');
      const byte = bytes[this.at++]!;
      const bits = byte & 0x7f;
      if (shift < 28) lo |= bits << shift;
      else if (shift > 28) hi |= bits << (shift - 32);
      else {
        lo |= bits << 28;
        hi |= bits >>> 4;
      }
      if (byte < 0x80) {
        if (shift === 63 && bits > 1) break;
        this.lo = lo >>> 0;
        this.hi = hi >>> 0;
        return;
      }
    }
    this.fail(start, 'a varint of 64 bits', 'a longer one');
  }

  /** Passes over a tag of one byte, if it comes next. */
  goesOn(tag: number): boolean {
    if (this.at >= this.end || tag > 0x7f || this.bytes[this.at] !== tag) return false;
    this.at++;
    return true;
  }

  /** Passes over varints that are 0, each behind a tag of one byte. @returns how many, at most `most` */
  zeros(tag: number, most: number): number {
    const { bytes, end } = this;
    if (tag > 0x7f) return 0;
    let { at } = this;
    const last = Math.min(end - 2, at + 2 * (most - 1));
    while (at <= last && bytes[at] === tag && bytes[at + 1] === 0) at += 2;
    const count = (at - this.at) / 2;
    this.at = at;
    return count;
  }

  /** The length before bytes, a text or a message, compared with what is left. */
  length(): number {
    const start = this.at;
    this.varint();
    if (this.hi !== 0 || this.lo > this.end - this.at) {
      this.fail(start, `at most ${this.end - this.at} bytes`, `a length of ${this.hi * TWO32 + this.lo}`);
    }
    return this.lo;
  }

  take(count: number): Uint8Array {
    if (count > this.end - this.at) this.fail(this.at, `${count} bytes`, `${this.end - this.at}`);
    const taken = this.bytes.subarray(this.at, this.at + count);
    this.at += count;
    return taken;
  }

  /** Passes over the value of a field that is not known. */
  skip(wire: number): void {
    if (wire === 0) this.varint();
    else if (wire === 1) this.take(8);
    else if (wire === 2) this.take(this.length());
    else if (wire === 5) this.take(4);
    else this.fail(this.at, 'wire type 0, 1, 2 or 5', `${wire}`);
  }
}

/** Where a number of 64 bits becomes two halves: shifting a bigint takes ten times as long. */
const whole = new DataView(new ArrayBuffer(8));

/** Collects the bytes of messages in one buffer that grows. */
export class Writer {
  bytes: Uint8Array;
  at = 0;
  /** The field being written, for errors. */
  field = '';

  constructor(room = 256) {
    this.bytes = new Uint8Array(room);
  }

  refuse(value: unknown, kind: string): never {
    throw new RangeError(`${this.field}: ${value} does not fit ${kind}`);
  }

  room(count: number): void {
    if (this.at + count <= this.bytes.length) return;
    const larger = new Uint8Array(Math.max(this.bytes.length * 2, this.at + count));
    larger.set(this.bytes.subarray(0, this.at));
    this.bytes = larger;
  }

  /** A varint from two halves, each read as unsigned. */
  varint(lo: number, hi: number): void {
    this.room(10);
    const { bytes } = this;
    let at = this.at;
    let low = lo >>> 0;
    let high = hi >>> 0;
    while (high !== 0) {
      bytes[at++] = (low & 0x7f) | 0x80;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    while (low > 0x7f) {
      bytes[at++] = (low & 0x7f) | 0x80;
      low >>>= 7;
    }
    bytes[at++] = low;
    this.at = at;
  }

  /** As many varints that are 0, each behind a tag. */
  zeros(tag: number, count: number): void {
    if (tag > 0x7f) {
      for (let i = 0; i < count; i++) {
        this.varint(tag, 0);
        this.varint(0, 0);
      }
      return;
    }
    this.room(2 * count);
    const { bytes } = this;
    const end = this.at + 2 * count;
    for (let at = this.at; at < end; at += 2) {
      bytes[at] = tag;
      bytes[at + 1] = 0;
    }
    this.at = end;
  }

  /** A varint of 64 bits. */
  varint64(value: bigint): void {
    whole.setBigUint64(0, value, true);
    this.varint(whole.getUint32(0, true), whole.getUint32(4, true));
  }

  u32(value: number): void {
    this.room(4);
    const { bytes, at } = this;
    bytes[at] = value;
    bytes[at + 1] = value >>> 8;
    bytes[at + 2] = value >>> 16;
    bytes[at + 3] = value >>> 24;
    this.at += 4;
  }

  blob(bytes: Uint8Array): void {
    this.varint(bytes.length, 0);
    this.raw(bytes);
  }

  raw(bytes: Uint8Array): void {
    this.room(bytes.length);
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }

  /** Adds once more what was added since the writer was at a place. */
  again(since: number): void {
    const length = this.at - since;
    this.room(length);
    this.bytes.copyWithin(this.at, since, this.at);
    this.at += length;
  }

  /** Begins what has its length before it. @returns for end() */
  begin(): number {
    this.room(1);
    return ++this.at;
  }

  /** Puts the length before what was added since begin(): most are below 128 bytes, others are moved up. */
  end(start: number): void {
    const length = this.at - start;
    let extra = 0;
    for (let rest = length >>> 7; rest > 0; rest >>>= 7) extra++;
    // Also for the varint: what grows keeps what stands before `at`.
    this.room(10);
    if (extra > 0) this.bytes.copyWithin(start + extra, start, this.at);
    this.at = start - 1;
    this.varint(length, 0);
    this.at += length;
  }

  /** The bytes so far, as a copy. */
  finish(): Uint8Array {
    return this.bytes.slice(0, this.at);
  }
}
