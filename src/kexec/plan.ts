/**
 * From a kernel, its initrd and command line to the segments that are loaded. Nothing is changed here: the same plan is
 * shown by --dry-run, and what is loaded is exactly what it says.
 *
 *     kernel       as low as it may lie
 *     ...
 *     PRAM         a file system that the next kernel mounts where it lies
 *     initrd       as high as it may lie, below 4 GB where there is room
 *     boot params  zero page, command line, setup_data, EFI memory map
 *     purgatory    checks the others and enters the kernel
 */
import { createHash, randomBytes } from 'node:crypto';
import { E820_TYPE_PRAM, E820_TYPE_RAM } from '../abi/e820.ts';
import { ENTRY_32, RESET_PIC, RESET_VGA } from '../asm/parameters.ts';
import { type PurgatoryParameters, purgatory } from '../asm/purgatory.ts';
import { UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { type E820Entry, punch } from '../mem/e820.ts';
import { alignUp, findHole, findOverlap, intersect, type Range, sizeOf, subtract, total } from '../mem/range.ts';
import type { BootImage } from './bootimage.ts';
import { bootParams, bootParamsSize, COMMAND_LINE_OFFSET } from './bootparams.ts';
import type { Machine } from './machine.ts';
import { nextMap, type Reservation, ramOf, roomIn, wholePages } from './memorymap.ts';
import { place, tooLittleRoom } from './placement.ts';

export interface Segment {
  readonly name: string;
  /** Physical address, a multiple of 4096. */
  readonly start: number;
  /** In memory; what `bytes` do not fill is zero. A multiple of 4096. */
  readonly size: number;
  readonly bytes: Uint8Array;
}

export interface Plan {
  readonly image: BootImage;
  readonly segments: readonly Segment[];
  /** Where kexec enters: the purgatory's first byte. */
  readonly entry: number;
  readonly e820: readonly E820Entry[];
  readonly commandLine: string;
  /** What the memory map calls E820_TYPE_PRAM because LoadRequest.pram lies there. */
  readonly pram?: Range;
}

export interface LoadRequest {
  readonly image: BootImage;
  /** Archives that `joinInitrds` has joined; empty for none. */
  readonly initrd: Uint8Array;
  readonly commandLine: string;
  /** Becomes /dev/pmem0 of the next kernel (nd_e820, nd_pmem): a file system that needs no memory beyond its own. */
  readonly pram?: Uint8Array;
  /** Memory that nothing is loaded to and that the next kernel leaves alone. */
  readonly reserve?: readonly Reservation[];
  /** Lowest and highest address that may be loaded to. */
  readonly memMin?: number;
  readonly memMax?: number;
  readonly resetVga?: boolean;
  readonly resetPic?: boolean;
}

/**
 * Plans a plain kexec.
 *
 * @throws UnsupportedError where a piece finds no room, or the kernel cannot be entered from this machine's state
 */
export function planLoad(request: LoadRequest, machine: Machine): Plan {
  const reserve = wholePages(request.reserve ?? []);
  const e820 = nextMap(machine.firmware, reserve);
  const between = { start: request.memMin ?? 0, end: (request.memMax ?? Number.MAX_SAFE_INTEGER - 1) + 1 };
  const plan = build(request, machine, { e820, room: roomIn(e820, machine.systemRam, between) });
  checkPlan(
    plan,
    reserve.filter(({ type }) => type !== E820_TYPE_RAM),
  );
  checkMemory(plan, machine);
  return plan;
}

/**
 * Until it is started, what is loaded lies in other memory, of which kexec_load(2) gives at most half of what there is
 * (sanity_check_segment_list() of kernel/kexec_core.c).
 *
 * @throws UnsupportedError with what is missing
 */
export function checkMemory({ segments, image }: Plan, { systemRam }: Machine): void {
  const needed = segments.reduce((sum, { size }) => sum + size, 0);
  const limit = Math.floor(total(systemRam) / 2);
  if (needed <= limit) return;
  const mib = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
  throw new UnsupportedError({
    what: `too little memory to load ${image.file}`,
    why: `with its initrd it takes ${mib(needed)}, and the kernel lends at most half of this machine's memory: ${mib(needed - limit)} are missing`,
    remedy: 'make the initrd smaller, or add memory',
  });
}

/** Archives one after the other, as the kernel unpacks them: each begins at a multiple of 4. */
export function joinInitrds(archives: readonly Uint8Array[]): Uint8Array {
  if (archives.length === 1) return archives[0]!;
  return Buffer.concat(archives.flatMap((archive) => [archive, new Uint8Array(-archive.length & 3)]));
}

/** What differs between a plain kexec, a jump and a capture kernel. */
export interface Layout {
  readonly e820: readonly E820Entry[];
  /** Where pieces may be placed. */
  readonly room: readonly Range[];
  /** Segments that have their place already; those with `checked` have their digest taken. */
  readonly fixed?: readonly (Segment & { readonly checked: boolean })[];
  /** Memory that must be the image's own, whole: what no segment covers becomes a segment without content. */
  readonly fill?: readonly Range[];
  /** Load the kernel's bytes only and not the memory that it will use, where that is free anyway. */
  readonly bytesOnly?: boolean;
  /** Further parameters of the purgatory. @param commandLineAt physical address of the command line */
  parameters?(commandLineAt: number): PurgatoryParameters;
}

/** Places and fills the pieces. @throws UnsupportedError as `planLoad` */
export function build(request: LoadRequest, machine: Machine, layout: Layout): Plan {
  const { image, initrd, commandLine } = request;
  const { fixed = [], fill = [] } = layout;
  const pram = request.pram && placePram(request.pram.length, layout.room);
  const e820 = pram === undefined ? layout.e820 : punch(layout.e820, [pram], E820_TYPE_RAM, E820_TYPE_PRAM);
  const room = pram === undefined ? layout.room : subtract(layout.room, [pram]);
  const entry32 = mustEnterIn32Bits(image, machine);
  const next = {
    image,
    commandLine,
    e820,
    running: machine.bootParams,
    acpiRsdp: machine.acpiRsdp,
    efi: image.efiKexec ? machine.efi : undefined,
    rngSeed: randomBytes(32),
    kernelAt: 0,
    initrd: initrd.length === 0 ? undefined : { start: 0, size: initrd.length },
  };
  const rest = { 'boot params': bootParamsSize(next), purgatory: purgatory({}).length };
  const below = entry32 ? intersect(room, [{ start: 0, end: FOUR_GB }]) : room;
  const at = place({ image, initrdSize: initrd.length, rest }, below);
  const [paramsAt, entry] = [at.rest['boot params']!, at.rest.purgatory!];
  const params = bootParams(
    { ...next, kernelAt: at.kernel, initrd: next.initrd && { start: at.initrd!, size: initrd.length } },
    paramsAt,
  );

  const checked: Segment[] = image.parts.map(({ offset, bytes, memorySize }) =>
    segment('kernel', at.kernel + offset, bytes, layout.bytesOnly ? bytes.length : memorySize),
  );
  if (at.initrd !== undefined) checked.push(segment('initrd', at.initrd, initrd));
  if (pram !== undefined) checked.push(segment('PRAM', pram.start, request.pram!, sizeOf(pram)));
  checked.push(segment('boot params', paramsAt, params), ...fixed.filter((each) => each.checked));
  const code = purgatory({
    flags: (request.resetVga ? RESET_VGA : 0) | (request.resetPic ? RESET_PIC : 0) | (entry32 ? ENTRY_32 : 0),
    entry: at.kernel + (entry32 ? image.entry32! : image.entry64!),
    boot_params: paramsAt,
    serial_port: machine.serialPort,
    regions: checked.map(({ start, bytes }) => ({ start, size: bytes.length, sha256: sha256(bytes) })),
    ...layout.parameters?.(paramsAt + COMMAND_LINE_OFFSET),
  });
  const placed = [...checked, segment('purgatory', entry, code), ...fixed.filter((each) => !each.checked)];
  const gaps = subtract(
    fill,
    placed.map(({ start, size }) => ({ start, end: start + size })),
  );
  const fillers = gaps.map(({ start, end }) => segment('filler', start, new Uint8Array(0), end - start));
  const plan = { image, segments: [...placed, ...fillers], entry, e820, commandLine };
  return pram === undefined ? plan : { ...plan, pram };
}

/** Of a pmem device in one piece: memory comes with struct pages by subsections (include/linux/mmzone.h). */
const SUBSECTION_SIZE = 2 ** 21;

function placePram(bytes: number, room: readonly Range[]): Range {
  const size = alignUp(bytes, SUBSECTION_SIZE);
  const hole = findHole(room, { size, align: SUBSECTION_SIZE, prefer: 'highest' });
  if (hole !== undefined) return hole;
  throw tooLittleRoom('the system', size, room, ` at a multiple of ${SUBSECTION_SIZE}`);
}

const FOUR_GB = 2 ** 32;

/** The 64-bit entry keeps the paging mode, so a kernel that does not know 5 levels is entered without paging. */
function mustEnterIn32Bits({ file, entry64, entry32, fiveLevel }: BootImage, machine: Machine): boolean {
  if (entry64 !== undefined && (fiveLevel || !machine.fiveLevel)) return false;
  if (entry32 !== undefined) return true;
  throw new UnsupportedError({
    what: `${file}: xloadflags`,
    why: 'XLF_5LEVEL is not set and the running kernel uses 5-level page tables, in which this one cannot start',
    remedy: 'boot the running kernel with no5lvl, or take a newer kernel',
  });
}

/**
 * What must hold of any plan, whoever made it: whole pages, in RAM of the next kernel, apart from each other and from
 * what is reserved.
 *
 * @param own memory for segments that the next kernel must not take for RAM
 */
export function checkPlan({ segments, e820, pram }: Plan, reserve: readonly Range[], own: readonly Range[] = []): void {
  const ranges = segments.map(({ name, start, size }) => ({ name, start, end: start + size }));
  const wrong = (range: { name: string; start: number }, what: string) =>
    new Error(`segment ${range.name} at 0x${range.start.toString(16)} ${what}`);
  for (const range of ranges) {
    if (range.start % PAGE_SIZE !== 0 || range.end % PAGE_SIZE !== 0) throw wrong(range, 'is not whole pages');
    if (subtract([range], [...ramOf(e820), ...own, ...(pram ? [pram] : [])]).length > 0)
      throw wrong(range, 'is not in RAM');
    if (intersect([range], reserve).length > 0) throw wrong(range, 'lies in reserved memory');
  }
  const [one, other] = findOverlap(ranges) ?? [];
  if (one !== undefined) throw wrong(one, `overlaps ${other!.name}`);
}

/** A segment of whole pages around some bytes. */
export function segment(name: string, start: number, bytes: Uint8Array, size = bytes.length): Segment {
  return { name, start, size: alignUp(size, PAGE_SIZE), bytes };
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}
