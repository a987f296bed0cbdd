/** Rings for input and output: io_uring_setup(2). */
import { address, int, syscall } from './syscall.ts';

/**
 * @param params address of an io_uring_params
 * @returns a descriptor
 * @throws SyscallError EPERM (kernel.io_uring_disabled), ENOSYS (not in this kernel), EINVAL, ENOMEM, EFAULT
 */
export const io_uring_setup = syscall('io_uring_setup', 425, { entries: int, params: address });
