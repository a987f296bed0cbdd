/**
 * Memory with an address: an anonymous mapping that the kernel and JavaScript both see. JavaScript's own buffers may
 * move or lie anywhere; what a system call is to read or fill at a known place, in megabytes or over several calls,
 * lies in a Region.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { mmap, mprotect, munmap } from './memory.ts';
import { type Address, callableAt, type NativeFunction, viewMemory } from './syscall.ts';

export class Region {
  readonly address: Address;
  /** In bytes, a whole number of pages. */
  readonly size: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  #mapped = true;

  /** @param size in bytes, rounded up to whole pages @throws SyscallError ENOMEM */
  constructor(size: number) {
    this.size = Math.ceil(size / 4096) * 4096;
    this.address = mmap({
      addr: 0,
      length: this.size,
      prot: PROT_READ | PROT_WRITE,
      flags: MAP_PRIVATE | MAP_ANONYMOUS,
      fd: -1,
      offset: 0,
    });
    this.bytes = viewMemory(this.address, this.size);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Unmaps. `bytes` and `view` must not be touched afterwards. */
  [Symbol.dispose](): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    munmap({ addr: this.address, length: this.size });
  }
}

/**
 * Maps position-independent machine code, readable and executable, for the life of the process.
 *
 * @param parameters how many 64-bit integers the code takes, after the C convention
 */
export function mapCode(code: Uint8Array, parameters: number): { address: Address; call: NativeFunction } {
  const region = new Region(code.length);
  region.bytes.set(code);
  mprotect({ addr: region.address, len: region.size, prot: PROT_READ | PROT_EXEC });
  return { address: region.address, call: callableAt(region.address, parameters) };
}

/**
 * What a file holds, for the life of the process: memory of the page cache, which the kernel takes back where it needs some.
 * @throws the system's errors
 */
export function mapFile(path: string): Uint8Array {
  const fd = openSync(path, 'r');
  try {
    const length = fstatSync(fd).size;
    if (length === 0) return new Uint8Array();
    return viewMemory(mmap({ addr: 0, length, prot: PROT_READ, flags: MAP_PRIVATE, fd, offset: 0 }), length);
  } finally {
    closeSync(fd);
  }
}
