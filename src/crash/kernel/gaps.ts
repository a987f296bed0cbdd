/** What could not be said, beside what could: every list here is as long as the dump allows, with the reasons where it ends. */
import { FormatError, HoleError } from '../../errors.ts';

export class Gaps {
  readonly #texts = new Set<string>();

  /** What is missing, for people. */
  get list(): string[] {
    return [...this.#texts];
  }

  note(what: string, error: unknown): void {
    if (!isGap(error)) throw error;
    this.#texts.add(`${what}: ${error.message}`);
  }

  /** What `get` gives, or undefined with a note where the dump does not hold what it needs. */
  try<T>(what: string, get: () => T): T | undefined {
    try {
      return get();
    } catch (error) {
      this.note(what, error);
      return undefined;
    }
  }

  /** What `items` gives up to where it cannot go on. */
  *each<T>(what: string, items: Iterable<T>): Generator<T> {
    try {
      yield* items;
    } catch (error) {
      this.note(what, error);
    }
  }
}

/** Whether an error is the dump's: memory that is missing, or that is not what it should be. */
export function isGap(error: unknown): error is HoleError | FormatError {
  return error instanceof HoleError || error instanceof FormatError;
}
