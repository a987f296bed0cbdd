/** What a bench is and how it measures: bench/NAME.ts exports `name`, `summary` and `run`. */

export interface Bench {
  readonly name: string;
  readonly summary: string;
  /** @param options `small`: as little work as shows that the bench works */
  run(options: { small: boolean }): Promise<BenchResult>;
}

/** Ours against a reference, both measured in turns on the same machine: the ratio is what can be compared. */
export interface Comparison {
  readonly what: string;
  readonly reference: string;
  readonly unit: string;
  /** Medians. */
  readonly ours: number;
  readonly theirs: number;
  /** ours / theirs */
  readonly ratio: number;
  /** The ratio that is wanted, at most. */
  readonly goal?: number;
}

export interface BenchResult {
  readonly comparisons: readonly Comparison[];
  readonly notes?: readonly string[];
}

/**
 * Runs each case once per round, one after the other, so that what else the machine does falls on all of them.
 *
 * @returns for each case its times in ms, in the order of the rounds
 */
export async function inTurns<K extends string>(
  cases: Readonly<Record<K, () => unknown>>,
  rounds: number,
): Promise<Record<K, number[]>> {
  const names = Object.keys(cases) as K[];
  const times = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<K, number[]>;
  for (let round = 0; round < rounds; round++) {
    for (const name of names) {
      const start = performance.now();
      await cases[name]();
      times[name].push(performance.now() - start);
    }
  }
  return times;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
