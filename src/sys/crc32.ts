/**
 * CRC-32 by carry-less multiplication: V. Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction, Intel
 * 2009, in its reflected form. What stands D bits before the end of a message is replaced by what it is modulo P there:
 *
 *     a 128 bits of data, low and high half:   a.lo * (x^(D+32) mod P)  +  a.hi * (x^(D-32) mod P)  +  the 128 bits D further on
 *
 * Four lanes of registers do so side by side, and the last ones are as many bytes of a message that has the same CRC, which zlib sums up.
 * 1 GiB out of the second-level cache: zlib 245 ms, 16 bytes a lane 97, 64 bytes a lane 22 (node bench/run.ts checksums).
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { crc32 as byZlib } from 'node:zlib';
import { type Crc32, useForMuch } from '../crc32.ts';
import { mapCode, Region } from './region.ts';
import { callableWith } from './syscall.ts';

/** Bytes of the constants, and from where on the code leaves the last lanes. */
const [CONSTANTS, LAST] = [16, 64];

/** `code(data, blocks, register, place)`: blocks of four lanes, at least one; the shift register as it is before them. */
interface Lanes {
  /** Of /proc/cpuinfo. */
  readonly flags: readonly string[];
  /** Bytes of one. */
  readonly lane: number;
  readonly code: Uint8Array;
}

const LANES = [0, 1, 2, 3] as const;
/** xmm1 to xmm4 or zmm1 to zmm4 in the place of a ModRM byte for the register, by lanes; 8 times the number. */
const REG = LANES.map((lane) => (lane + 1) << 3);

const WIDE: Lanes = {
  flags: ['avx512f', 'vpclmulqdq'],
  lane: 64,
  code: loop(
    [
      ...[0x62, 0xf2, 0x7d, 0x48, 0x5a, 0x01], // vbroadcasti32x4 zmm0, [rcx]
      ...[0xc5, 0xf9, 0x6e, 0xea], // vmovd xmm5, edx
      ...[0x62, 0xf1, 0xd5, 0x48, 0xef, 0x0f], // vpxorq zmm1, zmm5, [rdi]
      ...LANES.slice(1).flatMap((n) => [0x62, 0xf1, 0xfe, 0x48, 0x6f, 0x47 | REG[n]!, n]), // vmovdqu64 zmm, [rdi+64*n]
    ],
    [
      ...[0x48, 0x81, 0xc7, 0x00, 0x01, 0x00, 0x00], // add rdi, 256
    ],
    LANES.flatMap((n) => [
      ...[0x62, 0xf3, 0x7d - REG[n]!, 0x48, 0x44, 0xe8, 0x00], // vpclmulqdq zmm5, zmm, zmm0, 0x00
      ...[0x62, 0xf3, 0x7d - REG[n]!, 0x48, 0x44, 0xc0 | REG[n]!, 0x11], // vpclmulqdq zmm, zmm, zmm0, 0x11
      ...[0x62, 0xf3, 0xd5, 0x48, 0x25, 0x47 | REG[n]!, n, 0x96], // vpternlogq zmm, zmm5, [rdi+64*n], a ^ b ^ c
    ]),
    [
      ...LANES.flatMap((n) => [0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x41 | REG[n]!, 1 + n]), // vmovdqu64 [rcx+64+64*n], zmm
      ...[0xc5, 0xf8, 0x77], // vzeroupper
    ],
  ),
};

const NARROW: Lanes = {
  flags: ['pclmulqdq'],
  lane: 16,
  code: loop(
    [
      ...[0xf3, 0x0f, 0x6f, 0x01], // movdqu xmm0, [rcx]
      ...[0x66, 0x0f, 0x6e, 0xea], // movd xmm5, edx
      ...LANES.flatMap((n) => [0xf3, 0x0f, 0x6f, 0x47 | REG[n]!, 16 * n]), // movdqu xmm, [rdi+16*n]
      ...[0x66, 0x0f, 0xef, 0xcd], // pxor xmm1, xmm5
    ],
    [
      ...[0x48, 0x83, 0xc7, 0x40], // add rdi, 64
    ],
    LANES.flatMap((n) => [
      ...[0x66, 0x0f, 0x6f, 0xe9 + n], // movdqa xmm5, xmm
      ...[0x66, 0x0f, 0x3a, 0x44, 0xe8, 0x00], // pclmulqdq xmm5, xmm0, 0x00
      ...[0x66, 0x0f, 0x3a, 0x44, 0xc0 | REG[n]!, 0x11], // pclmulqdq xmm, xmm0, 0x11
      ...[0x66, 0x0f, 0xef, 0xc5 | REG[n]!], // pxor xmm, xmm5
      ...[0xf3, 0x0f, 0x6f, 0x6f, 16 * n], // movdqu xmm5, [rdi+16*n]
      ...[0x66, 0x0f, 0xef, 0xc5 | REG[n]!], // pxor xmm, xmm5
    ]),
    LANES.flatMap((n) => [0xf3, 0x0f, 0x7f, 0x41 | REG[n]!, LAST + 16 * n]), // movdqu [rcx+64+16*n], xmm
  ),
};

/** `before; again: next; if (--rsi == 0) goto end; fold; goto again; end: after; return` */
function loop(
  before: readonly number[],
  next: readonly number[],
  fold: readonly number[],
  after: readonly number[],
): Uint8Array {
  const test = [0x48, 0xff, 0xce, 0x74, fold.length + 2]; // dec rsi; jz end
  const back = next.length + test.length + fold.length + 2;
  return Uint8Array.of(...before, ...next, ...test, ...fold, 0xeb, 256 - back, ...after, 0xc3);
}

let isUsed = false;

/** Has crc32() use what this processor has for it. */
export function useProcessor(): void {
  if (isUsed) return;
  isUsed = true;
  const [fastest] = lanesHere();
  if (fastest !== undefined) useForMuch(byLanes(fastest));
}

/** All that this processor has, the fastest first. */
export function crc32sHere(): Crc32[] {
  return lanesHere().map(byLanes);
}

function lanesHere(): Lanes[] {
  const has = flagsHere();
  return [WIDE, NARROW].filter(({ flags }) => flags.every((flag) => has.has(flag)));
}

function byLanes({ lane, code }: Lanes): Crc32 {
  const block = LANES.length * lane;
  const place = new Region(LAST + block);
  place.view.setBigUint64(0, powerOfX(8 * block + 32), true);
  place.view.setBigUint64(CONSTANTS / 2, powerOfX(8 * block - 32), true);
  const last = place.bytes.subarray(LAST, LAST + block);
  const call = callableWith(mapCode(code, 0).address, ['void *', 'int64_t', 'int64_t', 'int64_t']);
  return (data, value = 0) => {
    const blocks = Math.floor(data.length / block);
    if (blocks === 0) return byZlib(data, value);
    call(data, blocks, ~value >>> 0, place.address);
    const folded = byZlib(last, NOTHING_BEFORE);
    return blocks * block === data.length ? folded : byZlib(data.subarray(blocks * block), folded);
  };
}

/** With it the shift register is zero: zlib inverts it before and after. */
const NOTHING_BEFORE = 0xffff_ffff;

/** x^n mod P, reflected in 33 bits as the product of reflected numbers is one bit short; P as zlib has it, 0xedb88320. */
function powerOfX(n: number): bigint {
  let power = 0x8000_0000;
  for (let i = 0; i < n; i++) power = (power >>> 1) ^ ((power & 1) === 0 ? 0 : 0xedb8_8320);
  return BigInt(power >>> 0) << 1n;
}

/** Of the first processor: the others have the same, and there may be hundreds. */
function flagsHere(): ReadonlySet<string> {
  const text = Buffer.alloc(8192);
  try {
    const fd = openSync('/proc/cpuinfo', 'r');
    try {
      const length = readSync(fd, text, 0, text.length, 0);
      const [, flags = ''] = /^flags\s*:(.*)$/m.exec(text.toString('latin1', 0, length)) ?? [];
      return new Set(flags.split(' '));
    } finally {
      closeSync(fd);
    }
  } catch {
    return new Set();
  }
}
