/** A process that is being made, of which there is not more than the memory that its calls are in. */
import type { ImageTask } from '../image/tree.ts';
import type { Remote } from './remote.ts';
import type { ProcessLayout, Scratch, SlotLayout } from './scratch.ts';

/** Of a process that is being made: a thousand calls at a time, and what they refer to. It has no way back. */
export const LEADER: SlotLayout = { frame: 0, records: 16 * 4096, data: 64 * 4096 };

/** Where the scratch memory of all processes is that are being made. */
export interface Hole {
  readonly address: number;
  readonly size: number;
  readonly layout: ProcessLayout;
}

/** A process that is being made. */
export interface Made {
  readonly task: ImageTask;
  /** Its id here. */
  readonly pid: number;
  /** Whether its id in the image is one of another PID namespace. */
  readonly inner: boolean;
  readonly scratch: Scratch;
  readonly leader: Remote;
  /** Where that of the leader begins in the scratch memory, in bytes; those of its threads follow. */
  readonly slot: number;
  readonly layout: ProcessLayout;
}
