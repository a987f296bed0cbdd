/** CRC-32 of memory, which is summed up while programs stand still: each of our ways that this processor has, beside zlib's. */
import { crc32 as byZlib } from 'node:zlib';
import { crc32sHere } from '../src/sys/crc32.ts';
import { type BenchResult, inTurns, median } from './bench.ts';

export const name = 'checksums';
export const summary = 'how long the sum of 1 GiB takes that lies in the second-level cache, against zlib';

const PIECE = 256 << 10;

export async function run({ small }: { small: boolean }): Promise<BenchResult> {
  const pieces = (small ? 64 << 20 : 1 << 30) / PIECE;
  const bytes = new Uint8Array(PIECE).map((_, i) => (i * 2_654_435_761) >>> 24);
  const sum = (crc32: (data: Uint8Array, value: number) => number) => () => {
    let value = 0;
    for (let i = 0; i < pieces; i++) value = crc32(bytes, value);
    return value;
  };
  const ways = crc32sHere();
  const cases: Record<string, () => unknown> = { zlib: sum(byZlib) };
  for (const [i, way] of ways.entries()) cases[`way ${i}`] = sum(way);
  const times = await inTurns(cases, small ? 1 : 7);
  const theirs = median(times.zlib!);
  const comparisons = ways.map((_, i) => {
    const ours = median(times[`way ${i}`]!);
    const what = `${(pieces * PIECE) >>> 20} MiB${i === 0 ? '' : ', as on an older processor'}`;
    return { what, reference: 'zlib', unit: 'ms', ours, theirs, ratio: ours / theirs, goal: 1 };
  });
  return { comparisons };
}
