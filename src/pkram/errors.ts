/** Errors of preserved memory that other parts do not have. Refusals are UnsupportedError, damage is FormatError or VerifyError. */
import { TideoverError } from '../errors.ts';

/** A call that is not allowed in this state of a save or load: the program that makes it is wrong. */
export class OrderError extends TideoverError {
  readonly code = 'order';
}

/** There is no room and the medium does not grow, or the limit is reached. What was saved before is as it was. */
export class NoRoomError extends TideoverError {
  readonly code = 'no-room';
}

/** No node of that name is on the list. */
export class NoSuchNodeError extends TideoverError {
  readonly code = 'no-node';
  readonly node: string;

  constructor(node: string, medium: string) {
    super(`${medium}: there is no node ${JSON.stringify(node)}`);
    this.node = node;
  }
}
