/** Taking huge pages from the kernel, which says where they lie only afterwards: more are looked at than are kept. */
import { freemem, totalmem } from 'node:os';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { PMD_SIZE } from '../mem/address.ts';
import { alignUp, overlaps, type Range } from '../mem/range.ts';
import { withSurplusHugePages } from '../sys/hugepages.ts';
import { memoryBlockSize } from '../sys/memoryblocks.ts';
import { choosePages, runCount, wholeBlocks } from './choose.ts';
import { type PageFiles, physicalAddresses, unmap } from './pagefiles.ts';

/** How often pages are asked for beside those at hand, to find whole blocks, longer runs or such as may be taken. */
const ROUNDS = 16;
/** How many such rounds may find no further block. */
const PATIENCE = 4;
/** Mean length of the runs that the kernel gives, in pages, below which memory is scattered: it takes 10 ms and more a page, in vain. */
const SCATTERED = 4;
/** Memory that is left to the system when more pages are looked at than are needed. */
const SPARE = Math.min(256 << 20, totalmem() / 8);

/**
 * Takes at least `count` pages, none in `avoid`: whole blocks of memory as far as there are such.
 *
 * @param maxRuns runs of pages that may be taken at most
 * @returns their files, in the order of physical addresses
 * @throws UnsupportedError where there are too few, with how many are missing
 */
export function takePages(files: PageFiles, count: number, avoid: readonly Range[], maxRuns: number): string[] {
  const block = memoryBlockSize() ?? PMD_SIZE;
  const perBlock = block / PMD_SIZE;
  const inBlocks = alignUp(count, perBlock);
  // Whole blocks are worth looking for where there is memory for them.
  const wanted = inBlocks + perBlock <= room() ? inBlocks : count;
  const { able, unable } = lookForPages(files, { count, wanted, block, avoid, maxRuns });
  try {
    const chosen = choosePages([...able.keys()], Math.min(wanted, able.size), { block, maxRuns });
    if (chosen.length < count) {
      const why =
        able.size < count
          ? 'those that are left lie where the next kernel is to be loaded'
          : `in ${maxRuns} pieces, which is what the memory map of the next kernel bears, there are no more`;
      throw missing(count - chosen.length, why);
    }
    const kept = chosen.map((start) => able.get(start)!);
    for (const start of chosen) able.delete(start);
    return kept;
  } finally {
    for (const file of [...unable, ...able.values()]) files.drop(file);
  }
}

interface Search {
  /** Pages that are needed. */
  readonly count: number;
  /** Pages that are wanted, in whole blocks where these are more. */
  readonly wanted: number;
  readonly block: number;
  readonly avoid: readonly Range[];
  readonly maxRuns: number;
}

/** @returns files of pages by their physical addresses, and of those that lie in `avoid` */
function lookForPages(files: PageFiles, { count, wanted, block, avoid, maxRuns }: Search) {
  const able = new Map<number, string>();
  const unable: string[] = [];
  let goal = wanted;
  let [whole, inVain] = [0, 0];
  try {
    // What is not wanted is held meanwhile, so that it is not given again.
    for (let round = 0; round < ROUNDS; round++) {
      const before = whole;
      whole = wholeBlocks([...able.keys()], block) * (block / PMD_SIZE);
      if (round > 0 && whole === before) inVain++;
      const hope = inVain < PATIENCE && runCount([...able.keys()]) * SCATTERED < able.size;
      const search = goal > count || goal % (block / PMD_SIZE) === 0;
      const tooShort = choosePages([...able.keys()], count, { block, maxRuns }).length < count;
      const isWorthMore = tooShort || (search && hope && whole < goal);
      const more = able.size < goal ? goal - able.size : isWorthMore ? Math.min(block / PMD_SIZE, room()) : 0;
      if (more <= 0) break;
      try {
        const taken = withOvercommit(more, () => files.take(more));
        for (const [i, start] of placesOf(files, taken).entries()) {
          const page = { start, end: start + PMD_SIZE };
          if (avoid.some((range) => overlaps(range, page))) unable.push(taken[i]!);
          else able.set(start, taken[i]!);
        }
      } catch (error) {
        if (!(error instanceof UnsupportedError) || (goal === count && able.size < count)) throw error;
        if (able.size >= count) break;
        goal = count;
      }
    }
    return { able, unable };
  } catch (error) {
    for (const file of [...unable, ...able.values()]) files.drop(file);
    throw error;
  }
}

/** Pages that may be looked at. */
function room(): number {
  return Math.floor((freemem() - SPARE) / PMD_SIZE);
}

function placesOf(files: PageFiles, taken: readonly string[]): number[] {
  const address = files.map(taken, false);
  try {
    return physicalAddresses(address, taken.length);
  } catch (error) {
    for (const file of taken) files.drop(file);
    throw error;
  } finally {
    unmap(address, taken.length);
  }
}

/** Calls what takes pages, with as many more allowed as are missing in the pool. */
function withOvercommit<T>(count: number, call: () => T): T {
  return withSurplusHugePages(count, (lacking) => {
    const short = lacking - Math.floor(freemem() / PMD_SIZE);
    // The kernel would take all there is before it says no.
    if (short > 0) throw missing(short, 'there is not so much free memory');
    try {
      return call();
    } catch (error) {
      if (!(error instanceof SyscallError) || error.errnoName !== 'ENOMEM') throw error;
      throw missing(lacking, 'the kernel finds no more memory in pieces of 2 MiB');
    }
  });
}

function missing(count: number, why: string): UnsupportedError {
  return new UnsupportedError({
    what: 'preserved memory in huge pages',
    why: `${count} huge pages of 2 MiB are missing: ${why}`,
    remedy: 'reserve them early after boot (sysctl vm.nr_hugepages), or free memory',
  });
}
