/**
 * What is known of large processes before they stop, so that they stand still for less time. The flags of mappings (smaps) and
 * which pages there are the kernel only tells by a walk through all page tables: 20 and 10 ms for 1 GiB. A process is taken to have
 * the flags that it had a moment before. Of one that goes on with a snapshot, the snapshot tells afterwards whether that is so, and
 * has the pages; of others another thread asks while their memory is written. Where it is not so, all is done once more in the slow way.
 *
 * A fork clears what locks mappings and what userfaultfd(2) watches: man 2 fork. So nothing is foreseen where something is
 * locked; what is watched is refused when it is looked at.
 */
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { textOf } from '../abi/text.ts';
import { NR } from '../abi/unistd.ts';
import { close, openat, read } from '../sys/files.ts';
import { type FlaggedVma, parseFlaggedMaps, readFlaggedMaps, readMaps, type Vma } from '../sys/maps.ts';
import { Region } from '../sys/region.ts';
import { readStatus } from '../sys/stat.ts';
import { Background } from './background.ts';

/** Memory of a process from which on it is worth it, in bytes. */
const LARGE = 32 << 20;
/** Mappings of a process that another thread asks for at most: one read of 8 KiB each is provided. */
const MOST_ASKED = 2048;

export class Foresight {
  readonly #pagesToo: boolean;
  readonly #seen = new Map<number, readonly FlaggedVma[]>();
  readonly #used = new Map<number, readonly FlaggedVma[]>();
  readonly #asked = new Map<number, AskedMaps>();

  /** @param pagesToo whether snapshots will tell which pages there are */
  constructor(pagesToo: boolean) {
    this.#pagesToo = pagesToo;
  }

  /** Notes the mappings of a process while it runs. */
  note(pid: number, mappings: readonly FlaggedVma[]): void {
    this.#seen.set(pid, mappings);
  }

  /** The mappings of a process that has stopped, or undefined where their flags are not to be foreseen. */
  mappings(pid: number): readonly FlaggedVma[] | undefined {
    const before = this.#seen.get(pid);
    if (before === undefined || before.length > MOST_ASKED) return undefined;
    const { sizes } = readStatus(pid);
    if (sizeOf(sizes) < LARGE || sizes.get('VmLck') !== 0) return undefined;
    const found: FlaggedVma[] = [];
    for (const now of readMaps(pid)) {
      const then = before.find((each) => each.start < now.end && each.end > now.start && isLike(each, now));
      if (then === undefined) return undefined;
      const { flags, hugePage } = then;
      found.push(hugePage === undefined ? { ...now, flags } : { ...now, flags, hugePage });
    }
    this.#used.set(pid, found);
    return found;
  }

  /** How much memory a process has whose pages are still to be found, more or less, in bytes; or undefined for others. */
  sizeOf(pid: number): number | undefined {
    return this.#pagesToo && this.#used.has(pid) ? sizeOf(readStatus(pid).sizes) : undefined;
  }

  /**
   * Whether a process had the flags that it was taken to have, where snapshots tell that.
   *
   * @param snapshot a copy of it, or its own id
   */
  wasRight(pid: number, snapshot: number): boolean {
    return !this.#pagesToo || !this.#used.has(pid) || this.#isAs(pid, readFlaggedMaps(snapshot), snapshot !== pid);
  }

  /** Begins to ask for the flags of those that were foreseen, where no snapshots tell them. They do not go on before wereRight(). */
  ask(): void {
    if (this.#pagesToo) return;
    for (const [pid, { length }] of this.#used) this.#asked.set(pid, new AskedMaps(pid, length));
  }

  /** Whether all that was asked for is as it was foreseen. */
  wereRight(): boolean {
    return [...this.#asked].every(([pid, asked]) => this.#isAs(pid, asked.answer(), false));
  }

  #isAs(pid: number, found: readonly FlaggedVma[], forked: boolean): boolean {
    const there = new Map(found.map((each) => [each.start, each]));
    return this.#used.get(pid)!.every((wanted) => {
      const now = there.get(wanted.start);
      if (now === undefined) return forked && wanted.flags.has(NOT_COPIED);
      return now.end === wanted.end && now.hugePage === wanted.hugePage && sameFlags(now, wanted);
    });
  }

  [Symbol.dispose](): void {
    for (const asked of this.#asked.values()) asked[Symbol.dispose]();
    this.#asked.clear();
  }
}

/** A read of /proc gives whole lines of one page at a time, or the one entry that is larger. */
const PART = 8 << 10;

/** The mappings of a process as another thread reads them. */
class AskedMaps {
  readonly #file: string;
  readonly #fd: number;
  readonly #room: Region;
  readonly #reads: readonly number[];
  readonly #calls: Background;

  /** @param expected how many mappings there are, more or less */
  constructor(pid: number, expected: number) {
    const parts = expected + 8;
    this.#file = `/proc/${pid}/smaps`;
    this.#fd = openat({ dirfd: AT_FDCWD, pathname: this.#file, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
    this.#room = new Region(parts * PART);
    this.#calls = new Background(parts);
    this.#reads = Array.from({ length: parts }, (_, i) =>
      this.#calls.add(NR.read, this.#fd, this.#room.address + i * PART, PART),
    );
    this.#calls.start();
  }

  /** Waits for it. @throws FormatError, SyscallError */
  answer(): FlaggedVma[] {
    this.#calls.wait();
    const parts: Uint8Array[] = [];
    for (const [i, each] of this.#reads.entries()) {
      const args = { fd: this.#fd, buf: this.#room.address + i * PART, count: PART };
      const got = this.#calls.result(each);
      if (got < 0) throw read.error(args, got);
      if (got === 0) return parseFlaggedMaps(textOf(Buffer.concat(parts)), this.#file);
      parts.push(this.#room.bytes.subarray(i * PART, i * PART + got));
    }
    return [];
  }

  [Symbol.dispose](): void {
    this.#calls[Symbol.dispose]();
    this.#room[Symbol.dispose]();
    close({ fd: this.#fd });
  }
}

/** Of a mapping that a fork leaves out: MADV_DONTFORK. */
const NOT_COPIED = 'dc';
/** Set by the kernel as memory is written to. */
const SOFT_DIRTY = 'sd';

function sameFlags(a: FlaggedVma, b: FlaggedVma): boolean {
  const flags = ({ flags }: FlaggedVma) => [...flags].filter((flag) => flag !== SOFT_DIRTY).join();
  return flags(a) === flags(b);
}

/** Whether a mapping may be what another one has become, by growing for instance. */
function isLike(a: Vma, b: Vma): boolean {
  return a.prot === b.prot && a.shared === b.shared && a.inode === b.inode && a.path === b.path;
}

function sizeOf(sizes: ReadonlyMap<string, number>): number {
  return (sizes.get('RssAnon') ?? 0) + (sizes.get('VmSwap') ?? 0);
}
