/** Ending or replacing the running kernel: reboot(2). */
import * as abi from '../abi/reboot.ts';
import { hex, input, oneOf, syscall } from './syscall.ts';

/**
 * Does at once what `cmd` says, without telling a program or syncing a disk.
 *
 * LINUX_REBOOT_CMD_KEXEC comes back only from a kernel that was loaded with KEXEC_PRESERVE_CONTEXT.
 *
 * @param magic LINUX_REBOOT_MAGIC1 @param magic2 LINUX_REBOOT_MAGIC2
 * @throws SyscallError EPERM (no CAP_SYS_BOOT), EINVAL (no kernel loaded, magic), EBUSY (another kexec call is under way)
 */
export const reboot = syscall('reboot', 169, {
  magic: hex,
  magic2: hex,
  cmd: oneOf(abi, /^LINUX_REBOOT_CMD_/),
  arg: input,
});
