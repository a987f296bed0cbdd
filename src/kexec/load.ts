/** Loading a plan into the kernel, and starting, dropping and asking about what is loaded. */
import { existsSync } from 'node:fs';
import { CAP_SYS_BOOT } from '../abi/capability.ts';
import { KEXEC_ARCH_X86_64, KEXEC_ON_CRASH, KEXEC_SEGMENT_MAX, kexec_segment } from '../abi/kexec.ts';
import { LINUX_REBOOT_CMD_KEXEC, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2 } from '../abi/reboot.ts';
import { UnsupportedError } from '../errors.ts';
import { capabilities } from '../sys/capability.ts';
import { kexec_load } from '../sys/kexec.ts';
import type { Answer } from '../sys/probe/answer.ts';
import { kexecLoad, kexecSetting, lockdown } from '../sys/probe/kexec.ts';
import { readProcText } from '../sys/proc.ts';
import { reboot } from '../sys/reboot.ts';
import { addressOf } from '../sys/syscall.ts';
import type { Plan } from './plan.ts';

/**
 * Refuses before anything is touched, with the reason and the remedy: no privilege, or kexec switched off.
 *
 * @throws UnsupportedError
 */
export function requireKexec(): void {
  if ((capabilities().effective & (1n << BigInt(CAP_SYS_BOOT))) === 0n) {
    throw new UnsupportedError({
      what: 'loading a kernel',
      why: 'this process does not have CAP_SYS_BOOT',
      remedy: 'run as root, outside of a container',
    });
  }
  refuse('loading a kernel', kexecSetting());
}

/**
 * The same for `kexec_load`: lockdown, or a kernel without it.
 *
 * @throws UnsupportedError
 */
export function requireKexecLoad(): void {
  requireKexec();
  const what = 'loading a kernel with a memory map of its own (kexec_load)';
  const locked = lockdown();
  // "partly" is lockdown=integrity, which leaves signed kernels to kexec_file_load.
  refuse(what, locked.answer === 'partly' ? { ...locked, answer: 'no' } : locked);
  refuse(what, kexecLoad());
}

function refuse(what: string, { answer, reason, remedy = '' }: Answer): void {
  if (answer === 'no') throw new UnsupportedError({ what, why: reason, remedy });
}

/**
 * Loads a plan in place of what was loaded before.
 *
 * @param flags KEXEC_ON_CRASH, KEXEC_PRESERVE_CONTEXT
 * @throws SyscallError as kexec_load(2); what was loaded before is then still loaded
 */
export function load({ segments, entry }: Pick<Plan, 'segments' | 'entry'>, flags = 0): void {
  if (segments.length > KEXEC_SEGMENT_MAX) throw new RangeError(`${segments.length} segments`);
  const records = new Uint8Array(segments.length * kexec_segment.size);
  // Read from where they are: a machine that is full has no room for them twice.
  for (const [i, { bytes, start, size }] of segments.entries()) {
    const buf = bytes.length === 0 ? 0 : addressOf(bytes);
    kexec_segment.write({ buf, bufsz: bytes.length, mem: start, memsz: size }, records, i * kexec_segment.size);
  }
  kexec_load({ entry, nr_segments: segments.length, segments: records, flags: KEXEC_ARCH_X86_64 | flags });
}

/** Drops what is loaded, for a reboot or for a crash. */
export function unload(kind: 'reboot' | 'crash' = 'reboot'): void {
  const flags = KEXEC_ARCH_X86_64 | (kind === 'crash' ? KEXEC_ON_CRASH : 0);
  kexec_load({ entry: 0, nr_segments: 0, segments: 0, flags });
}

export interface KexecStatus {
  /** A kernel is loaded for the next kexec. */
  readonly loaded: boolean;
  /** A kernel is loaded for a crash. */
  readonly crashLoaded: boolean;
  /** Bytes reserved by crashkernel=. */
  readonly crashSize: number;
}

/** @throws UnsupportedError where the kernel has no kexec */
export function status(): KexecStatus {
  return {
    loaded: attribute('loaded') === 1,
    crashLoaded: attribute('crash_loaded') === 1,
    crashSize: attribute('crash_size') ?? 0,
  };
}

/** The attributes move from /sys/kernel/kexec_NAME to /sys/kernel/kexec/NAME (Linux 6.19); both are looked at. */
function attribute(name: string): number | undefined {
  const path = [`/sys/kernel/kexec/${name}`, `/sys/kernel/kexec_${name}`].find((each) => existsSync(each));
  if (path !== undefined) return Number(readProcText(path));
  if (name !== 'loaded') return undefined;
  throw new UnsupportedError({
    what: 'kexec',
    why: '/sys/kernel/kexec_loaded is missing: the kernel is built without it',
    remedy: 'use a kernel with CONFIG_KEXEC=y or CONFIG_KEXEC_FILE=y',
  });
}

/**
 * Starts what is loaded, at once: processes are not told and disks are not synced. Comes back only from a kernel that was
 * loaded with KEXEC_PRESERVE_CONTEXT.
 *
 * @throws SyscallError EINVAL (nothing is loaded), EPERM (no CAP_SYS_BOOT)
 */
export function start(): void {
  reboot({ magic: LINUX_REBOOT_MAGIC1, magic2: LINUX_REBOOT_MAGIC2, cmd: LINUX_REBOOT_CMD_KEXEC, arg: 0 });
}
