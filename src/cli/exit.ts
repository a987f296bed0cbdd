/** Exit codes, and the one place that says which error gives which. */
import {
  FormatError,
  HoleError,
  PartialError,
  SyscallError,
  TideoverError,
  UnsupportedError,
  VerifyError,
} from '../errors.ts';

export type ExitCode = 0 | 1 | 2 | 3 | 4 | 5 | 130;

export const exitCodes: Readonly<Record<ExitCode, string>> = {
  0: 'Done.',
  1: 'Failed, and nothing was changed: an input or output error, no room, a bug.',
  2: 'Wrong usage, a Node that is too old, or kernel and dump do not match.',
  3: 'A privilege, a setting or a kernel feature is missing, or something cannot be saved; it is named.',
  4: 'Failed after something was changed; the state is named.',
  5: 'Damaged data: an image or dump is not what its format or checksum says.',
  130: 'Interrupted by SIGINT or SIGTERM.',
};

/** The command line asks for what does not exist or does not fit together. */
export class UsageError extends TideoverError {
  readonly code = 'usage';
}

/** How a failure is reported. */
export interface Failure {
  readonly exit: ExitCode;
  readonly message: string;
  /** With --json: `code` (stable), `exit`, `message` and what else the error knows. */
  readonly json: Readonly<Record<string, unknown>>;
}

/** @param error whatever was thrown */
export function failure(error: unknown): Failure {
  if (!(error instanceof Error)) return bug(new Error(String(error)));
  if (error.name === 'AbortError') return report(130, 'interrupted', { code: 'interrupted' });
  if (error instanceof TideoverError) return report(exitOf(error), error.message, { ...error });
  if (isSystemError(error)) {
    return report(missingRight.has(error.code) ? 3 : 1, error.message, {
      ...error,
      code: 'system',
      errnoName: error.code,
    });
  }
  return bug(error);
}

function exitOf(error: TideoverError): ExitCode {
  if (error instanceof UsageError) return 2;
  if (error instanceof UnsupportedError) return 3;
  if (error instanceof SyscallError) return missingRight.has(error.errnoName) ? 3 : 1;
  if (error instanceof PartialError) return 4;
  if (error instanceof FormatError || error instanceof VerifyError || error instanceof HoleError) return 5;
  // No room, for the system lacks what there would be room in.
  if (error.cause instanceof UnsupportedError) return 3;
  return 1;
}

/** What the kernel answers when a right or a feature is missing, not when something went wrong. */
const missingRight = new Set(['EPERM', 'EACCES', 'ENOSYS', 'EOPNOTSUPP']);

function report(exit: ExitCode, message: string, details: Record<string, unknown>): Failure {
  return { exit, message, json: { ...details, exit, message } };
}

function bug(error: Error): Failure {
  const message = `this is a bug in tideover: ${error.message} (run again with -vv for the place)`;
  return report(1, message, { code: 'bug' });
}

/** An error of Node's own file and process functions: the environment's doing, with the errno's name as its code. */
function isSystemError(error: Error): error is Error & { code: string } {
  return 'syscall' in error && 'code' in error && typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code);
}
