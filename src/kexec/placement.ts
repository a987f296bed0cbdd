/**
 * Where the pieces of the next kernel go. Pure: given the memory that may be used, it finds a place for each piece or
 * says how much is missing.
 *
 * The kernel goes as low as it may, because it decompresses in place, and never below its preferred address: the
 * decompressor moves up to LOAD_PHYSICAL_ADDR when loaded lower (arch/x86/boot/compressed/head_64.S), which would be
 * memory nobody chose. Everything else goes as high as it may, below 4 GB where there is room, so that large holes
 * stay whole and devices and crashkernel= of the next kernel find low memory.
 */
import { UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { alignUp, findHole, intersect, type Range, sizeOf, subtract } from '../mem/range.ts';
import type { BootImage } from './bootimage.ts';

export interface Pieces {
  readonly image: BootImage;
  /** In bytes; 0 for none. */
  readonly initrdSize: number;
  /** Sizes in bytes of what may lie anywhere, by name. */
  readonly rest: Readonly<Record<string, number>>;
}

export interface Placement {
  readonly kernel: number;
  /** Undefined where there is no initrd. */
  readonly initrd: number | undefined;
  /** By the names of `rest`. */
  readonly rest: Readonly<Record<string, number>>;
}

const FOUR_GB = 2 ** 32;
const NO_LIMIT = Number.MAX_SAFE_INTEGER;

/**
 * @param room memory that may be used: RAM now and for the next kernel, reserved by nobody
 * @throws UnsupportedError where a piece finds no place; says how much is missing
 */
export function place({ image, initrdSize, rest }: Pieces, room: readonly Range[]): Placement {
  const bound = image.above4G ? '' : ' below 4 GB, as XLF_CAN_BE_LOADED_ABOVE_4G is not set in xloadflags';
  let free: readonly Range[] = image.above4G ? room : intersect(room, [{ start: 0, end: FOUR_GB }]);
  const take = (what: string, hole: Range | undefined, size: number, hint: string) => {
    if (hole === undefined) throw tooLittleRoom(what, size, free, `${hint}${bound}`);
    free = subtract(free, [hole]);
    return hole.start;
  };
  const high = (what: string, bytes: number, limit: number) => {
    const size = alignUp(bytes, PAGE_SIZE);
    const below = (end: number) =>
      findHole(free, { size, align: PAGE_SIZE, prefer: 'highest', within: { start: 0, end } });
    const hole = below(Math.min(limit, FOUR_GB)) ?? below(limit);
    return take(what, hole, size, limit === NO_LIMIT ? '' : ` and it must end below ${hex(limit)}`);
  };

  const size = alignUp(image.size, PAGE_SIZE);
  const { alignment: align, preferred, relocatable } = image;
  const within = { start: preferred, end: relocatable ? NO_LIMIT : preferred + size };
  const hole = findHole(free, { size, align: relocatable ? align : PAGE_SIZE, prefer: 'lowest', within });
  const where = relocatable ? `at ${hex(preferred)} or above, at a multiple of ${hex(align)}` : `at ${hex(preferred)}`;
  const kernel = take('the kernel', hole, size, ` and must lie ${where}`);

  const initrdEnd = Math.min(image.initrdMax + 1, NO_LIMIT);
  const initrd = initrdSize === 0 ? undefined : high('the initrd', initrdSize, initrdEnd);
  const places: Record<string, number> = {};
  for (const [name, bytes] of Object.entries(rest)) places[name] = high(`the ${name}`, bytes, NO_LIMIT);
  return { kernel, initrd, rest: places };
}

/** @param hint what else is asked of the place */
export function tooLittleRoom(what: string, size: number, free: readonly Range[], hint: string): UnsupportedError {
  const largest = Math.max(0, ...free.map(sizeOf));
  const missing = size > largest ? `, ${kib(size - largest)} are missing` : '';
  return new UnsupportedError({
    what: `too little room for ${what}`,
    why: `it needs ${kib(size)} in one piece${hint}; the largest free piece has ${kib(largest)}${missing}`,
    remedy: 'reserve less, widen --mem-min and --mem-max, or give a larger crashkernel=',
  });
}

function kib(bytes: number): string {
  return `${Math.ceil(bytes / 1024)} KiB`;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
