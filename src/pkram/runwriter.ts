/** Writes data to free pages as it comes: in long pieces, however small those are that come. */
import { PAGE_SIZE } from '../mem/address.ts';
import { EXTENT_MAX } from './format.ts';
import type { Run } from './space.ts';
import type { Volume } from './volume.ts';

const STAGING = 1 << 20;
/** What has at least this size is not worth another copy. */
const DIRECT = 128 << 10;
const RUN_PAGES = EXTENT_MAX / PAGE_SIZE;

export class RunWriter {
  readonly #volume: Volume;
  /** All pages that were taken, those included that are not written to yet. */
  readonly #taken: Run[];
  /** Where the next byte goes, and where the pages end that are at hand. */
  #at = 0;
  #end = 0;
  #staging: Uint8Array | undefined;
  #staged = 0;
  #stagedAt = 0;

  /** @param taken gets each run that is allocated */
  constructor(volume: Volume, taken: Run[]) {
    this.#volume = volume;
    this.#taken = taken;
  }

  /** @param placed is told where each piece goes, in order @throws NoRoomError; the pieces told of are written all the same */
  put(bytes: Uint8Array, placed: (address: number, piece: Uint8Array) => void): void {
    for (let done = 0; done < bytes.length; ) {
      if (this.#at === this.#end) this.#take(bytes.length - done);
      const piece = bytes.subarray(done, done + this.#end - this.#at);
      const address = this.#at;
      this.#write(piece);
      this.#at += piece.length;
      done += piece.length;
      // At last, as it may need a page itself and for that give back what is left at hand.
      placed(address, piece);
    }
  }

  /** What comes next begins with a page of its own. */
  align(): void {
    this.#at = Math.ceil(this.#at / PAGE_SIZE) * PAGE_SIZE;
  }

  /** Writes all that was put and gives back what was taken too much. */
  finish(): void {
    this.#flush();
    this.align();
    if (this.#at === this.#end) return;
    const [first, count] = [this.#at / PAGE_SIZE, (this.#end - this.#at) / PAGE_SIZE];
    const last = this.#taken.findIndex((run) => run.first + run.count === first + count);
    const run = this.#taken[last]!;
    this.#taken.splice(last, 1, ...(run.count > count ? [{ first: run.first, count: run.count - count }] : []));
    this.#volume.giveBack([{ first, count }]);
    this.#end = this.#at;
  }

  #take(bytes: number): void {
    // A node of a few pages takes a few, so that many that are saved at once do not hold more than they need.
    const wanted = Math.max(Math.ceil(bytes / PAGE_SIZE), Math.min(RUN_PAGES, 2 * this.#lastCount));
    const run = this.#volume.allocate(Math.min(wanted, RUN_PAGES));
    this.#taken.push(run);
    this.#lastCount = Math.max(16, run.count);
    this.#at = run.first * PAGE_SIZE;
    this.#end = this.#at + run.count * PAGE_SIZE;
  }

  #lastCount = 8;

  #write(piece: Uint8Array): void {
    if (this.#staged > 0 && (this.#stagedAt + this.#staged !== this.#at || this.#staged + piece.length > STAGING)) {
      this.#flush();
    }
    if (this.#staged === 0 && piece.length >= DIRECT) {
      this.#volume.medium.write(this.#at, piece);
      return;
    }
    this.#staging ??= new Uint8Array(STAGING);
    if (this.#staged === 0) this.#stagedAt = this.#at;
    this.#staging.set(piece, this.#staged);
    this.#staged += piece.length;
  }

  #flush(): void {
    if (this.#staged === 0) return;
    this.#volume.medium.write(this.#stagedAt, this.#staging!.subarray(0, this.#staged));
    this.#staged = 0;
  }
}
