/** Time limits, each with a message of what was waited for. */
import { TideoverError } from '../src/errors.ts';

/** Something did not happen in the time that it had. */
export class TimeLimitError extends TideoverError {
  readonly code = 'time-limit';
}

/**
 * The promise's result, if it comes in time.
 * @param what for the message: "waited 20 s for ..."
 * @param context added to the message when the time is up
 */
export async function within<T>(
  milliseconds: number,
  what: string,
  promise: Promise<T>,
  context: () => string = () => '',
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new TimeLimitError(`waited ${milliseconds / 1000} s for ${what}${context()}`));
    }, milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
