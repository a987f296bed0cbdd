/** Steps that are done one after the other, and undone in the opposite order when one of them fails. */
import { PartialError } from '../errors.ts';

export interface Step {
  readonly name: string;
  run(): void | Promise<void>;
  /** Makes things as they were before, also when the step was done in part. @returns what was undone, for people */
  undo?(): string | undefined | Promise<string | undefined>;
}

/** What failed, and what was undone. */
export class UndoneError extends Error {
  readonly step: string;
  readonly undone: readonly string[];
  /** What could not be undone. */
  readonly left: readonly string[];

  constructor(step: string, cause: unknown, undone: readonly string[], left: readonly string[]) {
    super((cause as Error).message, { cause });
    [this.step, this.undone, this.left] = [step, undone, left];
  }

  /** As a command fails by it. */
  get failure(): unknown {
    if (this.left.length === 0) return this.cause;
    return new PartialError(`update, ${this.step}: ${this.message}`, this.left.join('; '), { cause: this.cause });
  }
}

/** @param begins called as each step begins @throws UndoneError */
export async function perform(steps: readonly Step[], begins: (step: Step) => void): Promise<void> {
  const begun: Step[] = [];
  for (const step of steps) {
    begun.unshift(step);
    try {
      begins(step);
      await step.run();
    } catch (error) {
      throw await undo(step, error, begun);
    }
  }
}

async function undo(failed: Step, error: unknown, begun: readonly Step[]): Promise<UndoneError> {
  const undone: string[] = [];
  const left: string[] = [];
  for (const step of begun) {
    try {
      const what = await step.undo?.();
      if (what !== undefined) undone.push(what);
    } catch (more) {
      left.push(`${step.name} could not be undone: ${(more as Error).message}`);
    }
  }
  return new UndoneError(failed.name, error, undone, left);
}
