/**
 * What is known of large processes before they stop, so that they stand still for less time. The flags of mappings (smaps) and
 * which pages there are the kernel only tells by a walk through all page tables: 20 and 10 ms for 1 GiB. A process that goes on
 * with a snapshot is taken to have the flags that it had a moment before; when it goes on, its snapshot tells whether that is so,
 * and has the pages. Where it is not so, all is done once more in the slow way.
 *
 * A fork clears what locks mappings and what userfaultfd(2) watches: man 2 fork. So nothing is foreseen where something is
 * locked; what is watched is refused when it is looked at.
 */
import { type FlaggedVma, readFlaggedMaps, readMaps, type Vma } from '../sys/maps.ts';
import { readStatus } from '../sys/stat.ts';

/** Memory of a process from which on it is worth it, in bytes. */
const LARGE = 32 << 20;

export class Foresight {
  readonly #seen = new Map<number, readonly FlaggedVma[]>();
  readonly #used = new Map<number, readonly FlaggedVma[]>();

  /** Notes the mappings of a process while it runs. */
  note(pid: number, mappings: readonly FlaggedVma[]): void {
    this.#seen.set(pid, mappings);
  }

  /** The mappings of a process that has stopped, or undefined where their flags are not to be foreseen. */
  mappings(pid: number): readonly FlaggedVma[] | undefined {
    const before = this.#seen.get(pid);
    if (before === undefined) return undefined;
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
    return this.#used.has(pid) ? sizeOf(readStatus(pid).sizes) : undefined;
  }

  /**
   * Whether a process had the flags that it was taken to have.
   *
   * @param snapshot a copy of it, or its own id
   */
  wasRight(pid: number, snapshot: number): boolean {
    const used = this.#used.get(pid);
    if (used === undefined) return true;
    const there = new Map(readFlaggedMaps(snapshot).map((each) => [each.start, each]));
    return used.every((wanted) => {
      const found = there.get(wanted.start);
      if (found === undefined) return snapshot !== pid && wanted.flags.has(NOT_COPIED);
      return found.end === wanted.end && found.hugePage === wanted.hugePage && sameFlags(found, wanted);
    });
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
