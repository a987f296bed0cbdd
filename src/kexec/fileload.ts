/**
 * Loading by kexec_file_load(2): the kernel reads the image itself, checks its signature where that is demanded, and lays
 * the memory out as it likes. The way under lockdown, and the one that carries kexec handover. Of a memory map it passes on the
 * first 128 entries; what lies behind them the next kernel does not have (setup_e820_entries() of kexec-bzimage64.c).
 */
import { closeSync, openSync } from 'node:fs';
import { KEXEC_FILE_NO_INITRAMFS } from '../abi/kexec.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { close, write } from '../sys/files.ts';
import { kexec_file_load } from '../sys/kexec.ts';
import { memfd_create } from '../sys/memory.ts';
import { Region } from '../sys/region.ts';

/**
 * @param initrd joined archives; empty for none
 * @throws UnsupportedError where the kernel demands a signature that the image does not have
 * @throws SyscallError as kexec_file_load(2)
 */
export function loadFile(kernel: string, initrd: Uint8Array, commandLine: string): void {
  const kernel_fd = openSync(kernel, 'r');
  const initrd_fd = initrd.length === 0 ? -1 : inMemory(initrd);
  try {
    kexec_file_load({
      kernel_fd,
      initrd_fd,
      cmdline_len: Buffer.byteLength(commandLine) + 1,
      cmdline: commandLine,
      flags: initrd_fd === -1 ? KEXEC_FILE_NO_INITRAMFS : 0,
    });
  } catch (error) {
    throw isSignature(error) ? unsigned(kernel, error) : error;
  } finally {
    closeSync(kernel_fd);
    if (initrd_fd !== -1) close({ fd: initrd_fd });
  }
}

/** What verify_pefile_signature() answers, and EPERM of a kernel that is locked down (kimage_validate_signature()). */
const SIGNATURE = ['EKEYREJECTED', 'ENOKEY', 'EBADMSG', 'ENODATA', 'ENOPKG', 'EPERM'];

function isSignature(error: unknown): error is SyscallError {
  return error instanceof SyscallError && SIGNATURE.includes(error.errnoName);
}

function unsigned(kernel: string, error: SyscallError): UnsupportedError {
  return new UnsupportedError({
    what: `${kernel}: signature`,
    why: `the running kernel takes signed kernels only, and does not know the key of this one's or finds none (${error.errnoName})`,
    remedy: 'sign it with a key that the kernel knows, or turn off secure boot or lockdown=',
  });
}

/** A descriptor of a file that has these bytes. */
function inMemory(bytes: Uint8Array): number {
  const fd = memfd_create({ name: 'initrd', flags: 0 });
  const memory = new Region(bytes.length);
  try {
    memory.bytes.set(bytes);
    for (let at = 0; at < bytes.length; ) {
      at += write({ fd, buf: memory.address + at, count: bytes.length - at });
    }
    return fd;
  } catch (error) {
    close({ fd });
    throw error;
  } finally {
    memory[Symbol.dispose]();
  }
}
