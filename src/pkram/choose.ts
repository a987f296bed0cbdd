/**
 * Which of the pages that the kernel gave are kept: whole blocks of memory first, for only these can the next kernel take back as
 * ordinary memory, then the longest runs, for each run is an entry of its memory map.
 *
 *     blocks of memory   |. . . .|# # # #|. # # .|# . # .|        # given
 *     kept, 7 pages       . . . . # # # # . # # . # . . .
 */
import { PMD_SIZE } from '../mem/address.ts';

export interface ChoiceOptions {
  /** Size of a block of memory, in bytes. */
  readonly block: number;
  /** Runs that may be kept at most. */
  readonly maxRuns: number;
}

/**
 * @param given physical addresses of huge pages, in any order
 * @returns the addresses of `wanted` of them, sorted; of fewer where that would be more runs than allowed
 */
export function choosePages(given: readonly number[], wanted: number, { block, maxRuns }: ChoiceOptions): number[] {
  const sorted = given.toSorted((a, b) => a - b);
  const perBlock = block / PMD_SIZE;
  const chosen: number[] = [];
  const rest: number[] = [];
  for (let i = 0; i < sorted.length; ) {
    const whole = sorted[i]! % block === 0 && sorted[i + perBlock - 1] === sorted[i]! + block - PMD_SIZE;
    const count = whole ? perBlock : 1;
    const into = whole && chosen.length + perBlock <= wanted ? chosen : rest;
    into.push(...sorted.slice(i, i + count));
    i += count;
  }
  const longestFirst = runsOf(rest).sort((a, b) => b.length - a.length);
  for (const run of longestFirst.slice(0, Math.max(0, maxRuns - runsOf(chosen).length))) {
    chosen.push(...run.slice(0, wanted - chosen.length));
  }
  return chosen.sort((a, b) => a - b);
}

/** How many whole blocks there are among pages. */
export function wholeBlocks(given: readonly number[], block: number): number {
  const all = new Set(given);
  return given.filter((start) => {
    if (start % block !== 0) return false;
    for (let at = start; at < start + block; at += PMD_SIZE) if (!all.has(at)) return false;
    return true;
  }).length;
}

/** How many runs pages make, in any order. */
export function runCount(given: readonly number[]): number {
  return runsOf(given.toSorted((a, b) => a - b)).length;
}

/** Pages that follow each other, of sorted ones. */
function runsOf(sorted: readonly number[]): number[][] {
  const runs: number[][] = [];
  for (const page of sorted) {
    const last = runs.at(-1);
    if (last?.at(-1) === page - PMD_SIZE) last.push(page);
    else runs.push([page]);
  }
  return runs;
}
