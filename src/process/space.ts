/** The address space of one process made anew: mappings in their places, what is in them, and the kernel's own pages. */
import { MADV_DONTNEED, PROT_READ } from '../abi/mman.ts';
import { NR } from '../abi/unistd.ts';
import { UnsupportedError } from '../errors.ts';
import * as area from '../image/messages/memory.ts';
import { MemoryImage, type PageRuns, type VmaEntry } from '../image/pages.ts';
import type { ImageStore } from '../image/store.ts';
import type { ImageTask, MmEntry } from '../image/tree.ts';
import { acceptPages, acceptPlaces } from './acceptance.ts';
import { Copying } from './copying.ts';
import { eachPart, fillMemory, fillWhereOther } from './filling.ts';
import type { LazyMemory } from './lazy.ts';
import type { Made } from './made.ts';
import { restoreMm } from './mm.ts';
import { lend, type Remote } from './remote.ts';
import type { Restoring } from './restoring.ts';
import { RingPointers } from './ringpointers.ts';
import { isStray } from './sessions.ts';
import { firstWithMemory } from './sharing.ts';
import { attachSegments, segmentRanges } from './sysv.ts';
import { unmapBut } from './tree.ts';
import { OldVdso, type Range } from './vdso.ts';
import { finishVma, KERNEL_AREAS, restoreGuard, restorePlaced, restoreUnplaced, restoreVma, sealVma } from './vma.ts';

/** A range of memory that is not to be touched. */
interface Hole {
  readonly address: number;
  readonly size: number;
}

/**
 * All address spaces of a tree. A child is made of its parent when that has its memory, where both have pages at the same place in
 * the same mapping: those that have the same content are left as they are, so that parent and child share them until one of them
 * writes, as they did.
 */
export class Spaces {
  readonly #restoring: Restoring;
  readonly #store: ImageStore;
  readonly #keep: number;
  readonly #hole: Hole;
  readonly #lazy: LazyMemory | undefined;
  readonly #runs = new Map<ImageTask, PageRuns>();
  /** Those whose children have what they have. */
  readonly #inherited = new Set<ImageTask>();
  /** Those that have memory, their own or what is left to them of their parents', when their children are made. */
  readonly #full = new Set<ImageTask>();
  readonly #filled = new Map<ImageTask, Set<VmaEntry>>();
  readonly #toFill: (() => void)[] = [];
  /** What is put into those that were mapped so far, in bytes. */
  memory = 0;
  readonly #vdsos = new Map<ImageTask, Range>();
  /** The call that brings the program into the process. */
  readonly #programs = new Map<ImageTask, number>();

  /**
   * @param keep descriptor of ours that all processes have, see lend()
   * @param hole their scratch memory
   * @param lazy brings pages later, if they are to come so
   */
  constructor(restoring: Restoring, store: ImageStore, keep: number, hole: Hole, lazy?: LazyMemory) {
    this.#lazy = lazy;
    this.#restoring = restoring;
    this.#store = store;
    this.#keep = keep;
    this.#hole = hole;
  }

  /** Whether a process is to have its memory before its children are made. */
  isInherited(task: ImageTask): boolean {
    // What comes later cannot be compared.
    if (task.isZombie || this.#lazy !== undefined) return false;
    const { tasks } = this.#restoring.tree;
    const children = tasks.filter((each) => each.ppid === task.pid && !each.isZombie && !isStray(tasks, each));
    if (!children.some((child) => this.#inheritance(child, task).length > 0)) return false;
    this.#inherited.add(task);
    this.#full.add(firstWithMemory(tasks, task));
    return true;
  }

  /** Takes away what a process was made with, as a copy of its parent, and is not to have; before it has children of its own. */
  inherit({ task, leader }: Made): void {
    const { tasks } = this.#restoring.tree;
    const parent = this.#parentOf(task);
    const maker = tasks.find(({ pid }) => pid === task.ppid);
    const full = isStray(tasks, task) || (maker !== undefined && this.#full.has(firstWithMemory(tasks, maker)));
    if (!full || firstWithMemory(tasks, task) !== task) return;
    const kept = task.isZombie || parent === undefined ? [] : this.#inheritance(task, parent);
    if (kept.length > 0) this.#full.add(task);
    unmapBut(leader, [this.#hole, ...kept.map(({ start, end }) => ({ address: start, size: end - start }))]);
    leader.start();
  }

  /** The parent of a process that was made by its parent when that had its memory. */
  #parentOf(task: ImageTask): ImageTask | undefined {
    const { tasks } = this.#restoring.tree;
    if (isStray(tasks, task)) return undefined;
    const parent = tasks.find(({ pid }) => pid === task.ppid);
    return parent !== undefined && this.#inherited.has(parent) ? parent : undefined;
  }

  /** Begins to make the mappings of a process. What is in them is put there by fill(). */
  map({ task, leader }: Made): void {
    const { tree } = this.#restoring;
    if (firstWithMemory(tree.tasks, task) !== task) return;
    const mm = task.mm!;
    const parent = this.#parentOf(task);
    const inherited = parent === undefined ? [] : this.#inheritance(task, parent);
    const image = new MemoryImage(this.#store, task.pid);
    const { runs } = image;
    if (this.#lazy === undefined) acceptPages(runs, task.pid);
    acceptPlaces(runs, task);
    if (this.#lazy === undefined) this.memory += runs.pagesSize;
    const filled = new Set<VmaEntry>(inherited);
    this.#filled.set(task, filled);
    const vmas = ownVmas(mm).filter((vma) => !filled.has(vma));
    const rings = vmas.filter((vma) => isRing(vma, this.#restoring));
    const { address, size } = this.#hole;
    placeRings(leader, rings, this.#restoring, this.#keep, [{ start: address, end: address + size }, ...inherited]);
    attachSegments(leader, vmas, this.#restoring);
    for (const vma of vmas) {
      if (rings.includes(vma) || (vma.status & area.VMA_AREA_SYSVIPC) !== 0) continue;
      leader.reserve(3, 0);
      if (runs.hasSome(vma.start, vma.end)) filled.add(vma);
      const behind = behindOf(vma, this.#restoring);
      if (behind === undefined) {
        restoreVma(leader, vma, -1, filled.has(vma));
        continue;
      }
      const lent = lend(leader, this.#keep, behind);
      const mapped = restoreVma(leader, vma, 0, filled.has(vma));
      const closed = leader.call(NR.close, 0);
      leader.passResult(lent, mapped, 4);
      leader.passResult(lent, closed, 0);
    }
    if (inherited.length > 0) forget(leader, inherited, this.#runs.get(parent!)!, runs);
    leader.start();
    this.#toFill.push(() => {
      leader.finish();
      this.#fillPages(leader, task, image, inherited, parent);
      image.close();
    });
  }

  /** Puts the contents into all mappings that were made, in their order. */
  fill(): void {
    for (const action of this.#toFill.splice(0)) action();
  }

  /** What would be in the way of filling: protection, advice, locks, guards. */
  protect({ task, leader }: Made): void {
    const filled = this.#filled.get(task);
    if (filled === undefined) return;
    const mm = task.mm!;
    for (const vma of ownVmas(mm)) {
      leader.reserve(72, 256);
      finishVma(leader, vma, filled.has(vma));
    }
    for (const vma of mm.vmas.filter(({ status }) => (status & area.VMA_AREA_GUARD) !== 0)) {
      leader.reserve(1, 0);
      restoreGuard(leader, vma);
    }
    for (const vma of ownVmas(mm)) {
      leader.reserve(1, 0);
      sealVma(leader, vma);
    }
    leader.reserve(1, 0);
    this.#programs.set(task, lend(leader, this.#keep, this.#restoring.open(mm.exe_file_id)));
    leader.start();
  }

  /** Where the vdso of a filled process is; undefined where it has none. */
  vdsoOf(task: ImageTask): Range | undefined {
    return this.#vdsos.get(task);
  }

  /** The address space as a whole. */
  finish({ task, leader }: Made): void {
    const lent = this.#programs.get(task);
    if (lent === undefined) return;
    restoreMm(leader, task.mm!, leader.result(lent));
    leader.start();
  }

  /** What is in the mappings, and the kernel's own ones, of which that is seen only then whether they are the same here. */
  #fillPages(
    leader: Remote,
    task: ImageTask,
    image: MemoryImage,
    inherited: readonly VmaEntry[],
    parent: ImageTask | undefined,
  ): void {
    const { address, size } = this.#hole;
    const there = parent && this.#runs.get(parent);
    const had = (at: number) =>
      there!.hasSome(at, at + 1) && inherited.some(({ start, end }) => at >= start && at < end);
    const vdso = new OldVdso(task);
    const { pid } = leader.scratch;
    const later = this.#lazy?.register(leader, task, image.runs);
    const isEmpty = inherited.length === 0 && later === undefined;
    const pointers = this.#pointers(task);
    const copying = isEmpty ? Copying.into(leader, ownVmas(task.mm!), image.runs) : undefined;
    const fill = (to: number, from: number, length: number): void => {
      if (copying !== undefined) copying.fill(to, from, length);
      else if (inherited.length > 0) fillWhereOther(pid, to, from, length, had);
      else fillMemory(pid, to, from, length);
    };
    try {
      const take = (to: number, from: number, length: number): void => {
        pointers.take(from, length);
        vdso.take(to, from, length, fill);
      };
      eachPart(image, take, later);
      for (const each of this.#restoring.tree.tasks) {
        if (firstWithMemory(this.#restoring.tree.tasks, each) === task) pointers.moveRegisters(each);
      }
      pointers.demandFound(later !== undefined);
      const placed = vdso.place(leader, { start: address, end: address + size });
      if (placed !== undefined) this.#vdsos.set(task, placed);
    } finally {
      copying?.[Symbol.dispose]();
      vdso[Symbol.dispose]();
    }
  }

  #pointers(task: ImageTask): RingPointers {
    const rings = ownVmas(task.mm!).filter((vma) => isRing(vma, this.#restoring));
    return new RingPointers(
      task.pid,
      rings.map(({ start, end, pgoff, shmid }) => ({ ...this.#restoring.ring(shmid), start, end, pgoff })),
    );
  }

  #runsOf(task: ImageTask): PageRuns {
    let runs = this.#runs.get(task);
    if (runs === undefined) {
      const image = new MemoryImage(this.#store, firstWithMemory(this.#restoring.tree.tasks, task).pid);
      runs = image.runs;
      image.close();
      this.#runs.set(task, runs);
    }
    return runs;
  }

  /** Mappings of a child that it may have from its parent: the same in both, and with pages in both. */
  #inheritance(child: ImageTask, parent: ImageTask): VmaEntry[] {
    const theirs = new Map(ownVmas(parent.mm!).map((vma) => [vma.start, vma]));
    const [mine, other] = [this.#runsOf(child), this.#runsOf(parent)];
    const inTheWay = segmentRanges(child.mm!.vmas, this.#restoring);
    return ownVmas(child.mm!).filter((vma) => {
      const there = theirs.get(vma.start);
      return (
        there !== undefined &&
        INHERITED.every((name) => vma[name] === there[name]) &&
        (vma.status & (area.VMA_ANON_PRIVATE | area.VMA_FILE_PRIVATE)) !== 0 &&
        // What cannot be read cannot be compared.
        (vma.prot & there.prot & PROT_READ) !== 0 &&
        !inTheWay.some(({ start, end }) => vma.start < end && vma.end > start) &&
        mine.hasSome(vma.start, vma.end) &&
        other.hasSome(vma.start, vma.end)
      );
    });
  }
}

const INHERITED = ['end', 'pgoff', 'shmid', 'flags', 'status'] as const;

function ownVmas(mm: MmEntry): VmaEntry[] {
  return mm.vmas.filter((vma) => (vma.status & (KERNEL_AREAS | area.VMA_AREA_GUARD)) === 0);
}

/** Adds the calls that drop pages that a child had from its parent and has not in the image. */
function forget(remote: Remote, vmas: readonly VmaEntry[], had: PageRuns, has: PageRuns): void {
  for (const { start, end } of vmas) {
    for (let i = had.first(start); i < had.length && had.vaddr[i]! < end; i++) {
      let at = Math.max(start, had.vaddr[i]!);
      const stop = Math.min(end, had.vaddr[i]! + had.size[i]!);
      for (let j = has.first(at); at < stop; j++) {
        const next = j < has.length ? Math.min(stop, Math.max(at, has.vaddr[j]!)) : stop;
        remote.reserve(1, 0);
        if (next > at) remote.call(NR.madvise, at, next - at, MADV_DONTNEED);
        at = j < has.length ? Math.max(next, Math.min(stop, has.vaddr[j]! + has.size[j]!)) : stop;
      }
    }
  }
}

/** The file behind a mapping, if any. */
export function fileOf(vma: VmaEntry): number | undefined {
  return (vma.status & (area.VMA_FILE_PRIVATE | area.VMA_FILE_SHARED)) === 0 ? undefined : vma.shmid;
}

function isRing(vma: VmaEntry, restoring: Restoring): boolean {
  const file = fileOf(vma);
  return file !== undefined && restoring.entry(file).type === 'EXT';
}

/** @param there what is in the memory already */
function placeRings(
  leader: Remote,
  rings: readonly VmaEntry[],
  restoring: Restoring,
  keep: number,
  there: readonly { start: number; end: number }[],
): void {
  const occupied = [...there];
  for (const vma of rings) {
    const map = (how: () => number): number => {
      leader.run();
      const lent = lend(leader, keep, restoring.open(vma.shmid));
      const mapped = how();
      const closed = leader.call(NR.close, 0);
      leader.passResult(lent, mapped, 4);
      leader.passResult(lent, closed, 0);
      leader.run();
      return leader.result(mapped);
    };
    // Kernels in which rings choose no place of their own yet, as 6.1, take an address.
    let at = map(() => restorePlaced(leader, vma));
    if (at !== vma.start) at = map(() => restoreUnplaced(leader, vma, occupied));
    if (at !== vma.start) {
      throw new UnsupportedError({
        what: 'io_uring',
        pid: leader.scratch.pid,
        why: `the kernel maps it at 0x${at.toString(16)}, not at 0x${vma.start.toString(16)}`,
        remedy: 'report it, with the kernel',
      });
    }
    occupied.push(vma);
  }
}

/** A descriptor of ours for what a mapping shows, or undefined for memory of its own. */
function behindOf(vma: VmaEntry, restoring: Restoring): number | undefined {
  if ((vma.status & area.VMA_ANON_SHARED) !== 0) return restoring.shared(vma.shmid);
  return fileOf(vma) === undefined ? undefined : restoring.open(vma.shmid);
}
