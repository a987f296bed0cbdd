/** Which kernel objects are one and the same: kcmp(2). */
import { kcmp } from '../sys/process.ts';

/** An object as kcmp(2) names it. `index` is a descriptor for KCMP_FILE and 0 for the others. */
export interface Reference {
  readonly pid: number;
  readonly index: number;
}

/** Objects of one type that have been seen, in the kernel's order of them. */
export class ObjectSet<T> {
  readonly #type: number;
  readonly #known: { readonly at: Reference; readonly value: T }[] = [];

  /** @param type KCMP_* */
  constructor(type: number) {
    this.#type = type;
  }

  /** What was made for an object when it was seen first. */
  find(at: Reference, make: () => T): T {
    let [low, high] = [0, this.#known.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = this.#known[middle]!;
      const args = { pid1: at.pid, pid2: other.at.pid, type: this.#type, idx1: at.index, idx2: other.at.index };
      const order = kcmp.attempt(args);
      if (order < 0) throw kcmp.error(args, order);
      if (order === 0) return other.value;
      if (order === 1) high = middle;
      else low = middle + 1;
    }
    const value = make();
    this.#known.splice(low, 0, { at, value });
    return value;
  }
}
