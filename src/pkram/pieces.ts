/** Memory that is mapped piece by piece and addressed as one space, in the order in which it was added; and what media of it share. */
import { munmap } from '../sys/memory.ts';
import { viewMemory } from '../sys/syscall.ts';

/** What is mapped for a piece, of which that is the part from `from` on. */
interface Mapping {
  readonly addr: number;
  readonly length: number;
  readonly from: number;
}

interface Piece {
  readonly start: number;
  readonly size: number;
  map(): Mapping;
  /** From when it is mapped. */
  mapped?: { readonly mapping: Mapping; readonly bytes: Uint8Array };
}

export class Pieces {
  #pieces: Piece[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Adds memory that is mapped there, to be unmapped by close(). */
  add(addr: number, length: number): void {
    this.addLater(length, () => ({ addr, length, from: 0 }));
    this.#bytesOf(this.#pieces.at(-1)!);
  }

  /** Adds so many bytes that are mapped when they are asked for. */
  addLater(size: number, map: () => Mapping): void {
    this.#pieces.push({ start: this.#size, size, map });
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
    const piece = this.#pieces[this.#indexOf(address)]!;
    const at = address - piece.start;
    return at + length <= piece.size ? this.#bytesOf(piece).subarray(at, at + length) : undefined;
  }

  close(): void {
    for (const { mapped } of this.#pieces) {
      if (mapped === undefined) continue;
      // Detaches it, so that whoever still has a part of it finds it empty, and not memory that is not there.
      (mapped.bytes.buffer as ArrayBuffer).transfer();
      munmap(mapped.mapping);
    }
    this.#pieces = [];
    this.#size = 0;
  }

  #each(address: number, length: number, take: (bytes: Uint8Array, done: number) => void): void {
    if (address < 0 || address + length > this.#size) {
      throw new RangeError(`bytes ${address} to ${address + length} of ${this.#size}`);
    }
    for (let done = 0, i = this.#indexOf(address); done < length; i++) {
      const piece = this.#pieces[i]!;
      const from = address + done - piece.start;
      const part = this.#bytesOf(piece).subarray(from, from + length - done);
      take(part, done);
      done += part.length;
    }
  }

  #bytesOf(piece: Piece): Uint8Array {
    if (piece.mapped === undefined) {
      const mapping = piece.map();
      piece.mapped = { mapping, bytes: viewMemory(mapping.addr + mapping.from, piece.size) };
    }
    return piece.mapped.bytes;
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
