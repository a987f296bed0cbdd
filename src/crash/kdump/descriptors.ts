/** Descriptors of pages as they stand one behind the other in a kdump file. */
import { PAGE_SIZE } from '../../mem/address.ts';
import { PAGE_CHECKSUM, page_desc } from './format.ts';

/** Files are not larger. */
const MAX_POSITION = 2 ** 50;

/** Many page_desc, without an object for each. An offset beyond 2^53 is no longer exact, and beyond every file. */
export class Descriptors {
  readonly #view: DataView;
  readonly #count: number;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#count = bytes.length / page_desc.size;
  }

  position(i: number): number {
    const at = i * page_desc.size;
    return this.#view.getUint32(at, true) + this.#view.getInt32(at + 4, true) * 2 ** 32;
  }

  size(i: number): number {
    return this.#view.getUint32(i * page_desc.size + page_desc.offsets.size, true);
  }

  flags(i: number): number {
    return this.#view.getUint32(i * page_desc.size + page_desc.offsets.flags, true);
  }

  hasSum(i: number): boolean {
    return this.#view.getUint32(i * page_desc.size + page_desc.offsets.page_flags + 4, true) === PAGE_CHECKSUM;
  }

  sum(i: number): number {
    return this.#view.getUint32(i * page_desc.size + page_desc.offsets.page_flags, true);
  }

  /** From where to where their pages stand, of the last `limit` bytes: a page of zeros that many share may stand long before. */
  span(limit: number): { start: number; end: number } {
    let end = 0;
    for (let i = 0; i < this.#count; i++) {
      const behind = this.position(i) + this.size(i);
      // A damaged one is no place to read at.
      if (behind < MAX_POSITION) end = Math.max(end, behind);
    }
    let start = end;
    for (let i = 0; i < this.#count; i++) {
      const position = this.position(i);
      if (position >= end - limit && position > 0) start = Math.min(start, position);
    }
    return { start, end };
  }

  /** Behind the last of those from `first` on that are read as one. @param zeroAt where the shared page of zeros stands */
  alikeFrom(first: number, zeroAt: number): number {
    const position = this.position(first);
    const isZeros = position === zeroAt;
    if (!isZeros && (this.flags(first) !== 0 || this.size(first) !== PAGE_SIZE)) return first + 1;
    let end = first + 1;
    while (end < this.#count && this.position(end) === position + (isZeros ? 0 : (end - first) * PAGE_SIZE)) {
      if (this.flags(end) !== this.flags(first) || this.size(end) !== this.size(first)) break;
      end++;
    }
    return end;
  }
}
