/** The running kernel's memory as an ELF core file: /proc/kcore, proc(5). */
import { closeSync, openSync, readSync } from 'node:fs';
import { Elf64_Ehdr, Elf64_Phdr, PT_LOAD } from '../abi/elf.ts';
import { KPF_BUDDY, KPF_HWPOISON, KPF_NOPAGE } from '../abi/pageflags.ts';

const PAGE = 4096;

/** What /proc/kcore writes for memory that has no physical address of its own, as vmalloc's. */
const NO_PADDR = 0xffffffffffffffffn;

/**
 * Pieces of memory that have a physical address. The file's offsets are virtual addresses and its size means nothing, so that it is
 * no ELF file for other readers.
 *
 * @throws the system's errors: EPERM (lockdown, no privilege), ENOENT (kernel without CONFIG_PROC_KCORE)
 */
export function kcoreSegments(): ReturnType<typeof Elf64_Phdr.read>[] {
  const fd = openSync('/proc/kcore', 'r');
  try {
    const head = new Uint8Array(1 << 16);
    const length = readSync(fd, head);
    const { e_phoff, e_phnum } = Elf64_Ehdr.read(head.subarray(0, length));
    return Array.from({ length: e_phnum }, (_, i) =>
      Elf64_Phdr.read(head.subarray(0, length), Number(e_phoff) + i * Elf64_Phdr.size),
    ).filter(({ p_type, p_paddr }) => p_type === PT_LOAD && p_paddr !== NO_PADDR);
  } finally {
    closeSync(fd);
  }
}

/** Pages of the running kernel, by physical address. */
export class KernelPages {
  readonly #memory = openSync('/proc/kcore', 'r');
  readonly #flags: number;
  readonly #segments = kcoreSegments();

  /** @throws as kcoreSegments(); ENOENT also for a kernel without CONFIG_PROC_PAGE_MONITOR */
  constructor() {
    try {
      this.#flags = openSync('/proc/kpageflags', 'r');
    } catch (error) {
      closeSync(this.#memory);
      throw error;
    }
  }

  /** Whether somebody has the page: it is neither free nor missing. */
  isUsed(address: number): boolean {
    const flags = new BigUint64Array(1);
    if (readSync(this.#flags, flags, 0, 8, (address / PAGE) * 8) < 8) return false;
    return (flags[0]! & UNUSED) === 0n;
  }

  /** Fills `page`. @returns false where the kernel does not map the address */
  read(address: number, page: Uint8Array): boolean {
    const wanted = BigInt(address);
    const found = this.#segments.find(({ p_paddr, p_memsz }) => p_paddr <= wanted && wanted < p_paddr + p_memsz);
    if (found === undefined) return false;
    return readSync(this.#memory, page, 0, page.length, found.p_offset + wanted - found.p_paddr) === page.length;
  }

  [Symbol.dispose](): void {
    closeSync(this.#memory);
    closeSync(this.#flags);
  }
}

const UNUSED = (1n << BigInt(KPF_BUDDY)) | (1n << BigInt(KPF_NOPAGE)) | (1n << BigInt(KPF_HWPOISON));
