/**
 * Finds numbered things by name without a string for each: a kernel has 200,000 symbols and 125,000 types, of which a run asks for
 * a hundred. An open-addressed table holds the numbers by a hash of their names' bytes, and the owner compares.
 *
 * The hash is a polynomial in HASH_BASE, modulo 2^32: that of two texts one after the other follows from those of the two, so
 * that names which are written as tokens need not be written out.
 */

export const HASH_BASE = 0x01000193;
/** HASH_BASE * HASH_BASE_INVERSE = 1 modulo 2^32. */
export const HASH_BASE_INVERSE = 0x359c449b;

export class NameIndex {
  readonly #slots: Int32Array;
  readonly #mask: number;

  /** @param count of names that will be added, at most */
  constructor(count: number) {
    let size = 16;
    while (size < count * 2) size *= 2;
    this.#slots = new Int32Array(size).fill(-1);
    this.#mask = size - 1;
  }

  /** @param hash of the name, as hashOf() gives it */
  add(hash: number, id: number): void {
    let slot = mixed(hash) & this.#mask;
    while (this.#slots[slot]! >= 0) slot = (slot + 1) & this.#mask;
    this.#slots[slot] = id;
  }

  /** Things whose name may be this one, in the order in which they were added. */
  *candidates(name: string): Generator<number> {
    let slot = mixed(hashOf(Buffer.from(name, 'latin1'))) & this.#mask;
    for (; this.#slots[slot]! >= 0; slot = (slot + 1) & this.#mask) yield this.#slots[slot]!;
  }
}

/** Of the bytes from `start` to before `end`. */
export function hashOf(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let hash = 0;
  for (let at = start; at < end; at++) hash = (Math.imul(hash, HASH_BASE) + bytes[at]!) | 0;
  return hash;
}

/** The low bits of the polynomial know little of the upper bits of the characters. */
function mixed(hash: number): number {
  const once = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b);
  return once ^ (once >>> 15);
}
