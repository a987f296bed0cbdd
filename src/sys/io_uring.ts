/** Rings for input and output: io_uring_setup(2). */
import { address, int, syscall } from './syscall.ts';

/** @param params address of an io_uring_params @returns a descriptor @throws SyscallError EFAULT, ENOSYS, EPERM (kernel.io_uring_disabled) */
export const io_uring_setup = syscall('io_uring_setup', 425, { entries: int, params: address });
