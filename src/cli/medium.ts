/** Which medium of preserved memory a command means. */
import { parseRange } from '../mem/range.ts';
import { findMemory, type Place } from '../update/medium.ts';
import { UsageError } from './exit.ts';

const DEFAULT_MEDIUM = '/var/lib/tideover/pkram';

/**
 * The medium that a command means.
 *
 * @param given by --medium: a file, `memory`, or `memory:` with an address or a range
 * @returns undefined for `memory` where there is none yet
 */
export function placeOf(given: string | undefined): Place | undefined {
  const wanted = given ?? process.env.TIDEOVER_PKRAM;
  if (wanted === undefined) return findMemory() ?? { kind: 'file', path: DEFAULT_MEDIUM };
  if (wanted === 'memory') return findMemory();
  if (!wanted.startsWith('memory:')) return { kind: 'file', path: wanted };
  const at = wanted.slice('memory:'.length);
  const region = parseRange(at);
  if (region !== undefined) return { kind: 'physical', superblock: region.start, region };
  if (/^0x[0-9a-f]{1,13}$/i.test(at)) return { kind: 'physical', superblock: Number(at) };
  throw new UsageError(`${wanted}: not an address or a range, like memory:0x100000000-0x13fffffff`);
}

/** For people: what a medium is called. */
export function placeName(given: string | undefined, place: Place | undefined): string {
  if (place?.kind === 'file') return place.path;
  return given ?? process.env.TIDEOVER_PKRAM ?? 'memory';
}
