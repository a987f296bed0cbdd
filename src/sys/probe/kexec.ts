/** Whether another kernel can be loaded. The calls are made so that they fail before they could load or unload. */

import { errnoName } from '../../abi/errno.ts';
import { KEXEC_ARCH_DEFAULT, KEXEC_FILE_NO_INITRAMFS, KEXEC_PRESERVE_CONTEXT } from '../../abi/kexec.ts';
import { kexec_file_load, kexec_load } from '../kexec.ts';
import { readMountinfo } from '../mountinfo.ts';
import { type Answer, no, partly, unknown, yes } from './answer.ts';
import { allows, read } from './files.ts';

const RIGHTS = 'run as root with CAP_SYS_BOOT in the initial user namespace; see "kexec allowed" and "No lockdown"';

/** One segment whose description lies at NULL: EFAULT from a kernel that would have taken it. */
export function kexecLoad(): Answer {
  const limit = loadLimit();
  if (limit) return limit;
  const answered = tryLoad(KEXEC_ARCH_DEFAULT);
  const tried = `kexec_load of a segment at NULL: ${answered}`;
  if (answered === 'EFAULT') return yes(tried);
  if (answered === 'ENOSYS') return no(tried, 'a kernel with CONFIG_KEXEC=y');
  if (answered === 'EPERM') return no(tried, RIGHTS);
  return unknown(tried, 'see what filters system calls here');
}

/** The flag is refused with EINVAL by a kernel that cannot come back. */
export function kexecJump(): Answer {
  const limit = loadLimit();
  if (limit) return limit;
  const answered = tryLoad(KEXEC_PRESERVE_CONTEXT);
  const tried = `kexec_load with KEXEC_PRESERVE_CONTEXT: ${answered}`;
  if (answered === 'EFAULT') return yes(tried);
  if (answered === 'EINVAL') return no(tried, 'a kernel with CONFIG_KEXEC_JUMP=y');
  if (answered === 'ENOSYS') return no(tried, 'a kernel with CONFIG_KEXEC=y and CONFIG_KEXEC_JUMP=y');
  if (answered === 'EPERM') return unknown(tried, RIGHTS);
  return unknown(tried, 'see what filters system calls here');
}

/** Descriptor -1 as the kernel image: EBADF from a kernel that would have read it. */
export function kexecFileLoad(): Answer {
  const limit = loadLimit();
  if (limit) return limit;
  const call = { kernel_fd: -1, initrd_fd: -1, cmdline_len: 1, cmdline: '', flags: KEXEC_FILE_NO_INITRAMFS };
  const answered = name(kexec_file_load.attempt(call));
  const tried = `kexec_file_load of descriptor -1: ${answered}`;
  if (answered === 'EBADF') return yes(tried);
  if (answered === 'ENOSYS') return no(tried, 'a kernel with CONFIG_KEXEC_FILE=y');
  if (answered === 'EPERM') return no(tried, RIGHTS);
  return unknown(tried, 'see what filters system calls here');
}

/** The settings that take kexec away until the next boot. */
export function kexecSetting(): Answer {
  const { text, error } = read('/proc/sys/kernel/kexec_load_disabled');
  if (text === undefined)
    return no(
      `this kernel has no setting kernel.kexec_load_disabled (${error})`,
      'a kernel with CONFIG_KEXEC=y or CONFIG_KEXEC_FILE=y',
    );
  if (text !== '0') return no(`kernel.kexec_load_disabled is ${text}`, 'boot again without the sysctl that set it');
  const [reboot, panic] = [limitOf('reboot'), limitOf('panic')];
  const reason = `kernel.kexec_load_disabled is 0; loads left: ${shown(reboot)} for reboot, ${shown(panic)} for panic`;
  if (reboot === 0 && panic === 0) return no(reason, 'boot again without the sysctls that set the limits');
  return reboot === 0 || panic === 0 ? partly(reason, 'boot again without the sysctl that set the limit') : yes(reason);
}

/** The lockdown LSM, by the file that securityfs has for it. */
export function lockdown(): Answer {
  const path = '/sys/kernel/security/lockdown';
  const { text, error } = read(path);
  if (text !== undefined) {
    const level = /\[(\w+)\]/.exec(text)?.[1];
    if (level === 'none') return yes(`${path}: none`);
    const remedy = 'turn off secure boot or boot without lockdown=; a signed kernel loads by kexec_file_load only';
    return level === 'integrity' ? partly(`${path}: integrity`, remedy) : no(`${path}: ${level ?? text}`, remedy);
  }
  const lsms = read('/sys/kernel/security/lsm').text;
  if (lsms !== undefined && !lsms.split(',').includes('lockdown')) return yes(`the kernel's LSMs are ${lsms}`);
  const mounted = readMountinfo('self').some(({ type }) => type === 'securityfs');
  if (mounted && error === 'ENOENT') return yes(`${path} does not exist: the kernel has no lockdown`);
  return unknown(`${path}: ${error}`, 'mount -t securityfs securityfs /sys/kernel/security');
}

function tryLoad(flags: number): string {
  return name(kexec_load.attempt({ entry: 0, nr_segments: 1, segments: 0, flags }));
}

function name(result: number): string {
  return result < 0 ? errnoName(-result) : String(result);
}

/**
 * A kernel whose loads are limited counts each permitted call, also one that fails (kernel/kexec_core.c,
 * kexec_load_permitted), so it is not called.
 */
function loadLimit(): Answer | undefined {
  const left = limitOf('reboot');
  if (left === undefined || left < 0) return undefined;
  if (left === 0) return no('kernel.kexec_load_limit_reboot is 0', 'boot again without the sysctl that set it');
  return unknown(`kernel.kexec_load_limit_reboot is ${left}: not tried, as a try uses up one`, 'load and see');
}

/** Loads left, -1 for no limit, undefined where the kernel has no such setting. */
function limitOf(kind: 'reboot' | 'panic'): number | undefined {
  const path = `/proc/sys/kernel/kexec_load_limit_${kind}`;
  return allows(path, 'read') ? Number(read(path).text) : undefined;
}

function shown(limit: number | undefined): string {
  return limit === undefined || limit < 0 ? 'any number' : String(limit);
}
