/**
 * Raw snappy, both ways (format_description.txt of google/snappy): the length as a varint, then elements. Their two lowest bits
 * say whether it is a run of literals, or a copy of earlier output with an offset of 11, 16 or 32 bits.
 */

const HASH_BITS = 12;
const MIN_MATCH = 4;
const MAX_COPY = 64;

/** Room that incompressible input of this length may need. */
export function snappyBound(length: number): number {
  return 32 + length + Math.floor(length / 6);
}

/** Where the 4 bytes with a hash were seen last, for snappyCompress(); made once, used for any number of calls. */
export function snappyTable(): Uint16Array {
  return new Uint16Array(1 << HASH_BITS);
}

/**
 * Compresses `from`, at most 64 KiB, into `into`.
 * @param into of at least snappyBound() bytes
 * @returns how many bytes of `into` were used
 */
export function snappyCompress(from: Uint8Array, into: Uint8Array, table: Uint16Array): number {
  const length = from.length;
  if (length > 0xffff) throw new RangeError('snappy: at most 65535 bytes at a time');
  table.fill(0);
  let out = 0;
  for (let left = length; ; left >>>= 7) {
    into[out++] = left < 0x80 ? left : (left & 0x7f) | 0x80;
    if (left < 0x80) break;
  }
  const limit = length - MIN_MATCH;
  let literals = 0;
  let at = 1;
  while (at <= limit) {
    const word = from[at]! | (from[at + 1]! << 8) | (from[at + 2]! << 16) | (from[at + 3]! << 24);
    const hash = Math.imul(word, 0x1e35a7bd) >>> (32 - HASH_BITS);
    const match = table[hash]!;
    table[hash] = at;
    if (
      match >= at ||
      from[match] !== (word & 0xff) ||
      from[match + 1] !== ((word >>> 8) & 0xff) ||
      from[match + 2] !== ((word >>> 16) & 0xff) ||
      from[match + 3] !== word >>> 24
    ) {
      at += 1 + ((at - literals) >> 5);
      continue;
    }
    out = putLiterals(from, literals, at, into, out);
    const start = at;
    let other = match + MIN_MATCH;
    at += MIN_MATCH;
    while (at < length && from[at] === from[other]) {
      at++;
      other++;
    }
    literals = at;
    for (let left = at - start; left > 0; ) {
      const size = Math.min(left, MAX_COPY);
      // Tag 2: 1 to 64 bytes, offset of 16 bits.
      into[out++] = ((size - 1) << 2) | 2;
      into[out++] = (start - match) & 0xff;
      into[out++] = (start - match) >> 8;
      left -= size;
    }
  }
  return putLiterals(from, literals, length, into, out);
}

function putLiterals(from: Uint8Array, start: number, end: number, into: Uint8Array, at: number): number {
  const length = end - start;
  let out = at;
  if (length === 0) return out;
  const last = length - 1;
  if (last < 60) into[out++] = last << 2;
  else if (last < 256) {
    into[out++] = 60 << 2;
    into[out++] = last;
  } else {
    into[out++] = 61 << 2;
    into[out++] = last & 0xff;
    into[out++] = last >> 8;
  }
  for (let i = start; i < end; i++) into[out++] = from[i]!;
  return out;
}

/**
 * Decompresses `from` into `into`.
 * @returns how many bytes there were, or -1 where `from` is no whole stream or holds more than fits
 */
export function snappyDecompress(from: Uint8Array, into: Uint8Array): number {
  const end = from.length;
  let at = 0;
  let total = 0;
  for (let shift = 0; ; shift += 7) {
    if (at >= end || shift > 28) return -1;
    const byte = from[at++]!;
    total += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
  }
  if (total > into.length) return -1;
  let out = 0;
  while (at < end) {
    const tag = from[at++]!;
    let length = (tag >> 2) + 1;
    if ((tag & 3) === 0) {
      if (length > 60) {
        const bytes = length - 60;
        if (at + bytes > end) return -1;
        length = 1;
        for (let i = 0; i < bytes; i++) length += from[at++]! * 2 ** (8 * i);
      }
      if (at + length > end || out + length > total) return -1;
      for (const stop = at + length; at < stop; ) into[out++] = from[at++]!;
      continue;
    }
    const bytes = (tag & 3) === 3 ? 4 : tag & 3;
    if (at + bytes > end) return -1;
    let offset = from[at]!;
    if (bytes === 1) {
      length = ((tag >> 2) & 7) + 4;
      offset |= (tag >> 5) << 8;
    } else for (let i = 1; i < bytes; i++) offset += from[at + i]! * 2 ** (8 * i);
    at += bytes;
    if (offset === 0 || offset > out || out + length > total) return -1;
    for (let back = out - offset, stop = out + length; out < stop; ) into[out++] = into[back++]!;
  }
  return out === total ? out : -1;
}
