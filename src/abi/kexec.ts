/** Loading another kernel: include/uapi/linux/kexec.h */
import { struct, u64n } from './struct.ts';

/** Flags of kexec_load(2). */
export const KEXEC_ON_CRASH = 0x1;
export const KEXEC_PRESERVE_CONTEXT = 0x2;
/** The kernel may rewrite the ELF headers of a crash kernel on hotplug, Linux 6.6. */
export const KEXEC_UPDATE_ELFCOREHDR = 0x4;
/** Linux 6.9. */
export const KEXEC_CRASH_HOTPLUG_SUPPORT = 0x8;
export const KEXEC_ARCH_DEFAULT = 0x0;
export const KEXEC_ARCH_X86_64 = 0x3e0000;

/** Flags of kexec_file_load(2). */
export const KEXEC_FILE_UNLOAD = 0x1;
export const KEXEC_FILE_ON_CRASH = 0x2;
export const KEXEC_FILE_NO_INITRAMFS = 0x4;
/** Linux 6.7. */
export const KEXEC_FILE_DEBUG = 0x8;
/** Linux 6.16. */
export const KEXEC_FILE_NO_CMA = 0x10;

export const KEXEC_SEGMENT_MAX = 16;

/** `buf` is an address in this process, `mem` a physical one; from `bufsz` to `memsz` the kernel fills with zeros. */
export const kexec_segment = struct('kexec_segment', 32, { buf: u64n, bufsz: u64n, mem: u64n, memsz: u64n });
