/** What may happen to processes that run while they are looked at. */
import { Errno } from '../abi/errno.ts';
import { SyscallError } from '../errors.ts';

/** Whether an error only says that what was looked at is gone. */
export function isGone(error: unknown): boolean {
  const codes = [Errno.ENOENT, Errno.ESRCH, Errno.EBADF] as const;
  if (error instanceof SyscallError) return codes.includes(error.errno as 2);
  // Of node:fs.
  return error instanceof Error && ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '');
}
