/** How long an update will take, by what this machine does in a moment and what the last update took. */
import type { UpdateRecord } from './record.ts';
import { timelineOf } from './timeline.ts';

export interface Estimate {
  /** For which trees stand still while they are written and restored, in ms. */
  readonly ownShare: number;
  /** What the jump and the start of the next system took the last time, in ms; undefined where there was none. */
  readonly jump: number | undefined;
}

const SAMPLE = 64 << 20;
/** Each page is read and written once when it is saved and once when it is restored, and both look up where it is. */
const PASSES = 4;
/** Of a small tree: what does not depend on its size, in ms. */
const EACH = 150;

/** @param memory of all trees, in bytes */
export function estimate(trees: number, memory: number, last: UpdateRecord | undefined): Estimate {
  const [from, to] = [Buffer.alloc(SAMPLE, 1), Buffer.alloc(SAMPLE, 2)];
  const started = performance.now();
  from.copy(to);
  const speed = SAMPLE / (performance.now() - started);
  const timeline = last && timelineOf(last);
  const { downtime, ownShare } = timeline ?? { downtime: undefined, ownShare: undefined };
  return {
    ownShare: trees * EACH + (PASSES * memory) / speed,
    jump: downtime === undefined || ownShare === undefined ? undefined : downtime - ownShare,
  };
}
