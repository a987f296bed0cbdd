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
  try {
    return { fd, ...agree(fd, features) };
  } catch (error) {
    close({ fd });
    throw error;
  }
}

/** Agrees on the API with one that somebody else has opened; see openUserfaultfd(). */
export function agree(fd: number, features: number): { features: number; ioctls: bigint } {
  const arg = abi.uffdio_api.write({ api: abi.UFFD_API, features });
  uffdio({ fd, request: abi.UFFDIO_API, arg });
  const agreed = abi.uffdio_api.read(arg);
  return { features: agreed.features, ioctls: agreed.ioctls };
}

type Range = { readonly start: number; readonly end: number };

/** @throws SyscallError EBUSY (another one watches it), EINVAL (not that kind of memory), ESRCH (its process is gone) */
export function register(fd: number, { start, end }: Range, mode: number): void {
  const arg = abi.uffdio_register.write({ range: { start, len: end - start }, mode });
  uffdio({ fd, request: abi.UFFDIO_REGISTER, arg });
}

/** Lifts the write protection of memory that is registered for it. */
export function unprotect(fd: number, { start, end }: Range): void {
  const arg = abi.uffdio_writeprotect.write({ range: { start, len: end - start }, mode: 0 });
  uffdio({ fd, request: abi.UFFDIO_WRITEPROTECT, arg });
}
