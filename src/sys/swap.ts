/** Swap areas: swapon(2). */
import { cstring, int, syscall } from './syscall.ts';

/**
 * Swaps to an area.
 *
 * @throws SyscallError EPERM (no CAP_SYS_ADMIN), EINVAL (no header of a swap area), EBUSY (in use already), ENOENT
 */
export const swapon = syscall('swapon', 167, { path: cstring, swapflags: int });
