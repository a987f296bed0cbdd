/** Loading the next kernel: kexec_load(2), kexec_file_load(2). Starting it is reboot(2). */
import * as abi from '../abi/kexec.ts';
import { address, cstring, flags, input, int, syscall } from './syscall.ts';

/**
 * Loads segments; none at all unload what is loaded.
 *
 * @param entry physical address to jump to
 * @param segments elements of kexec_segment, packed, at most KEXEC_SEGMENT_MAX; or an address
 * @param flags KEXEC_ON_CRASH, KEXEC_PRESERVE_CONTEXT, ... or-ed with KEXEC_ARCH_X86_64
 * @throws SyscallError EPERM (no CAP_SYS_BOOT, kexec_load_disabled, lockdown), EINVAL (a flag that is not built in, segments that
 *   overlap or are not whole pages), EADDRNOTAVAIL (segment outside the memory meant for it), EBUSY, ENOMEM, ENOSYS
 */
export const kexec_load = syscall('kexec_load', 246, {
  entry: address,
  nr_segments: int,
  segments: input,
  flags: flags(abi, /^KEXEC_(ON_CRASH|PRESERVE|UPDATE|CRASH_HOT|ARCH_X86_64)/),
});

/**
 * Lets the kernel load an image, checking its signature where that is demanded.
 *
 * @param initrd_fd -1 with KEXEC_FILE_NO_INITRAMFS
 * @param cmdline_len bytes of the command line with its NUL
 * @throws SyscallError EPERM (as kexec_load), ENOEXEC (unknown format), EKEYREJECTED, ENOKEY (signature), EINVAL, ENOMEM,
 *   EADDRNOTAVAIL (no crashkernel memory), ENOSYS
 */
export const kexec_file_load = syscall('kexec_file_load', 320, {
  kernel_fd: int,
  initrd_fd: int,
  cmdline_len: int,
  cmdline: cstring,
  flags: flags(abi, /^KEXEC_FILE_/),
});
