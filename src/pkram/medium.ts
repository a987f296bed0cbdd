/**
 * What preserved memory lies in: a sequence of ranges of some backing (a file, physical memory) seen as one space of
 * addresses from 0. Addresses on the medium are those of this space, so that a range of memory may move, and the medium
 * grow, without a change to anything but the table of ranges.
 *
 *     backing    |  range 2  |        | range 0 |   | range 1 |
 *     addresses  | range 0 | range 1 |  range 2  |
 */
import type { UnsupportedError } from '../errors.ts';

/** A part of the backing, in whole pages. */
export interface MediumRange {
  /** Physical address or position in the file. */
  readonly start: number;
  /** In bytes. */
  readonly size: number;
}

export interface Medium {
  /** For messages: the file, or what else it is. */
  readonly name: string;
  readonly writable: boolean;
  /** Bytes that can be addressed. */
  readonly size: number;
  /** In the order of their addresses. */
  readonly ranges: readonly MediumRange[];
  /**
   * Makes the ranges that the superblock names accessible. Before, only the first 128 KiB can be read.
   * @throws FormatError, UnsupportedError where they are not there
   */
  attach(ranges: readonly MediumRange[]): void;
  /** Fills `into`. */
  read(address: number, into: Uint8Array): void;
  /** Takes all of `bytes`, which may be used again when this returns. @throws NoRoomError */
  write(address: number, bytes: Uint8Array): void;
  /** The bytes where they lie, valid until close(); or undefined where they are not mapped in one piece. */
  view(address: number, length: number): Uint8Array | undefined;
  /** What was written before is on the medium before anything that is written after. */
  sync(): void;
  /** Adds at least so many bytes at the end. @returns false where there is no more */
  grow(bytes: number): boolean;
  /** Why it did not grow, where that is not plain: for messages, or what the system lacks. */
  readonly whyFull?: string | UnsupportedError | undefined;
  /** The content is of no more use: a backing that can gives its memory back. It may read as anything afterwards. */
  release(address: number, length: number): void;
  /** Others may have it from now on, while it stays open to be read. */
  unlock?(): void;
  close(): void;
}

/** A medium whose lock can be given up and taken again while it stays mapped. */
export interface LockedMedium extends Medium {
  /** @param alone or beside others who only read @throws UnsupportedError where another process has it */
  lock(alone: boolean): void;
  unlock(): void;
}
