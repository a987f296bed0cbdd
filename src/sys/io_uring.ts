/** Rings for input and output: io_uring_setup(2), io_uring_enter(2). */
import { hex, input, int, output, syscall } from './syscall.ts';

/**
 * @param params an io_uring_params, which is filled in, or its address
 * @returns a descriptor
 * @throws SyscallError EPERM (kernel.io_uring_disabled), ENOSYS (not in this kernel), EINVAL, ENOMEM, EFAULT
 */
export const io_uring_setup = syscall('io_uring_setup', 425, { entries: int, params: output });

/** @returns how many requests were taken */
export const io_uring_enter = syscall('io_uring_enter', 426, {
  fd: int,
  to_submit: int,
  min_complete: int,
  flags: hex,
  argp: output,
  argsz: int,
});
/** @throws SyscallError EBUSY (there is one), EEXIST (only the thread that made the ring may) */
export const io_uring_register = syscall('io_uring_register', 427, { fd: int, opcode: int, arg: input, nr_args: int });
