/**
 * Pointers into rings of io_uring(7). A program takes from io_uring_setup(2) where in the shared memory the kernel keeps which
 * counter, and keeps addresses of them; another kernel may lay the same ring out otherwise (struct io_rings; Linux 6.6 put its heads
 * and tails together):
 *
 *     6.1     0 sq.head   64 sq.tail   128 cq.head   192 cq.tail   256 ...   320 cqes   ... array
 *     6.12    0 sq.head    4 sq.tail     8 cq.head    12 cq.tail    16 ...    64 cqes   ... array
 *
 * So each word of the program's memory and registers that is such an address is moved: 64 bits that are one are hardly anything
 * else. A program that keeps none to a counter which is elsewhere now must find it in another way, and is refused.
 */
import { IORING_OFF_SQES, io_uring_params, SIZEOF_CQE } from '../abi/io_uring.ts';
import { UnsupportedError } from '../errors.ts';
import type { ImageTask } from '../image/tree.ts';
import { close } from '../sys/files.ts';
import { io_uring_setup } from '../sys/io_uring.ts';
import { viewMemory } from '../sys/syscall.ts';

/** What is asked for when a ring is made. */
interface RingSize {
  readonly sq_entries: number;
  readonly cq_entries: number;
  readonly setup_flags: number;
}

/** A ring of the image that a process has mapped. */
export interface MappedRing extends RingSize {
  readonly start: number;
  readonly end: number;
  /** Of the mapping in the file, in bytes. */
  readonly pgoff: number;
  /** As ringOffsets() gave them where it was saved; empty where that is not known. */
  readonly offsets: readonly number[];
}

const layouts = new Map<string, readonly number[]>();

/** Indices of what ringOffsets() returns. */
const [SQ_TAIL, SQ_ARRAY, CQ_HEAD, CQ_TAIL, CQES] = [1, 6, 7, 8, 12];
/** What every user of a ring reads or writes. */
const NEEDED: Readonly<Record<number, string>> = {
  [SQ_TAIL]: 'sq_off.tail',
  [CQ_HEAD]: 'cq_off.head',
  [CQ_TAIL]: 'cq_off.tail',
  [CQES]: 'cq_off.cqes',
};

/**
 * Where this kernel keeps the parts of a ring, in bytes.
 *
 * @throws SyscallError as io_uring_setup(2) does
 */
export function ringOffsets({ sq_entries, cq_entries, setup_flags }: RingSize): readonly number[] {
  const key = `${sq_entries} ${cq_entries}`;
  const known = layouts.get(key);
  if (known !== undefined) return known;
  const params = io_uring_params.write({ flags: setup_flags, cq_entries });
  close({ fd: io_uring_setup({ entries: sq_entries, params }) });
  const { sq_off: sq, cq_off: cq } = io_uring_params.read(params);
  const offsets = [
    ...[sq.head, sq.tail, sq.ring_mask, sq.ring_entries, sq.flags, sq.dropped, sq.array],
    ...[cq.head, cq.tail, cq.ring_mask, cq.ring_entries, cq.overflow, cq.cqes, cq.flags],
  ];
  layouts.set(key, offsets);
  return offsets;
}

/** Where a pointer leads, and the part of the ring that it is one to. */
interface Move {
  readonly to: number;
  readonly part: number;
}

/** A ring whose parts are elsewhere. */
class MovedRing {
  readonly start: number;
  readonly end: number;
  readonly found = new Set<number>();
  readonly #moves = new Map<number, Move>();
  readonly #spans: { readonly from: number; readonly end: number; readonly to: number; readonly part: number }[] = [];

  constructor({ start, sq_entries, cq_entries, offsets }: MappedRing, here: readonly number[]) {
    this.start = start;
    this.end = start + sizeOf(offsets, sq_entries, cq_entries);
    for (const [part, offset] of offsets.entries()) this.#moves.set(offset, { to: start + here[part]!, part });
    const span = (part: number, length: number) => {
      const from = offsets[part]!;
      this.#spans.push({ from, end: from + length, to: start + here[part]!, part });
    };
    span(CQES, cq_entries * SIZEOF_CQE);
    span(SQ_ARRAY, 4 * sq_entries);
  }

  /** @returns where what was at an address is, or the address itself */
  moved(address: number): number {
    const offset = address - this.start;
    const span = this.#spans.find(({ from, end }) => offset >= from && offset < end);
    const move = span === undefined ? this.#moves.get(offset) : { to: span.to + offset - span.from, part: span.part };
    if (move === undefined) return address;
    this.found.add(move.part);
    return move.to;
  }
}

function sizeOf(offsets: readonly number[], sq_entries: number, cq_entries: number): number {
  return Math.max(offsets[CQES]! + cq_entries * SIZEOF_CQE, offsets[SQ_ARRAY]! + 4 * sq_entries);
}

/** The pointers of one address space. */
export class RingPointers {
  readonly #rings: readonly MovedRing[];
  readonly #needed: readonly number[];
  readonly #pid: number;

  /**
   * @param rings mappings of rings @param here ringOffsets() of this kernel
   * @throws UnsupportedError where a ring of this kernel needs more room than was mapped
   */
  constructor(pid: number, rings: readonly MappedRing[], here = ringOffsets) {
    this.#pid = pid;
    const needed = new Set<number>();
    this.#rings = rings.flatMap((ring) => {
      if (ring.pgoff === IORING_OFF_SQES || ring.offsets.length === 0) return [];
      const now = here(ring);
      const others = Object.keys(NEEDED)
        .map(Number)
        .filter((part) => ring.offsets[part] !== now[part]);
      for (const part of others) needed.add(part);
      if (ring.offsets.every((offset, part) => offset === now[part])) return [];
      const size = sizeOf(now, ring.sq_entries, ring.cq_entries);
      if (size <= ring.end - ring.start) return new MovedRing(ring, now);
      throw this.#refused(`it takes ${size} bytes in this kernel, and the program has mapped ${ring.end - ring.start}`);
    });
    this.#needed = [...needed];
  }

  get areMoved(): boolean {
    return this.#rings.length > 0;
  }

  /** Moves those in a part of the contents. @param at where it lies here, a multiple of 8 */
  take(at: number, length: number): void {
    if (this.areMoved) this.move(viewMemory(at, length));
  }

  move({ buffer, byteOffset, length }: Uint8Array): void {
    const words = new Uint32Array(buffer, byteOffset, length >>> 2);
    const [first, last] = [
      Math.min(...this.#rings.map(({ start }) => start)),
      Math.max(...this.#rings.map(({ end }) => end)),
    ];
    const [lowest, highest] = [Math.floor(first / 2 ** 32), Math.floor(last / 2 ** 32)];
    for (let i = 1; i < words.length; i += 2) {
      const high = words[i]!;
      if (high < lowest || high > highest) continue;
      const address = high * 2 ** 32 + words[i - 1]!;
      if (address < first || address >= last) continue;
      const to = this.#moved(address);
      if (to === address) continue;
      words[i - 1] = to % 2 ** 32;
      words[i] = Math.floor(to / 2 ** 32);
    }
  }

  /** Moves those in registers. */
  moveRegisters({ threads }: ImageTask): void {
    if (!this.areMoved) return;
    for (const { core } of threads) {
      const registers = core.thread_info!.gpregs;
      for (const [name, value] of Object.entries(registers)) {
        if (typeof value !== 'bigint' || value > BigInt(Number.MAX_SAFE_INTEGER)) continue;
        Object.assign(registers, { [name]: BigInt(this.#moved(Number(value))) });
      }
    }
  }

  /**
   * To be called when all has been moved.
   *
   * @param later whether some of the memory comes later
   * @throws UnsupportedError where the program must find the counters otherwise
   */
  demandFound(later: boolean): void {
    if (later && this.areMoved) throw this.#refused('pointers to it cannot be moved in memory that comes later');
    for (const { found } of this.#rings) {
      const missing = this.#needed.find((part) => !found.has(part));
      if (missing !== undefined) throw this.#refused(`and the program keeps no pointer to its ${NEEDED[missing]}`);
    }
  }

  #moved(address: number): number {
    const ring = this.#rings.find(({ start, end }) => address >= start && address < end);
    return ring?.moved(address) ?? address;
  }

  #refused(why: string): UnsupportedError {
    const all = `this kernel lays it out otherwise: ${why}`;
    const remedy = 'restore it on the kernel on which it was saved, or let the program do without io_uring';
    return new UnsupportedError({ what: 'io_uring', pid: this.#pid, why: all, remedy });
  }
}
