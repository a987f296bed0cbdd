/**
 * What every dump is, whatever its format: pages of physical memory, notes, and what its header says. Readers of formats make
 * one; everything that looks into a dump takes one.
 */
import type { Note } from '../abi/elfnote.ts';
import type { Range } from '../mem/range.ts';
import type { Compression } from './codec/page.ts';

/**
 * Why bytes are not there:
 * - `missing`: no RAM at this address, or none that the dump describes
 * - `excluded`: left out on purpose when the dump was filtered
 * - `incomplete`: the dump ends before them
 * - `damaged`: they stand there and cannot be decoded or read
 * - `unmapped`: no page table entry leads to the virtual address
 */
export type HoleReason = 'missing' | 'excluded' | 'incomplete' | 'damaged' | 'unmapped';

/** A place that cannot be read. It is an answer, not an error: a dump has holes. */
export interface Hole {
  readonly reason: HoleReason;
  /** Physical address of the first byte that is not there. */
  readonly address: number;
  /** What is damaged, for people. */
  readonly detail?: string;
}

export type DumpFormat = 'elf' | 'kdump' | 'raw';

/** What the header of a dump says. What it does not say is undefined. */
export interface DumpHeader {
  /** uname(2) of the kernel that crashed. */
  readonly utsname?: Partial<Utsname>;
  /** When it crashed, or was dumped: seconds since 1970. */
  readonly time?: number;
  /** Number of CPUs. */
  readonly cpus?: number;
  /** The file is cut short: the program that wrote it said so, or it ends too early. */
  readonly incomplete: boolean;
  /** makedumpfile's -d: bits of the kinds of pages that were excluded. */
  readonly dumpLevel?: number;
  /** How the pages of a kdump-compressed file are. */
  readonly compression?: Compression;
  /** The stream format of `makedumpfile -F`, from which the dump has not been put together. */
  readonly flattened: boolean;
  /** How many files hold the dump. */
  readonly files: number;
}

export interface Utsname {
  readonly sysname: string;
  readonly nodename: string;
  readonly release: string;
  readonly version: string;
  readonly machine: string;
  readonly domainname: string;
}

export interface PageSource {
  /** Path or name, for messages; the first of several. */
  readonly file: string;
  readonly format: DumpFormat;
  /** In bytes: 4096. */
  readonly pageSize: number;
  /** Physical memory that the dump describes, excluded pages too: sorted, disjoint, in bytes. */
  readonly ranges: readonly Range[];
  /** ELF notes: VMCOREINFO, NT_PRSTATUS of each CPU, and what else there is. */
  readonly notes: readonly Note[];
  readonly header: DumpHeader;
  /**
   * Sets in `bits`, which is overwritten, bit i % 8 of byte i / 8 for each page `first` + i that the dump holds whole.
   *
   * @param first number of a page, a multiple of 8
   */
  storedPages(first: number, bits: Uint8Array): void;
  /**
   * Says that pages are read next, most of them: where they lie together, they are read at once.
   *
   * @param first number of a page, a multiple of 8 @param count at most 1024
   */
  prepare?(first: number, count: number): void;
  /**
   * Fills `into` with the physical memory from `address` on. Both may be any number of bytes, over pages and ranges.
   *
   * @param address in bytes, exact below 2^53
   * @returns the first place that is not there, or undefined if all are. What is in `into` before that place is right, what is
   * in it from there on is not defined.
   */
  readPhysical(address: number, into: Uint8Array): Hole | undefined;
  /**
   * The next address, at `address` or after it, from which on there may be something other than zeros: Infinity where there is
   * none. Sources leave it out that do not know, and those of which it is not worth asking.
   */
  nextData?(address: number): number;
  close(): void;
}
