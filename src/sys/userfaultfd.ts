/** Page faults of a range of memory, served by a program: userfaultfd(2), ioctl_userfaultfd(2). */
import * as fcntl from '../abi/fcntl.ts';
import * as abi from '../abi/userfaultfd.ts';
import { close } from './files.ts';
import { flags, int, oneOf, output, syscall } from './syscall.ts';

/**
 * @returns a descriptor
 * @throws SyscallError EPERM (without UFFD_USER_MODE_ONLY: vm.unprivileged_userfaultfd is 0 and CAP_SYS_PTRACE
 *   missing), ENOSYS (not in this kernel)
 */
export const userfaultfd = syscall('userfaultfd', 323, {
  flags: flags({ ...fcntl, ...abi }, /^(O_(CLOEXEC|NONBLOCK)|UFFD_USER_MODE_ONLY)$/),
});

/** ioctl(2) as a userfaultfd takes it. `arg` is one of the structs uffdio_*, and is written back on failure too. */
export const uffdio = syscall('ioctl', 16, {
  fd: int,
  request: oneOf(abi, /^UFFDIO_[A-Z]+$/),
  arg: output,
});

/**
 * Opens a userfaultfd and agrees on the API.
 *
 * @param features UFFD_FEATURE_* that must be there
 * @returns the descriptor; all features and ioctls of this kernel, as masks
 * @throws SyscallError as userfaultfd(2); EINVAL (a feature is missing)
 */
export function openUserfaultfd(flags: number, features = 0): { fd: number; features: number; ioctls: bigint } {
  const fd = userfaultfd({ flags });
  const arg = abi.uffdio_api.write({ api: abi.UFFD_API, features });
  try {
    uffdio({ fd, request: abi.UFFDIO_API, arg });
  } catch (error) {
    close({ fd });
    throw error;
  }
  const agreed = abi.uffdio_api.read(arg);
  return { fd, features: agreed.features, ioctls: agreed.ioctls };
}
