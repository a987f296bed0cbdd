/**
 * Preserved memory and the next kernel: what is left out of its memory map, what its command line says, and that nothing has
 * changed between loading and starting it.
 *
 *     pkram save    the medium, in huge pages
 *     kexec load    its ranges go into the memory map; what was there is written down
 *     kexec exec    compares, and starts
 */
import { E820_TYPE_PRAM, E820_TYPE_RAM, E820_TYPE_RESERVED, E820_TYPE_SOFT_RESERVED } from '../abi/e820.ts';
import { TideoverError, UnsupportedError } from '../errors.ts';
import { parameters } from '../kexec/commandline.ts';
import type { Reservation } from '../kexec/memorymap.ts';
import { alignIn, normalise, subtract } from '../mem/range.ts';
import type { MediumRange, PkramStatus } from '../pkram/index.ts';
import { memoryBlockSize } from '../sys/memoryblocks.ts';
import { configOf, moduleNames } from '../sys/probe/config.ts';
import { findMemory, openMedium, PARAMETER } from './medium.ts';
import { loadedWith, rememberLoaded, returnedMemory } from './state.ts';

/** What the next kernel's memory map calls whole blocks of preserved memory, and what it calls the rest. */
const PRESERVE_AS = {
  reserved: { blocks: undefined, rest: E820_TYPE_RESERVED },
  'soft-reserved': { blocks: E820_TYPE_SOFT_RESERVED, rest: E820_TYPE_RESERVED },
  pram: { blocks: undefined, rest: E820_TYPE_PRAM },
  'soft-reserved,pram': { blocks: E820_TYPE_SOFT_RESERVED, rest: E820_TYPE_PRAM },
} as const;
export type PreserveAs = keyof typeof PRESERVE_AS;

/**
 * Drivers that would take soft-reserved memory in by themselves, with what is in it. modprobe(8) and udev load them only by name then,
 * as giving it back does.
 */
const BLACKLIST = 'modprobe.blacklist=dax_hmem,kmem';

/** The names of the ways to keep memory. */
export const preserveAs = Object.keys(PRESERVE_AS) as readonly PreserveAs[];

/** What the next kernel gets. */
export interface Preserved {
  readonly reserve: readonly Reservation[];
  /** Parameters for its command line. */
  readonly parameters: readonly string[];
  readonly nodes: number;
  readonly type: PreserveAs;
  /** To be called when the kernel is loaded. */
  remember(): void;
}

/** The kernel that is to be loaded. */
export interface NextKernel {
  readonly release: string;
  readonly commandLine: string;
}

/** @param as what the next kernel's memory map calls it; undefined to choose by what that kernel can do */
export function preservedFor(as: PreserveAs | undefined, next: NextKernel): Preserved {
  const type = as ?? preserveFor(next);
  const now = statusNow(false);
  const ranges = now?.ranges ?? [];
  const remember = () => rememberLoaded(now && { uuid: now.uuid, sequence: now.sequence, ranges });
  if (now === undefined || now.nodes === 0) {
    return { reserve: ramAgain(foundRanges(ranges), []), parameters: [], nodes: 0, type, remember };
  }
  const reserve = reservations(ranges, type, memoryBlockSize());
  return {
    reserve: [...reserve, ...ramAgain([], ranges)],
    parameters: [locationOf(now), ...(PRESERVE_AS[type].blocks === undefined ? [] : [BLACKLIST])],
    nodes: now.nodes,
    type,
    remember,
  };
}

/** What the next kernel gets where preserved memory is given up, readable or not. */
export function nothingPreserved(): Preserved {
  const remember = () => rememberLoaded('dropped');
  let ranges: readonly MediumRange[] = [];
  try {
    ranges = statusNow(true)?.ranges ?? [];
  } catch (error) {
    if (!(error instanceof TideoverError)) throw error;
  }
  return { reserve: ramAgain(foundRanges(ranges), []), parameters: [], nodes: 0, type: 'reserved', remember };
}

/** Huge pages of this kernel are ordinary memory for the next one anyway. */
function foundRanges(ranges: readonly MediumRange[]): readonly MediumRange[] {
  return findMemory()?.kind === 'physical' ? ranges : [];
}

/** What a kexec before this one kept from this kernel, and what is ordinary memory for the next one. */
function ramAgain(more: readonly MediumRange[], kept: readonly MediumRange[]): Reservation[] {
  const given = [...(returnedMemory()?.ranges ?? []), ...more].map(ends);
  return subtract(given, kept.map(ends)).map((range) => ({ ...range, type: E820_TYPE_RAM }));
}

/**
 * What the next kernel's memory map calls ranges. Only whole blocks of memory are soft reserved: nothing else can be given back. And
 * a kernel that does not list soft-reserved memory in /proc/iomem (7.2) puts a "RAM buffer", which /dev/mem refuses, over all that
 * follows RAM up to the next 64 MiB (e820__reserve_resources_late() of arch/x86/kernel/e820.c); a whole block begins there.
 *
 * @param block size of a block of memory; undefined for a kernel that takes none in
 */
export function reservations(ranges: readonly MediumRange[], as: PreserveAs, block: number | undefined): Reservation[] {
  const type = PRESERVE_AS[as];
  const all = normalise(ranges.map(ends));
  const { blocks: blockType } = type;
  const blocks =
    block === undefined || blockType === undefined ? [] : all.flatMap((range) => alignIn(range, block) ?? []);
  return [
    ...blocks.map((range) => ({ ...range, type: blockType! })),
    ...subtract(all, blocks).map((range) => ({ ...range, type: type.rest })),
  ];
}

/** For the command line of a capture kernel, which leaves alone all memory that it does not live in. */
export function locationForCapture(): string[] {
  const now = statusNow(true);
  return now === undefined ? [] : [locationOf(now)];
}

/** A command line without what an earlier kexec put there of preserved memory, and with what the next kernel is to know. */
export function withLocation(commandLine: string, add: readonly string[]): string {
  const others = parameters(commandLine).filter((word) => !word.startsWith(`${PARAMETER}=`) && word !== BLACKLIST);
  return [...others, ...add].join(' ');
}

/** To be asked immediately before the next kernel starts. @throws UnsupportedError where preserved memory is not what it was */
export function demandUnchanged(): void {
  const now = statusNow(true);
  if (now === undefined || now.nodes === 0) return;
  const then = loadedWith();
  if (then === 'dropped') return;
  if (then === undefined || then.uuid !== now.uuid) refuse('the kernel was loaded before there was preserved memory');
  if (then.sequence !== now.sequence) refuse('a node was saved, loaded or removed after the kernel was loaded');
  if (JSON.stringify(then.ranges) !== JSON.stringify(now.ranges)) refuse('pages of preserved memory were moved');
}

/** `tideover.pkram=ADDRESS`. */
export function locationOf({ ranges }: Pick<PkramStatus, 'ranges'>): string {
  return `${PARAMETER}=0x${ranges[0]!.start.toString(16)}`;
}

function statusNow(readOnly: boolean): PkramStatus | undefined {
  const place = findMemory();
  if (place === undefined) return undefined;
  // To be written to, where pages were moved: the table of ranges is put right then.
  const pkram = openMedium(place, { readOnly });
  try {
    return pkram.status();
  } finally {
    pkram.close();
  }
}

/**
 * What suits a kernel: whole blocks soft reserved, where it has what makes such memory ordinary, and as modules, for what is built in
 * would do so at boot; the rest reserved, or where the kernel keeps /dev/mem shut and has the drivers of PRAM, that.
 */
function preserveFor({ release, commandLine }: NextKernel): PreserveAs {
  const names = (file: string) => moduleNames(`/lib/modules/${release}/${file}`);
  const [modular, builtin] = [names('modules.dep'), names('modules.builtin')];
  const blocks = ['dax_hmem', 'kmem'].every((name) => modular.has(name) && !builtin.has(name));
  const pram = ['nd_e820', 'nd_pmem'].every((name) => modular.has(name) || builtin.has(name));
  if (!pram || !keepsMemoryShut(release, commandLine)) return blocks ? 'soft-reserved' : 'reserved';
  return blocks ? 'soft-reserved,pram' : 'pram';
}

/** Whether a kernel has no /dev/mem, or is locked down (kernel_lockdown(7)). */
function keepsMemoryShut(release: string, commandLine: string): boolean {
  if (parameters(commandLine).some((word) => word.startsWith('lockdown='))) return true;
  const config = configOf(release);
  if (config === undefined) return false;
  const forced = ['INTEGRITY', 'CONFIDENTIALITY'].some((mode) => config.get(`LOCK_DOWN_KERNEL_FORCE_${mode}`) === 'y');
  return forced || config.get('DEVMEM') !== 'y';
}

function ends({ start, size }: MediumRange) {
  return { start, end: start + size };
}

function refuse(why: string): never {
  throw new UnsupportedError({
    what: 'starting the next kernel',
    why: `${why}, and would be lost`,
    remedy: 'load the kernel again: tideover kexec load',
  });
}
