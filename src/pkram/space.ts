/** Which pages of a medium are in use: a bit a page. Nothing of it is stored; it follows from what the node list reaches. */

/** Pages one after the other. */
export interface Run {
  readonly first: number;
  readonly count: number;
}

const ALL = 0xffff_ffff;

export class Space {
  #bits: Uint32Array;
  #pages: number;
  #free: number;
  /** Where the search for free pages goes on. */
  #next = 0;

  constructor(pages: number) {
    this.#bits = new Uint32Array(Math.ceil(pages / 32));
    this.#pages = pages;
    this.#free = pages;
  }

  get pages(): number {
    return this.#pages;
  }

  get free(): number {
    return this.#free;
  }

  /** Takes certain pages. @returns false, and takes none, where they are outside or one of them is taken */
  claim({ first, count }: Run): boolean {
    if (!(first >= 0 && count >= 0 && first + count <= this.#pages)) return false;
    if (this.#runLength(first, count) < count) return false;
    this.#set(first, count);
    return true;
  }

  /** Takes the next free pages, as many as there are in one piece up to `wanted`. */
  allocate(wanted: number): Run | undefined {
    if (this.#free === 0) return undefined;
    let first = this.#firstFree(this.#next);
    if (first === this.#pages) first = this.#firstFree(0);
    const count = this.#runLength(first, Math.min(wanted, this.#pages - first));
    this.#set(first, count);
    this.#next = first + count;
    return { first, count };
  }

  /** Gives pages back that are taken. */
  release({ first, count }: Run): void {
    for (let page = first; page < first + count; page++) this.#bits[page >>> 5]! &= ~(1 << (page & 31));
    this.#free += count;
    if (first < this.#next) this.#next = first;
  }

  extend(pages: number): void {
    const bits = new Uint32Array(Math.ceil(pages / 32));
    bits.set(this.#bits);
    this.#bits = bits;
    this.#free += pages - this.#pages;
    this.#pages = pages;
  }

  #isTaken(page: number): boolean {
    return (this.#bits[page >>> 5]! & (1 << (page & 31))) !== 0;
  }

  #set(first: number, count: number): void {
    for (let page = first; page < first + count; ) {
      if ((page & 31) === 0 && page + 32 <= first + count) {
        this.#bits[page >>> 5] = ALL;
        page += 32;
      } else {
        this.#bits[page >>> 5]! |= 1 << (page & 31);
        page++;
      }
    }
    this.#free -= count;
  }

  /** The first free page from `page` on, or the number of pages. */
  #firstFree(page: number): number {
    while (page < this.#pages) {
      if ((page & 31) === 0 && this.#bits[page >>> 5] === ALL) page += 32;
      else if (this.#isTaken(page)) page++;
      else return page;
    }
    return this.#pages;
  }

  /** How many pages from `first` on are free, up to `limit`. */
  #runLength(first: number, limit: number): number {
    let count = 0;
    while (count < limit) {
      const page = first + count;
      if ((page & 31) === 0 && count + 32 <= limit && this.#bits[page >>> 5] === 0) count += 32;
      else if (this.#isTaken(page)) return count;
      else count++;
    }
    return count;
  }
}
