/** A process that is being made, of which there is not more than the memory that its calls are in. */
import type { ImageTask } from '../image/tree.ts';
import type { Remote, Scratch, SlotLayout } from './remote.ts';

/** Of a process that is being made: a thousand calls at a time, and what they refer to. It has no way back. */
export const makeLayout: SlotLayout = { frame: 0, records: 16 * 4096, data: 64 * 4096 };

/** A process that is being made. */
export interface Made {
  readonly task: ImageTask;
  /** Its id here. */
  readonly pid: number;
  /** Whether its id in the image is one of another PID namespace. */
  readonly inner: boolean;
  readonly scratch: Scratch;
  readonly leader: Remote;
  /** Of the leader in the scratch memory; those of its threads follow. */
  readonly slot: number;
}
