/** Where the running kernel will leave its registers and what describes it, should it die: for a capture kernel. */
import { readdirSync } from 'node:fs';
import { UnsupportedError } from '../errors.ts';
import { kcoreSegments } from './kcore.ts';
import { readProcText } from './proc.ts';

export interface PhysicalNote {
  /** Physical address. */
  readonly address: number;
  /** In bytes. */
  readonly size: number;
}

/** One for each processor that may come online, in which the kernel notes its registers. */
export function crashNotes(): PhysicalNote[] {
  const folder = '/sys/devices/system/cpu';
  return readdirSync(folder)
    .filter((name) => /^cpu\d+$/.test(name))
    .sort((a, b) => Number(a.slice(3)) - Number(b.slice(3)))
    .map((name) => ({
      address: Number.parseInt(readProcText(`${folder}/${name}/crash_notes`), 16),
      size: Number(readProcText(`${folder}/${name}/crash_notes_size`)),
    }));
}

/** The note with vmcoreinfo: "address size" in hex. */
export function vmcoreinfoNote(): PhysicalNote {
  const [address, size] = readProcText('/sys/kernel/vmcoreinfo').trim().split(' ');
  return { address: Number.parseInt(address!, 16), size: Number.parseInt(size!, 16) };
}

/** How the running kernel maps memory, which KASLR moves. */
export interface KernelMapping {
  /** Kernel virtual address of physical address 0 in the direct map. */
  readonly directMap: bigint;
  /** The kernel's own text and data, which are mapped a second time. */
  readonly text: { readonly start: number; readonly end: number; readonly virtual: bigint };
}

/** __START_KERNEL_map of arch/x86/include/asm/page_64_types.h. */
const KERNEL_MAP = 0xffffffff80000000n;

/**
 * Read from the program headers of /proc/kcore, which tell virtual and physical address of each piece of memory.
 *
 * @throws UnsupportedError where they do not
 */
export function kernelMapping(): KernelMapping {
  const segments = kcoreSegments();
  const direct = segments.find(({ p_vaddr }) => p_vaddr < KERNEL_MAP);
  const text = segments.find(({ p_vaddr }) => p_vaddr >= KERNEL_MAP);
  if (direct !== undefined && text !== undefined) {
    return {
      directMap: direct.p_vaddr - direct.p_paddr,
      text: { start: Number(text.p_paddr), end: Number(text.p_paddr + text.p_memsz), virtual: text.p_vaddr },
    };
  }
  throw new UnsupportedError({
    what: 'the headers for a capture kernel',
    why: '/proc/kcore does not show where the kernel maps memory',
    remedy: 'use a kernel with CONFIG_PROC_KCORE=y, without lockdown',
  });
}
