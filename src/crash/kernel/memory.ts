/**
 * Memory by virtual address for whoever follows pointers in it: a read gives the value, or throws HoleError. A structure is
 * given up as a whole where a part of it is missing, so the hole is caught once, by whoever lists such structures.
 *
 * Addresses are bigint, as they use all 64 bits. A pointer chase reads few of them. What is long - tables of symbols, types,
 * unwind entries, the log - is read as one run of bytes and looked through with numbers.
 */
import { textOf } from '../../abi/text.ts';
import { HoleError } from '../../errors.ts';
import type { AddressSpace } from '../memory.ts';

/** Bytes of one read. The longest table of a kernel, its types, has 6 MB. */
const MAX_READ = 2 ** 27;

export class VirtualMemory {
  readonly space: AddressSpace;
  readonly #scalar = new Uint8Array(8);
  readonly #view = new DataView(this.#scalar.buffer);

  constructor(space: AddressSpace) {
    this.space = space;
  }

  /** A copy. @throws HoleError where not all of it is there */
  read(address: bigint, length: number): Uint8Array {
    if (!(length >= 0 && length <= MAX_READ))
      throw new HoleError(address, 'damaged', `${length} bytes are wanted there`);
    const into = new Uint8Array(length);
    this.#fill(address, into);
    return into;
  }

  view(address: bigint, length: number): DataView {
    return new DataView(this.read(address, length).buffer);
  }

  u8(address: bigint): number {
    return this.#load(address, 1).getUint8(0);
  }

  u16(address: bigint): number {
    return this.#load(address, 2).getUint16(0, true);
  }

  u32(address: bigint): number {
    return this.#load(address, 4).getUint32(0, true);
  }

  i32(address: bigint): number {
    return this.#load(address, 4).getInt32(0, true);
  }

  u64(address: bigint): bigint {
    const value = this.space.u64(address);
    if (typeof value === 'bigint') return value;
    throw new HoleError(address, value.reason, value.detail);
  }

  /** `long`, `size_t`, `loff_t`: a number that counts something. @throws HoleError where it is beyond 2^53 */
  long(address: bigint): number {
    const value = Number(BigInt.asIntN(64, this.u64(address)));
    if (Number.isSafeInteger(value)) return value;
    throw new HoleError(address, 'damaged', 'no number there');
  }

  /** Text up to its NUL, at most `max` bytes. What a string runs into beyond its NUL need not be there. */
  string(address: bigint, max = 4096): string {
    const bytes: Uint8Array[] = [];
    for (let done = 0; done < max; ) {
      const at = address + BigInt(done);
      const part = this.read(at, Math.min(max - done, 4096 - Number(at & 0xfffn), 256));
      const end = part.indexOf(0);
      bytes.push(end < 0 ? part : part.subarray(0, end));
      if (end >= 0) break;
      done += part.length;
    }
    return textOf(Buffer.concat(bytes));
  }

  #load(address: bigint, length: number): DataView {
    this.#fill(address, this.#scalar.subarray(0, length));
    return this.#view;
  }

  #fill(address: bigint, into: Uint8Array): void {
    const hole = this.space.read(address, into);
    if (hole !== undefined) throw new HoleError(address, hole.reason, hole.detail);
  }
}
