/**
 * Ranges of addresses, and sets of them: physical memory, segments, reservations, the mappings of a process.
 *
 * A set is a list of ranges. Functions that take one take it in any order, with overlaps and with empty ranges in it; those
 * that give one give it normalised: sorted, nothing empty, no two that overlap or touch. Each is O(n log n).
 */

/** From `start` to before `end`, in bytes. Numbers are exact: below 2^53. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** @throws RangeError where the ends are not exact, negative or the wrong way round; or the range is empty */
export function range(start: number, end: number): Range {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end <= start) {
    throw new RangeError(`from ${hex(start)} to before ${hex(end)} is not a range`);
  }
  return { start, end };
}

/** In bytes. */
export function sizeOf({ start, end }: Range): number {
  return Math.max(0, end - start);
}

export function contains({ start, end }: Range, address: number): boolean {
  return start <= address && address < end;
}

/** Whether there is an address that lies in both. */
export function overlaps(a: Range, b: Range): boolean {
  return Math.max(a.start, b.start) < Math.min(a.end, b.end);
}

/** The smallest range of whole blocks of `to` bytes around a range. */
export function alignOut({ start, end }: Range, to: number): Range {
  return { start: alignDown(start, to), end: alignUp(end, to) };
}

/** The largest range of whole blocks of `to` bytes in a range, or undefined where there is none. */
export function alignIn({ start, end }: Range, to: number): Range | undefined {
  const inner = { start: alignUp(start, to), end: alignDown(end, to) };
  return inner.start < inner.end ? inner : undefined;
}

/** The next multiple of `to` that is not below. Any positive `to`, not only powers of two. */
export function alignUp(address: number, to: number): number {
  const over = address % to;
  return over === 0 ? address : address - over + to;
}

/** The last multiple of `to` that is not above. */
export function alignDown(address: number, to: number): number {
  return address - (address % to);
}

// --- sets ----------------------------------------------------------------------------------------------------------

/** Sorts, drops what is empty and merges what overlaps or touches. */
export function normalise(ranges: readonly Range[]): Range[] {
  const sorted = ranges.filter(({ start, end }) => start < end).sort((a, b) => a.start - b.start);
  const merged: { start: number; end: number }[] = [];
  for (const { start, end } of sorted) {
    const last = merged.at(-1);
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
    else merged.push({ start, end });
  }
  return merged;
}

/** What lies in either set. */
export function union(a: readonly Range[], b: readonly Range[]): Range[] {
  return normalise([...a, ...b]);
}

/** What lies in both sets. */
export function intersect(a: readonly Range[], b: readonly Range[]): Range[] {
  const [left, right] = [normalise(a), normalise(b)];
  const common: Range[] = [];
  for (let i = 0, j = 0; i < left.length && j < right.length; ) {
    const [one, other] = [left[i]!, right[j]!];
    const [start, end] = [Math.max(one.start, other.start), Math.min(one.end, other.end)];
    if (start < end) common.push({ start, end });
    if (one.end < other.end) i++;
    else j++;
  }
  return common;
}

/** What lies in `from` and not in `what`. */
export function subtract(from: readonly Range[], what: readonly Range[]): Range[] {
  const cuts = normalise(what);
  const left: Range[] = [];
  let cut = 0;
  for (const { start, end } of normalise(from)) {
    let at = start;
    while (cut < cuts.length && cuts[cut]!.end <= at) cut++;
    // The last cut may reach into the next range too, so it is not passed over here.
    for (let i = cut; i < cuts.length && cuts[i]!.start < end; i++) {
      if (cuts[i]!.start > at) left.push({ start: at, end: cuts[i]!.start });
      at = Math.max(at, cuts[i]!.end);
      cut = i;
    }
    if (at < end) left.push({ start: at, end });
  }
  return left;
}

/** Bytes in a set, each counted once. */
export function total(ranges: readonly Range[]): number {
  return normalise(ranges).reduce((sum, each) => sum + sizeOf(each), 0);
}

/** Two ranges of a list that overlap, the lowest such, or undefined where none do. */
export function findOverlap<R extends Range>(ranges: readonly R[]): [R, R] | undefined {
  const sorted = ranges.filter(({ start, end }) => start < end).sort((a, b) => a.start - b.start);
  for (let i = 1; i < sorted.length; i++) {
    // Up to here none overlap, so the one before is the one that reaches furthest.
    if (sorted[i]!.start < sorted[i - 1]!.end) return [sorted[i - 1]!, sorted[i]!];
  }
  return undefined;
}

export interface HoleRequest {
  /** In bytes. */
  readonly size: number;
  /** The hole begins at a multiple of it, in bytes. */
  readonly align: number;
  readonly prefer: 'lowest' | 'highest';
  /** The hole lies between these limits. */
  readonly within?: Range;
  readonly avoid?: readonly Range[];
}

/** A place in the set for `size` bytes in one piece, or undefined where there is none. */
export function findHole(free: readonly Range[], request: HoleRequest): Range | undefined {
  const { size, align, prefer, within, avoid = [] } = request;
  const usable = subtract(within === undefined ? free : intersect(free, [within]), avoid);
  if (prefer === 'lowest') {
    for (const { start, end } of usable) {
      const at = alignUp(start, align);
      if (at + size <= end) return { start: at, end: at + size };
    }
  } else {
    for (const { start, end } of usable.reverse()) {
      const at = alignDown(Math.max(0, end - size), align);
      if (at >= start && at + size <= end) return { start: at, end: at + size };
    }
  }
  return undefined;
}

// --- text ----------------------------------------------------------------------------------------------------------

/** `0x1000-0x9fbff`, with the last address, as the kernel writes ranges in its log and in /proc/iomem. */
export function formatRange({ start, end }: Range): string {
  return `${hex(start)}-${hex(end - 1)}`;
}

/** Reads what formatRange() writes, and /proc/iomem's form without 0x. @returns undefined where it is none */
export function parseRange(text: string): Range | undefined {
  const match = /^(?:0x)?([0-9a-f]+)-(?:0x)?([0-9a-f]+)$/i.exec(text);
  if (match === null) return undefined;
  const [start, end] = [Number.parseInt(match[1]!, 16), Number.parseInt(match[2]!, 16) + 1];
  return Number.isSafeInteger(end) && start < end ? { start, end } : undefined;
}

function hex(value: number): string {
  return value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}
