/** Memory that is mapped piece by piece and addressed as one space, in the order in which it was added; and what media of it share. */
import { munmap } from '../sys/memory.ts';
import { viewMemory } from '../sys/syscall.ts';

interface Piece {
  readonly start: number;
  /** What is mapped for it. */
  readonly mapping: { readonly addr: number; readonly length: number };
  readonly bytes: Uint8Array;
}

export class Pieces {
  #pieces: Piece[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Adds memory that is mapped there, to be unmapped by close(). @param from of it only `size` bytes from there on */
  add(addr: number, length: number, from = 0, size = length): void {
    const mapping = { addr, length };
    this.#pieces.push({ start: this.#size, mapping, bytes: viewMemory(addr + from, size) });
    this.#size += size;
  }

  read(address: number, into: Uint8Array): void {
    this.#each(address, into.length, (bytes, done) => into.set(bytes, done));
  }

  write(address: number, bytes: Uint8Array): void {
    this.#each(address, bytes.length, (place, done) => place.set(bytes.subarray(done, done + place.length)));
  }

  /** The bytes where they lie, or undefined where they are in two pieces. */
  view(address: number, length: number): Uint8Array | undefined {
    const { start, bytes } = this.#pieces[this.#indexOf(address)]!;
    return address + length <= start + bytes.length
      ? bytes.subarray(address - start, address - start + length)
      : undefined;
  }

  close(): void {
    for (const { mapping, bytes } of this.#pieces) {
      // Detaches it, so that whoever still has a part of it finds it empty, and not memory that is not there.
      (bytes.buffer as ArrayBuffer).transfer();
      munmap(mapping);
    }
    this.#pieces = [];
    this.#size = 0;
  }

  #each(address: number, length: number, take: (bytes: Uint8Array, done: number) => void): void {
    if (address < 0 || address + length > this.#size) {
      throw new RangeError(`bytes ${address} to ${address + length} of ${this.#size}`);
    }
    for (let done = 0, i = this.#indexOf(address); done < length; i++) {
      const { start, bytes } = this.#pieces[i]!;
      const from = address + done - start;
      const part = bytes.subarray(from, from + length - done);
      take(part, done);
      done += part.length;
    }
  }

  /** The last piece that begins at or before an address. */
  #indexOf(address: number): number {
    let [low, high] = [0, this.#pieces.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#pieces[middle]!.start <= address) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** What a medium does whose memory is mapped. */
export class MappedMedium {
  protected readonly pieces = new Pieces();

  get size(): number {
    return this.pieces.size;
  }

  read(address: number, into: Uint8Array): void {
    this.pieces.read(address, into);
  }

  write(address: number, bytes: Uint8Array): void {
    this.pieces.write(address, bytes);
  }

  view(address: number, length: number): Uint8Array | undefined {
    return this.pieces.view(address, length);
  }

  /** x86-64 makes stores visible in the order of the program, and the caches are not lost on the way to another kernel. */
  sync(): void {}

  /** A part of what is mapped cannot be given back. */
  release(): void {}
}
