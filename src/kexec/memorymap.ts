/**
 * The next kernel's memory: its e820 map, which is the firmware's with ranges of ours taken out of the RAM, and the room
 * in which its pieces may be placed.
 */

import {
  E820_TYPE_PMEM,
  E820_TYPE_PRAM,
  E820_TYPE_RAM,
  E820_TYPE_RESERVED,
  E820_TYPE_SOFT_RESERVED,
} from '../abi/e820.ts';
import { UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { type E820Entry, punch, rangesOfType, sortE820 } from '../mem/e820.ts';
import { alignIn, alignOut, formatRange, intersect, type Range, subtract } from '../mem/range.ts';

/** Memory that the next kernel must leave alone. */
export interface Reservation extends Range {
  /**
   * What its e820 map calls it; E820_TYPE_RESERVED where not given. E820_TYPE_RAM gives back what an earlier kexec reserved:
   * otherwise that stays reserved.
   */
  readonly type?: number;
}

const MB = 2 ** 20;

/** What may become a reservation: RAM, and what a kexec before this one made of RAM. */
const ours: ReadonlySet<number> = new Set([
  E820_TYPE_RAM,
  E820_TYPE_RESERVED,
  E820_TYPE_PMEM,
  E820_TYPE_PRAM,
  E820_TYPE_SOFT_RESERVED,
]);

/** Reservations as whole pages. */
export function wholePages(reserve: readonly Reservation[]): E820Entry[] {
  return reserve.map((each) => ({ ...alignOut(each, PAGE_SIZE), type: each.type ?? E820_TYPE_RESERVED }));
}

/**
 * The firmware's map with the reservations laid over it, sorted, neighbours of one type joined.
 *
 * @throws UnsupportedError where a reservation lies on memory that is not RAM
 * @throws FormatError where reservations overlap
 */
export function nextMap(firmware: readonly E820Entry[], reserve: readonly Reservation[]): E820Entry[] {
  const pages = wholePages(reserve);
  const able = firmware.filter(({ type }) => ours.has(type));
  const [stray] = subtract(pages, able);
  if (stray !== undefined) {
    throw new UnsupportedError({
      what: `reserving ${formatRange(stray)}`,
      why: 'this is not memory that the firmware gave to the kernel',
      remedy: 'look at /sys/firmware/memmap',
    });
  }
  const kept = firmware.flatMap((entry) => subtract([entry], pages).map((range) => ({ ...range, type: entry.type })));
  return sortE820([...kept, ...pages], 'memory map of the next kernel');
}

/**
 * The map for a kernel that lives in `region` beside another one, whose memory it must not use but wants to read: the
 * first megabyte, which every kernel needs to start its processors, and the region are RAM, the rest of RAM is
 * persistent memory. That type nothing claims, so that /dev/mem gives access to it also under CONFIG_IO_STRICT_DEVMEM.
 *
 * @param own parts of the region that the kernel must not use either
 */
export function regionMap(firmware: readonly E820Entry[], region: Range, own: readonly Range[] = []): E820Entry[] {
  const outside = subtract(ramOf(firmware), [{ start: 0, end: MB }, region]);
  const map = punch(firmware, outside, E820_TYPE_RAM, E820_TYPE_PMEM);
  return punch(map, own, E820_TYPE_RAM, E820_TYPE_RESERVED);
}

/** RAM in a map. */
export function ramOf(map: readonly E820Entry[]): Range[] {
  return rangesOfType(map, E820_TYPE_RAM);
}

/**
 * Where segments may lie: RAM for the next kernel and for this one, whose page tables they are entered with, above the
 * first megabyte, which kernels keep for their own start.
 *
 * @param systemRam of the running kernel
 * @param between lowest and highest address wanted
 */
export function roomIn(map: readonly E820Entry[], systemRam: readonly Range[], between: Range): Range[] {
  const allowed = { start: Math.max(between.start, MB), end: between.end };
  return intersect(intersect(ramOf(map), systemRam), [allowed])
    .map((range) => alignIn(range, PAGE_SIZE))
    .filter((range) => range !== undefined);
}
