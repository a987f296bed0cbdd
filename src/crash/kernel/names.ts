/**
 * Finds numbered things by name without a string for each: a kernel has 200,000 symbols and 125,000 types, of which a run asks for
 * a hundred. Names are hashed as bytes (FNV-1a); an open-addressed table holds the numbers, and the owner compares.
 */

export const FNV_OFFSET = 0x811c9dc5;
export const FNV_PRIME = 0x01000193;

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

  /** @param hash FNV-1a of the name's bytes */
  add(hash: number, id: number): void {
    let slot = hash & this.#mask;
    while (this.#slots[slot]! >= 0) slot = (slot + 1) & this.#mask;
    this.#slots[slot] = id;
  }

  /** Things whose name may be this one, in the order in which they were added. */
  *candidates(name: string): Generator<number> {
    let slot = hashOf(name) & this.#mask;
    for (; this.#slots[slot]! >= 0; slot = (slot + 1) & this.#mask) yield this.#slots[slot]!;
  }
}

/** Of a latin-1 name. */
export function hashOf(name: string): number {
  let hash = FNV_OFFSET;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), FNV_PRIME);
  return hash;
}
