/**
 * What is known of processes before they stop, so that they stand still for less time. The flags of mappings (smaps) and which pages
 * there are the kernel only tells by a walk through all page tables: 20 and 10 ms for 1 GiB, and 0.5 for the 30 mappings of a small
 * program, of 4 in all. A process is taken to have the flags that it had a moment before. Of a large one that goes on with a
 * snapshot, the snapshot tells afterwards whether that is so, and has the pages; of those that end another thread asks while they are
 * saved. Where it is not so, all is done once more in the slow way.
 *
 * A fork clears what locks mappings and what userfaultfd(2) watches: man 2 fork. So nothing is foreseen where something is
 * locked; what is watched is refused when it is looked at.
 */
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import { textOf } from '../abi/text.ts';
import { NR } from '../abi/unistd.ts';
import { close, openat, read } from '../sys/files.ts';
import { type FlaggedVma, parseFlaggedMaps, readFlaggedMaps, readMaps, type Vma } from '../sys/maps.ts';
import { descriptorLimit } from '../sys/process.ts';
import { Region } from '../sys/region.ts';
import { readStatus } from '../sys/stat.ts';
import { Background } from './background.ts';

/** Memory of a process from which on a walk through its page tables takes long, in bytes. */
const LARGE = 32 << 20;
/** Mappings of a process that another thread asks for at most. */
const MOST_ASKED = 2048;

/** Of which processes something is foreseen. */
export type Foreseen = 'small' | 'large';

export class Foresight {
  readonly #pagesToo: boolean;
  readonly #foreseen: readonly Foreseen[];
  readonly #seen = new Map<number, readonly FlaggedVma[]>();
  readonly #used = new Map<Foreseen, Map<number, readonly FlaggedVma[]>>([
    ['small', new Map()],
    ['large', new Map()],
  ]);
  readonly #asked = new Map<Foreseen, AskedMaps>();

  private constructor(pagesToo: boolean, foreseen: readonly Foreseen[]) {
    this.#pagesToo = pagesToo;
    this.#foreseen = foreseen;
  }

  /** Of processes that go on: snapshots of large ones will tell which pages there are, and whether their flags were right. */
  static bySnapshots(): Foresight {
    return new Foresight(true, ['large']);
  }

  /** Of processes that end, by another thread. */
  static byAsking(...foreseen: Foreseen[]): Foresight {
    return new Foresight(false, foreseen);
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
    const size = sizeOf(sizes) < LARGE ? 'small' : 'large';
    if (!this.#foreseen.includes(size) || sizes.get('VmLck') !== 0) return undefined;
    const found: FlaggedVma[] = [];
    for (const now of readMaps(pid)) {
      const then = before.find((each) => each.start < now.end && each.end > now.start && isLike(each, now));
      if (then === undefined) return undefined;
      const { flags, hugePage } = then;
      found.push(hugePage === undefined ? { ...now, flags } : { ...now, flags, hugePage });
    }
    this.#used.get(size)!.set(pid, found);
    return found;
  }

  /** How much memory a process has whose pages are still to be found, more or less, in bytes; or undefined for others. */
  sizeOf(pid: number): number | undefined {
    return this.#pagesToo && this.#used.get('large')!.has(pid) ? sizeOf(readStatus(pid).sizes) : undefined;
  }

  /**
   * Whether a process had the flags that it was taken to have, where snapshots tell that.
   *
   * @param snapshot a copy of it, or its own id
   */
  wasRight(pid: number, snapshot: number): boolean {
    const wanted = this.#used.get('large')!.get(pid);
    return !this.#pagesToo || wanted === undefined || isAs(wanted, readFlaggedMaps(snapshot), snapshot !== pid);
  }

  /** Gets room for the answers, which takes longer than asking. When all are noted that will be asked for, before they stop. */
  prepare(): void {
    if (this.#pagesToo) return;
    const parts = [...this.#seen.values()].reduce((sum, mappings) => sum + partsOf(mappings), 0);
    if (parts > MOST_PARTS || this.#seen.size > descriptorLimit() / 8) this.#seen.clear();
    else for (const size of this.#foreseen) this.#asked.set(size, new AskedMaps(parts));
  }

  /** Begins to ask for the flags of those that were foreseen, where no snapshots tell them. They do not go on before wereRight(). */
  ask(size: Foreseen): void {
    const used = this.#used.get(size)!;
    if (used.size > 0) this.#asked.get(size)?.ask(used);
  }

  /** Whether all that was asked for is as it was foreseen. */
  wereRight(size: Foreseen): boolean {
    const answers = this.#asked.get(size)?.answers() ?? [];
    return answers.every(([pid, found]) => isAs(this.#used.get(size)!.get(pid)!, found, false));
  }

  [Symbol.dispose](): void {
    for (const asked of this.#asked.values()) asked[Symbol.dispose]();
    this.#asked.clear();
  }
}

/** A read of /proc gives whole lines of one page at a time, or the one entry that is larger. */
const PART = 8 << 10;
/** Of all processes together. */
const MOST_PARTS = 16384;
/** What stands of a mapping in smaps, without its path, in bytes. */
const ENTRY = 800;

/** How many reads the mappings take, of which each gives half a page at least; and some, should there be more by then. */
function partsOf(mappings: readonly FlaggedVma[]): number {
  const size = mappings.reduce((sum, { path }) => sum + ENTRY + 2 * path.length, 0);
  return Math.ceil(size / 2048) + 4;
}

interface AskedFile {
  readonly pid: number;
  readonly file: string;
  readonly fd: number;
  /** The calls that read it: the first, and how many. */
  readonly first: number;
  readonly count: number;
}

/**
 * Room that nobody uses. What is new counts as memory of JavaScript's own, which it begins to tidy up after so many MiB: 10 ms, at any
 * moment.
 */
const spare: Region[] = [];

function takeRoom(size: number): Region {
  const fitting = spare.findIndex((each) => each.size >= size);
  return fitting < 0 ? new Region(size) : spare.splice(fitting, 1)[0]!;
}

function leaveRoom(room: Region): void {
  if (spare.length < 2 && room.size <= MOST_SPARE) spare.push(room);
  else room[Symbol.dispose]();
}

/** In bytes. */
const MOST_SPARE = 16 << 20;

/** The mappings of processes as another thread reads them. */
class AskedMaps {
  readonly #parts: number;
  readonly #room: Region;
  readonly #calls: Background;
  readonly #files: AskedFile[] = [];

  /** @param parts how many reads there can be */
  constructor(parts: number) {
    this.#parts = parts;
    this.#room = takeRoom(parts * PART);
    this.#calls = new Background(parts);
  }

  /** @param expected by process id, what there is more or less */
  ask(expected: ReadonlyMap<number, readonly FlaggedVma[]>): void {
    let next = 0;
    for (const [pid, mappings] of expected) {
      const file = `/proc/${pid}/smaps`;
      const fd = openat({ dirfd: AT_FDCWD, pathname: file, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
      const [first, count] = [next, Math.min(partsOf(mappings), this.#parts - next)];
      this.#files.push({ pid, file, fd, first, count });
      for (next = first; next < first + count; next++) this.#calls.add(NR.read, fd, this.#bufferOf(next), PART);
    }
    this.#calls.start();
  }

  /** Waits for them. @returns by process id; nothing of one for which the reads were too few @throws FormatError, SyscallError */
  answers(): [pid: number, mappings: readonly FlaggedVma[]][] {
    this.#calls.wait();
    return this.#files.map((asked) => [asked.pid, this.#answer(asked)]);
  }

  #answer({ file, fd, first, count }: AskedFile): FlaggedVma[] {
    const parts: Uint8Array[] = [];
    for (let index = first; index < first + count; index++) {
      const got = this.#calls.result(index);
      if (got < 0) throw read.error({ fd, buf: this.#bufferOf(index), count: PART }, got);
      if (got === 0) return parseFlaggedMaps(textOf(Buffer.concat(parts)), file);
      parts.push(this.#room.bytes.subarray(index * PART, index * PART + got));
    }
    return [];
  }

  #bufferOf(index: number): number {
    return this.#room.address + index * PART;
  }

  [Symbol.dispose](): void {
    this.#calls[Symbol.dispose]();
    leaveRoom(this.#room);
    for (const { fd } of this.#files) close({ fd });
  }
}

/** @param forked whether it was found in a copy */
function isAs(wanted: readonly FlaggedVma[], found: readonly FlaggedVma[], forked: boolean): boolean {
  const there = new Map(found.map((each) => [each.start, each]));
  return wanted.every((each) => {
    const now = there.get(each.start);
    if (now === undefined) return forked && each.flags.has(NOT_COPIED);
    return now.end === each.end && now.hugePage === each.hugePage && sameFlags(now, each);
  });
}

/** Of a mapping that a fork leaves out: MADV_DONTFORK. */
const NOT_COPIED = 'dc';
/** Set by the kernel as memory is written to. */
const SOFT_DIRTY = 'sd';

function sameFlags(a: FlaggedVma, b: FlaggedVma): boolean {
  if (a.flags === b.flags) return true;
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
