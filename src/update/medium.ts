/** Where preserved memory is on this machine: found, opened, looked into and given back. */
import { FormatError, SyscallError, UnsupportedError } from '../errors.ts';
import { count } from '../image/count.ts';
import type { ImageInfo } from '../image/info.ts';
import type { ImageDraft, ImageStore } from '../image/store.ts';
import { parameters } from '../kexec/commandline.ts';
import type { Range } from '../mem/range.ts';
import {
  createImage,
  FileMedium,
  HUGE_PAGES,
  HugePageMedium,
  holdsHugePages,
  IN_USE,
  KeptMedium,
  type Medium,
  openImage,
  openPkram,
  PhysicalMedium,
  type Pkram,
  returnable,
  returnRanges,
} from '../pkram/index.ts';
import { readProcText } from '../sys/proc.ts';
import { version } from '../version.ts';
import { demandUnsealed, rememberReturned, returnedMemory } from './state.ts';

/** On the command line of a kernel: where the superblock lies that the one before left. */
export const PARAMETER = 'tideover.pkram';

/** Where a medium is. */
export type Place =
  | { readonly kind: 'file'; readonly path: string }
  /** Huge pages of this kernel. */
  | { readonly kind: 'pages' }
  /** What an earlier kernel left, or a region that is reserved at boot. */
  | { readonly kind: 'physical'; readonly superblock: number; readonly region?: Range };

export interface MediumOptions {
  /** Make it where there is none. */
  readonly create?: boolean;
  readonly readOnly?: boolean;
  /** Most that it may hold, in bytes. */
  readonly limit?: number;
  /** Least size of one that is made, in bytes. */
  readonly size?: number;
}

/** Preserved memory that is there: in huge pages of this kernel, or found by its command line. */
export function findMemory(): Place | undefined {
  if (holdsHugePages()) return { kind: 'pages' };
  const words = parameters(readProcText('/proc/cmdline').trim());
  const superblock = Number(words.findLast((word) => word.startsWith(`${PARAMETER}=`))?.slice(PARAMETER.length + 1));
  if (!Number.isSafeInteger(superblock) || superblock === returnedMemory()?.superblock) return undefined;
  return { kind: 'physical', superblock };
}

/** Opens a medium. @param place undefined for one in huge pages that is to be made @throws ENOENT where there is none */
export function openMedium(place: Place | undefined, options: MediumOptions): Pkram {
  const writer = `tideover ${version()}`;
  const { limit } = options;
  const open = (medium: Medium) => openPkram(medium, { writer, ...(limit !== undefined && { limit }) });
  if (place?.kind !== 'file' && options.readOnly !== true) demandUnsealed();
  const mapped = keptFor(place, options.readOnly === true, writer);
  if (mapped !== undefined) {
    return inTurn(() => mapped.open(options.readOnly === true, { writer, ...(limit !== undefined && { limit }) }));
  }
  try {
    return open(
      place?.kind === 'file' ? mediumAt(place, options, writer) : inTurn(() => mediumAt(place, options, writer)),
    );
  } catch (error) {
    if (place?.kind !== 'physical' || !isUnmade(error) || place.region === undefined || !options.create) throw error;
    return open(PhysicalMedium.make(place.region, { writer }));
  }
}

/** From when keepMapped() is called, what is kept, by its place. */
let kept: { place?: string; medium?: KeptMedium; pages?: HugePageMedium } | undefined;

/**
 * From now on memory stays mapped from one opening to the next, for a program that opens it again and again while all stand still.
 *
 * @returns has it be as before: memory that somebody has mapped cannot be given back
 */
export function keepMapped(): Disposable {
  kept ??= {};
  return {
    [Symbol.dispose]() {
      unmapKept();
      kept = undefined;
    },
  };
}

/** What is kept mapped is not from now on. */
function unmapKept(): void {
  kept?.medium?.close();
  if (kept !== undefined) kept = {};
}

/** undefined where memory is not kept mapped, or is open already */
function keptFor(place: Place | undefined, readOnly: boolean, writer: string): KeptMedium | undefined {
  if (kept === undefined || place === undefined || place.kind === 'file') return undefined;
  const name = JSON.stringify(place);
  if (kept.place !== name) {
    unmapKept();
    const opened = inTurn(() =>
      place.kind === 'pages' ? HugePageMedium.open({ writer }) : new PhysicalMedium(place.superblock, { alone: false }),
    );
    kept = { place: name, medium: new KeptMedium(opened), ...(opened instanceof HugePageMedium && { pages: opened }) };
  }
  return kept.medium?.isFree(readOnly) ? kept.medium : undefined;
}

/** Keeps the pages where they are. @returns descriptors, until all of which are closed; none of what an earlier kernel left */
export function pinMemory(): number[] {
  if (findMemory()?.kind !== 'pages') return [];
  if (kept?.pages !== undefined) return kept.pages.pin();
  const medium = HugePageMedium.open({ readOnly: true });
  try {
    return medium.pin();
  } finally {
    medium.close();
  }
}

/** Waits for its turn where another process has the medium: services that are restored at boot each open it. */
function inTurn<T>(take: () => T): T {
  const until = performance.now() + PATIENCE;
  for (;;) {
    try {
      return take();
    } catch (error) {
      if (!isInUse(error) || performance.now() > until) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    }
  }
}

const isInUse = (error: unknown) => error instanceof UnsupportedError && error.why === IN_USE;

/** In ms: trees are restored meanwhile. The lock ends with whoever has it. */
const PATIENCE = 600_000;

function mediumAt(place: Place | undefined, options: MediumOptions, writer: string): Medium {
  const { create = false, readOnly = false, size } = options;
  switch (place?.kind) {
    case 'file':
      return FileMedium.open(place.path, { create, readOnly, writer });
    case 'physical':
      return new PhysicalMedium(place.superblock, { readOnly });
    default:
      return HugePageMedium.open({ create, readOnly, writer, ...(size !== undefined && { size }) });
  }
}

/** No superblock has ever been there. */
function isUnmade(error: unknown): boolean {
  return error instanceof FormatError && error.field === 'magic';
}

/** Memory that a medium takes. */
export interface Holding {
  /** What keeps the system from using it. */
  readonly holder: string;
  /** In bytes. */
  readonly size: number;
  /** Bytes that the system can have back when the nodes are gone. */
  readonly returnable: number;
  /** Why not more. */
  readonly reason?: string;
  /** Tells another kernel where it is. */
  readonly parameter: string;
}

/** What a medium takes of memory; undefined for a file. */
export function holdingOf(place: Place | undefined, pkram: Pkram): Holding | undefined {
  if (place?.kind === 'file') return undefined;
  const { size, ranges } = pkram.status();
  const parameter = `${PARAMETER}=0x${ranges[0]!.start.toString(16)}`;
  if (place?.kind !== 'physical') {
    return { holder: `the mount ${HUGE_PAGES}, without a process`, size, returnable: size, parameter };
  }
  const holder = 'the memory map that this kernel was started with';
  const back = returnable(ranges);
  const reason = back === 0 ? 'it is reserved memory, or no whole memory block' : 'the rest is no whole memory blocks';
  return { holder, size, returnable: back, parameter, ...(back < size && { reason }) };
}

/**
 * Gives the memory of a medium to the system.
 *
 * @param force also with nodes in it, which are lost
 * @returns bytes of the medium, and those that are ordinary memory now
 * @throws UnsupportedError where there are nodes, or a driver is missing
 */
export async function returnMemory(
  place: Place | undefined,
  force: boolean,
): Promise<{ size: number; returned: number }> {
  if (place === undefined) return { size: 0, returned: 0 };
  if (place.kind === 'file') {
    const why = `${place.path} is a file`;
    throw new UnsupportedError({ what: 'giving memory back', why, remedy: 'remove the file' });
  }
  demandUnsealed();
  unmapKept();
  return place.kind === 'pages' ? returnPages(force) : returnPhysical(place, force);
}

/**
 * Gives the memory of a medium to the system, unless something of others is in it.
 *
 * @returns bytes that are ordinary memory now, and why not more
 */
export async function returnUnused(place: Place | undefined): Promise<{ returned: number; why?: string }> {
  try {
    return { returned: (await returnMemory(place, false)).returned };
  } catch (error) {
    if (!(error instanceof UnsupportedError)) throw error;
    return { returned: 0, why: `preserved memory stays as it is: ${error.message}` };
  }
}

function returnPages(force: boolean) {
  const medium = HugePageMedium.open();
  // With force whatever is in them, be it damaged.
  if (!force) demandEmpty(openPkram(medium));
  const returned = medium.giveBack();
  return { size: returned, returned };
}

async function returnPhysical({ superblock, region }: Extract<Place, { kind: 'physical' }>, force: boolean) {
  let pkram: Pkram;
  try {
    pkram = openPkram(new PhysicalMedium(superblock));
  } catch (error) {
    if (!force || region !== undefined) throw error;
    // Nobody knows what of it there is. It is not looked for any more.
    rememberReturned({ superblock, ranges: [] });
    return { size: 0, returned: 0 };
  }
  if (!force) demandEmpty(pkram);
  const { size, ranges } = pkram.status();
  pkram.close();
  const returned = await returnRanges(ranges);
  if (region === undefined) rememberReturned({ superblock, ranges });
  return { size, returned };
}

/** @throws UnsupportedError, and closes it, where there are nodes */
function demandEmpty(pkram: Pkram): void {
  const { nodes } = pkram.status();
  if (nodes === 0) return;
  pkram.close();
  const why = `${count(nodes, 'node')} would be lost`;
  const remedy = 'load them or remove them first, or use --force';
  throw new UnsupportedError({ what: 'giving memory back', why, remedy });
}

/** An image that is being written, and the one that it builds on, which is closed with it. */
export interface NodeDraft extends ImageDraft {
  readonly parent: ImageStore | undefined;
}

/**
 * Begins an image as a node. The medium is closed with the draft.
 *
 * @param on node with the image that it builds on
 * @throws UnsupportedError where there is a node of that name
 */
export function draftNode(place: Place | undefined, node: string, info: ImageInfo, on?: string): NodeDraft {
  const pkram = openMedium(place, { create: true });
  try {
    const parent = on === undefined ? undefined : openImage(pkram, on);
    const draft = createImage(pkram, node, info, { parent: on });
    return {
      ...draft,
      parent,
      commit() {
        draft.commit();
        pkram.close();
      },
      abort() {
        draft.abort();
        pkram.close();
      },
    };
  } catch (error) {
    pkram.close();
    throw error;
  }
}

/**
 * The image in a node, which stays. The medium is closed with the store.
 *
 * @param unlocked whether others may have the medium meanwhile, who leave this node and those on which it builds alone
 * @throws NoSuchNodeError, FormatError
 */
export function openNode(place: Place | undefined, node: string, { unlocked = false } = {}): ImageStore {
  const pkram = openMedium(place, { readOnly: true });
  try {
    const store = openImage(pkram, node);
    for (let each = unlocked ? store.parent?.() : undefined; each !== undefined; each = each.parent?.());
    if (unlocked) pkram.unlock();
    return {
      ...store,
      close() {
        store.close();
        pkram.close();
      },
    };
  } catch (error) {
    pkram.close();
    throw error;
  }
}

/** Why nothing can be read of preserved memory that is there: its superblock or its list of nodes is damaged. */
export function damageOf(place: Place | undefined): string | undefined {
  if (place === undefined) return undefined;
  try {
    const pkram = openMedium(place, { readOnly: true });
    try {
      pkram.nodes();
    } finally {
      pkram.close();
    }
  } catch (error) {
    if (error instanceof FormatError) return error.message;
    // Who has it does something with it, and so could read it.
    if (!isAbsent(error) && !isInUse(error)) throw error;
  }
  return undefined;
}

/** Whether an error says that there is no medium. */
export function isAbsent(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || (error instanceof SyscallError && error.errnoName === 'ENOENT');
}
