/** Runs of pages as bounds: a process can have hundreds of thousands, and stands still while they are told apart. */

/** Runs of pages: start and end of each, in order. */
export interface Runs {
  readonly bounds: Float64Array;
  /** In bytes. */
  readonly size: number;
}

export const NO_RUNS: Runs = { bounds: new Float64Array(0), size: 0 };

/** So many bytes, of which it is not known yet where they are. */
export function unknownRuns(size: number): Runs {
  return { bounds: NO_RUNS.bounds, size };
}

export function isUnknown({ bounds, size }: Runs): boolean {
  return bounds.length === 0 && size > 0;
}

/** What is in either of two that have nothing in common. */
export function joined(a: Runs, b: Runs): Runs {
  const all = new RunList();
  const [x, y] = [a.bounds, b.bounds];
  for (let i = 0, j = 0; i < x.length || j < y.length; ) {
    if (j >= y.length || x[i]! < y[j]!) {
      all.add(x[i]!, x[i + 1]!);
      i += 2;
    } else {
      all.add(y[j]!, y[j + 1]!);
      j += 2;
    }
  }
  return all.runs();
}

/** Runs under construction, ascending; those that touch are joined. */
export class RunList {
  readonly #bounds: number[] = [];
  #size = 0;

  add(start: number, end: number): void {
    const bounds = this.#bounds;
    this.#size += end - start;
    if (bounds.length > 0 && bounds[bounds.length - 1] === start) bounds[bounds.length - 1] = end;
    else bounds.push(start, end);
  }

  runs(): Runs {
    return { bounds: Float64Array.from(this.#bounds), size: this.#size };
  }
}

/** What is in both. */
export function common(a: Runs, b: Runs): Runs {
  const both = new RunList();
  const [x, y] = [a.bounds, b.bounds];
  for (let i = 0, j = 0; i < x.length && j < y.length; ) {
    const start = Math.max(x[i]!, y[j]!);
    const end = Math.min(x[i + 1]!, y[j + 1]!);
    if (start < end) both.add(start, end);
    if (x[i + 1]! < y[j + 1]!) i += 2;
    else j += 2;
  }
  return both.runs();
}

/** What is in the first and not in the second. */
export function without(a: Runs, b: Runs): Runs {
  const left = new RunList();
  const [x, y] = [a.bounds, b.bounds];
  let j = 0;
  for (let i = 0; i < x.length; i += 2) {
    let at = x[i]!;
    const end = x[i + 1]!;
    while (j < y.length && y[j + 1]! <= at) j += 2;
    for (let k = j; k < y.length && y[k]! < end; k += 2) {
      if (y[k]! > at) left.add(at, y[k]!);
      at = Math.max(at, y[k + 1]!);
    }
    if (at < end) left.add(at, end);
  }
  return left.runs();
}
