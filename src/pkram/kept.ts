/**
 * A medium that stays mapped from one time that it is opened to the next. To map memory, to learn that nobody else uses it, and to read
 * the list of nodes takes longer than what most do with it; whether another process has written meanwhile its superblock tells.
 */
import type { UnsupportedError } from '../errors.ts';
import type { LockedMedium, Medium, MediumRange } from './medium.ts';
import { Pkram } from './pkram.ts';
import { Volume, type VolumeOptions } from './volume.ts';

export class KeptMedium {
  readonly #medium: LockedMedium;
  #before: Volume | undefined;
  /** Several that only read have it at once. */
  readonly #open = new Set<Opening>();

  /** @param medium that can be written to, and is nobody else's from now on */
  constructor(medium: LockedMedium) {
    this.#medium = medium;
    medium.unlock();
  }

  /** Whether nobody of this process has it in a way that another one could not have it now. */
  isFree(readOnly: boolean): boolean {
    return readOnly ? [...this.#open].every(({ writable }) => !writable) : this.#open.size === 0;
  }

  /** To be called if it is free. @throws UnsupportedError where another process has it; what openPkram() does */
  open(readOnly: boolean, options: VolumeOptions): Pkram {
    if (this.#open.size === 0) this.#medium.lock(!readOnly);
    const opening = new Opening(this.#medium, readOnly, () => {
      if (this.#open.delete(opening) && this.#open.size === 0) this.#medium.unlock();
    });
    this.#open.add(opening);
    try {
      const volume = new Volume(opening, { ...options, before: this.#before });
      this.#before = volume;
      return new Pkram(volume);
    } catch (error) {
      this.#before = undefined;
      opening.close();
      throw error;
    }
  }

  /** What is still open can be read no more, and has no lock to give up. */
  close(): void {
    this.#open.clear();
    this.#medium.close();
  }
}

/** The medium, until it is closed. */
class Opening implements Medium {
  readonly writable: boolean;
  readonly #medium: LockedMedium;
  readonly #done: () => void;

  constructor(medium: LockedMedium, readOnly: boolean, done: () => void) {
    this.#medium = medium;
    this.writable = !readOnly;
    this.#done = done;
  }

  get name(): string {
    return this.#medium.name;
  }

  get size(): number {
    return this.#medium.size;
  }

  get ranges(): readonly MediumRange[] {
    return this.#medium.ranges;
  }

  get whyFull(): string | UnsupportedError | undefined {
    return this.#medium.whyFull;
  }

  attach(ranges: readonly MediumRange[]): void {
    this.#medium.attach(ranges);
  }

  read(address: number, into: Uint8Array): void {
    this.#medium.read(address, into);
  }

  write(address: number, bytes: Uint8Array): void {
    this.#medium.write(address, bytes);
  }

  view(address: number, length: number): Uint8Array | undefined {
    return this.#medium.view(address, length);
  }

  sync(): void {
    this.#medium.sync();
  }

  grow(bytes: number): boolean {
    return this.#medium.grow(bytes);
  }

  release(address: number, length: number): void {
    this.#medium.release(address, length);
  }

  unlock(): void {
    this.#done();
  }

  close(): void {
    this.#done();
  }
}
