/**
 * LZO1X, both ways: what liblzo2 calls lzo1x_1_compress and lzo1x_decompress_safe. The stream is described in the kernel's
 * Documentation/staging/lzo.rst.
 *
 * A stream is a sequence of instructions. Each copies earlier output, `length` bytes from `distance` back, and then up to three
 * literal bytes, whose number stands in the two lowest bits of the instruction; longer runs of literals have one of their own.
 *
 *     0000LLLL            literals: 3 + L (L = 0: 18 + extension), after an instruction without literals
 *     0000DDSS            2 bytes from close by, after 1-3 literals; 3 bytes from 2049 and more, after a run of literals
 *     0001HLLL D16        2 + L (L = 0: 9 + extension) bytes from 16384 + D14 + H * 16384; distance 16384 is the end
 *     001LLLLL D16        2 + L (L = 0: 33 + extension) bytes from 1 + D14
 *     01LDDDSS, 1LLDDDSS  3-8 bytes from 1 + D11
 */

/** The longest match of the instruction for close ones. */
const M2_MAX_LENGTH = 8;
const M2_MAX_DISTANCE = 0x0800;
const M3_MAX_DISTANCE = 0x4000;
/** Of a match that the compressor looks for. */
const MIN_MATCH = 4;
/** At the end of the input no match begins: the end is always literals, so that a match need not be bounds-checked byte by byte. */
const TAIL = 20;
const HASH_BITS = 13;
/** Literals that are copied at once: fewer are quicker one by one. */
const LONG_RUN = 64;

/** Room that incompressible input of this length may need: what liblzo2's documentation gives. */
export function lzoBound(length: number): number {
  return length + Math.floor(length / 16) + 64 + 3;
}

/** Where the 4 bytes with a hash were seen last, for lzoCompress(); made once, used for any number of calls. */
export function lzoTable(): Uint16Array {
  return new Uint16Array(1 << HASH_BITS);
}

/**
 * Compresses `from`, at most 64 KiB, into `into`.
 * @param into of at least lzoBound() bytes
 * @returns how many bytes of `into` were used
 */
export function lzoCompress(from: Uint8Array, into: Uint8Array, table: Uint16Array): number {
  const length = from.length;
  if (length > 0xffff) throw new RangeError('LZO: at most 65535 bytes at a time');
  // What is found by it is compared, so entries of an earlier call do no harm, except that they would make results differ.
  table.fill(0);
  const words = new DataView(from.buffer, from.byteOffset, length);
  const limit = length - TAIL;
  let out = 0;
  let literals = 0;
  let at = MIN_MATCH;
  while (at < limit) {
    const word = words.getInt32(at, true);
    const hash = Math.imul(word, 0x1824429d) >>> (32 - HASH_BITS);
    const match = table[hash]!;
    table[hash] = at;
    if (match === 0 || at - match > 0xbfff || words.getInt32(match, true) !== word) {
      // The longer nothing is found, the fewer places are looked at.
      at += 1 + ((at - literals) >> 5);
      continue;
    }
    out = putLiterals(from, literals, at, into, out);
    const start = at;
    let end = at + MIN_MATCH;
    let other = match + MIN_MATCH;
    while (end < limit && from[end] === from[other]) {
      end++;
      other++;
    }
    at = end;
    literals = end;
    out = putMatch(into, out, end - start, start - match);
  }
  out = putLiterals(from, literals, length, into, out);
  into[out] = 0x11;
  into[out + 1] = 0;
  into[out + 2] = 0;
  return out + 3;
}

/** Up to three go into the instruction before them. The first byte of a stream may stand for a run of up to 238. */
function putLiterals(from: Uint8Array, start: number, end: number, into: Uint8Array, at: number): number {
  const length = end - start;
  let out = at;
  if (length === 0) return out;
  if (out === 0 && length <= 238) into[out++] = 17 + length;
  else if (length <= 3) into[out - 2]! |= length;
  else if (length <= 18) into[out++] = length - 3;
  else {
    into[out++] = 0;
    out = putExtension(into, out, length - 18);
  }
  if (length > LONG_RUN) {
    into.set(from.subarray(start, end), out);
    return out + length;
  }
  for (let i = start; i < end; i++) into[out++] = from[i]!;
  return out;
}

function putMatch(into: Uint8Array, at: number, length: number, distance: number): number {
  let out = at;
  if (length <= M2_MAX_LENGTH && distance <= M2_MAX_DISTANCE) {
    const back = distance - 1;
    into[out++] = ((length - 1) << 5) | ((back & 7) << 2);
    into[out++] = back >> 3;
    return out;
  }
  let back: number;
  if (distance <= M3_MAX_DISTANCE) {
    back = distance - 1;
    if (length <= 33) into[out++] = 0x20 | (length - 2);
    else {
      into[out++] = 0x20;
      out = putExtension(into, out, length - 33);
    }
  } else {
    back = distance - 0x4000;
    const high = (back >> 11) & 8;
    if (length <= 9) into[out++] = 0x10 | high | (length - 2);
    else {
      into[out++] = 0x10 | high;
      out = putExtension(into, out, length - 9);
    }
  }
  into[out++] = (back << 2) & 0xff;
  into[out++] = (back >> 6) & 0xff;
  return out;
}

/** 1 and more: a zero byte for each 255, then the rest. */
function putExtension(into: Uint8Array, at: number, value: number): number {
  let out = at;
  let left = value;
  for (; left > 255; left -= 255) into[out++] = 0;
  into[out++] = left;
  return out;
}

/**
 * Decompresses `from` into `into`.
 * @returns how many bytes there were, or -1 where `from` is no whole stream or holds more than fits
 */
export function lzoDecompress(from: Uint8Array, into: Uint8Array): number {
  const end = from.length;
  const room = into.length;
  let at = 0;
  let out = 0;
  /** What went before: 0 no literals, 1 to 3 that many, 4 a run. */
  let before = 0;
  if (end > 0 && from[0]! > 17) {
    const count = from[0]! - 17;
    if (1 + count > end || count > room) return -1;
    for (at = 1; at <= count; at++) into[out++] = from[at]!;
    before = count < 4 ? count : 4;
  }
  while (at < end) {
    const code = from[at++]!;
    let length: number;
    let distance: number;
    let following: number;
    if (code < 16 && before === 0) {
      length = code + 3;
      if (code === 0) {
        const zeros = at;
        while (at < end && from[at] === 0) at++;
        if (at >= end) return -1;
        length = 18 + (at - zeros) * 255 + from[at++]!;
      }
      if (at + length > end || out + length > room) return -1;
      for (const stop = at + length; at < stop; ) into[out++] = from[at++]!;
      before = 4;
      continue;
    }
    if (code >= 64 || code < 16) {
      if (at >= end) return -1;
      following = code & 3;
      if (code >= 64) {
        length = (code >> 5) + 1;
        distance = 1 + ((code >> 2) & 7) + (from[at++]! << 3);
      } else {
        length = before === 4 ? 3 : 2;
        distance = (before === 4 ? 0x801 : 1) + (code >> 2) + (from[at++]! << 2);
      }
    } else {
      const mask = code >= 32 ? 31 : 7;
      length = (code & mask) + 2;
      if ((code & mask) === 0) {
        const zeros = at;
        while (at < end && from[at] === 0) at++;
        if (at >= end) return -1;
        length = mask + 2 + (at - zeros) * 255 + from[at++]!;
      }
      if (at + 2 > end) return -1;
      const word = from[at]! | (from[at + 1]! << 8);
      at += 2;
      following = word & 3;
      if (code >= 32) distance = 1 + (word >> 2);
      else {
        distance = 0x4000 + ((code & 8) << 11) + (word >> 2);
        if (distance === 0x4000) return at === end ? out : -1;
      }
    }
    if (distance > out || out + length > room) return -1;
    // Byte by byte: where the distance is shorter than the length, the copy repeats itself.
    for (let back = out - distance, stop = out + length; out < stop; ) into[out++] = into[back++]!;
    if (at + following > end || out + following > room) return -1;
    for (let i = 0; i < following; i++) into[out++] = from[at++]!;
    before = following;
  }
  return -1;
}
