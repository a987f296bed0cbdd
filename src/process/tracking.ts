/**
 * What a process writes after an image was made of it, so that the next image has nothing else. Where the kernel has it
 * (Linux 6.7) by write protection that lifts itself and is told by PAGEMAP_SCAN: UFFD_FEATURE_WP_ASYNC, for memory in which a
 * userfaultfd of ours is registered. Elsewhere by the soft-dirty bits of /proc/PID/pagemap, which /proc/PID/clear_refs takes away:
 * Documentation/admin-guide/mm/{pagemap,soft-dirty}.rst.
 *
 * A page counts as unchanged only where the kernel says so of this very page in this very mapping. So memory that was mapped
 * anew or moved, a program that was executed and a process that was made since then are saved whole. What is watched is private
 * anonymous memory: of a mapping of a file, pages that are dropped show the file again, and the kernel does not tell them from
 * those that were not touched.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { Errno } from '../abi/errno.ts';
import { O_CLOEXEC } from '../abi/fcntl.ts';
import * as pm from '../abi/fs.ts';
import { KCMP_VM } from '../abi/kcmp.ts';
import { MAP_DROPPABLE, MAP_HUGETLB } from '../abi/mman.ts';
import { NR } from '../abi/unistd.ts';
import * as uffd from '../abi/userfaultfd.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { writeEntries } from '../image/file.ts';
import * as area from '../image/messages/memory.ts';
import { MemoryImage, PageRuns, type VmaEntry } from '../image/pages.ts';
import { type ImageDraft, type ImageStore, withSource } from '../image/store.ts';
import { entryOf } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { close } from '../sys/files.ts';
import { bootId } from '../sys/machine.ts';
import { Pagemap } from '../sys/pagemap.ts';
import { softDirty } from '../sys/probe/pages.ts';
import { kcmp, pidfd_getfd, pidfd_open } from '../sys/process.ts';
import { agree, openUserfaultfd, register, unprotect } from '../sys/userfaultfd.ts';
import { isGone } from './gone.ts';
import { type Memory, writePagemap } from './memory.ts';
import { findPages } from './pages.ts';
import type { Remote } from './remote.ts';
import { common, joined, NO_RUNS, RunList, type Runs, without } from './runs.ts';
import {
  endTracker,
  type FoundTracker,
  findTrackers,
  identify,
  makeTracker,
  type Tracked,
  type Tracker,
} from './tracker.ts';
import { KERNEL_AREAS } from './vma.ts';

/** How the kernel tells what was written. */
type Method = 'protection' | 'soft-dirty';

/** Whether the kernel tells what was written. */
export function tellsWrites(): boolean {
  return protectsByItself() || softDirty().answer === 'yes';
}

/** @throws UnsupportedError where it does not tell */
function methodHere(): Method {
  if (protectsByItself()) return 'protection';
  if (softDirty().answer === 'yes') return 'soft-dirty';
  throw new UnsupportedError({
    what: '--track-mem',
    why: 'this kernel does not tell what was written: it has neither asynchronous write protection nor soft-dirty bits',
    remedy: 'use Linux 6.7 or newer, or a kernel with CONFIG_MEM_SOFT_DIRTY=y',
  });
}

const FEATURES = uffd.UFFD_FEATURE_PAGEFAULT_FLAG_WP | uffd.UFFD_FEATURE_WP_ASYNC;

function protectsByItself(): boolean {
  try {
    close({ fd: openUserfaultfd(uffd.UFFD_USER_MODE_ONLY | O_CLOEXEC, FEATURES).fd });
    return true;
  } catch (error) {
    if (error instanceof SyscallError) return false;
    throw error;
  }
}

/** Whether what is written to a mapping can be told. */
function isWatched({ status, flags }: VmaEntry): boolean {
  return (
    (status & area.VMA_ANON_PRIVATE) !== 0 &&
    (status & (KERNEL_AREAS | area.VMA_ANON_SHARED)) === 0 &&
    (flags & (MAP_HUGETLB | MAP_DROPPABLE)) === 0
  );
}

/** What the kernel says of pages, and which of that says that one was not written. */
const UNCHANGED: Readonly<Record<Method, { readonly mask: number; readonly is: number }>> = {
  protection: { mask: pm.PAGE_IS_WRITTEN | pm.PAGE_IS_WPALLOWED, is: pm.PAGE_IS_WPALLOWED },
  'soft-dirty': { mask: pm.PAGE_IS_SOFT_DIRTY, is: 0 },
};

export interface TrackingOptions {
  /** The image that the new one is to build on. */
  readonly parent: ImageStore | undefined;
  /** Whether a later image is to build on the new one. */
  readonly goOn: boolean;
}

/** The watching of one tree, from an image to the next one. */
export class Tracking {
  readonly #pids: readonly number[];
  readonly #parent: ImageStore | undefined;
  /** Whether a later image is to build on the new one. */
  readonly goesOn: boolean;
  readonly #method: Method;
  /** Of the parent, by process: all pages that it has, for those that were watched since then. */
  readonly #before = new Map<number, Runs>();
  readonly #armed = new Map<number, number | undefined>();
  /** Of soft-dirty bits, which must be read before they are taken away. */
  readonly #divided = new Map<number, Runs>();
  #tracker: Tracker | undefined;
  #trackers: readonly FoundTracker[] | undefined;

  /**
   * @param pids the tree as it is now
   * @throws UnsupportedError where the kernel does not tell what was written, or nobody has watched since the parent was made
   */
  constructor(pids: readonly number[], { parent, goOn }: TrackingOptions) {
    this.#pids = pids;
    this.#parent = parent;
    this.goesOn = goOn;
    try {
      this.#method = goOn || parent !== undefined ? methodHere() : 'protection';
      if (parent !== undefined) this.#readParent(parent);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether a userfaultfd of ours is in the memory of a process. */
  watches(pid: number): boolean {
    return this.#found.some(({ watching }) =>
      [...watching.keys()].some((each) => each === pid || shareMemory(each, pid)),
    );
  }

  /** Whether nothing can be taken from the parent, although there is one. */
  get isLost(): boolean {
    return this.#parent !== undefined && this.#before.size === 0;
  }

  /** The pages of a stopped process: those to be saved, and those that are as they were when the parent was made. */
  divide(pid: number, vmas: readonly VmaEntry[]): { pages: Runs; unchanged: Runs } {
    const before = this.#before.get(pid);
    if (before === undefined) return { pages: findPages(pid, vmas).pages, unchanged: NO_RUNS };
    const { mask, is } = UNCHANGED[this.#method];
    const watched = new Set(vmas.filter(isWatched));
    const apart = {
      return_mask: mask,
      is: (categories: number, vma: VmaEntry) => (categories & mask) === is && watched.has(vma),
    };
    const found = findPages(pid, vmas, apart);
    const unchanged = common(found.apart, before);
    return { pages: joined(found.pages, without(found.apart, unchanged)), unchanged };
  }

  /**
   * Gets hold of a stopped process that is to be watched anew, where `goesOn`. No image that was made before can be built on any more.
   */
  enter(remote: Remote, vmas: readonly VmaEntry[]): void {
    const { pid } = remote.scratch;
    for (const tracker of this.#found) endTracker(tracker);
    if (this.#method === 'protection') {
      this.#armed.set(pid, vmas.some(isWatched) ? this.#userfaultfd(remote, vmas) : undefined);
      return;
    }
    this.#armed.set(pid, undefined);
    this.#divided.set(pid, this.divide(pid, vmas).unchanged);
    writeFileSync(`/proc/${pid}/clear_refs`, '4');
  }

  /**
   * Watches anew. The process may run.
   *
   * @returns pages that are in the parent as they are now, which may be there no more
   */
  restart(pid: number, vmas: readonly VmaEntry[]): Runs {
    const fd = this.#armed.get(pid);
    if (fd === undefined) return this.#divided.get(pid) ?? NO_RUNS;
    const [all, written] = [new RunList(), new RunList()];
    const pagemap = new Pagemap(pid);
    try {
      for (const vma of vmas.filter(isWatched)) {
        try {
          const known = this.#found.length > 0 && isProtected(pagemap, vma);
          register(fd, vma, uffd.UFFDIO_REGISTER_MODE_WP);
          // Before 6.13 a page that was moved may look protected and not be: commit 0cef0bb836e3.
          if (!known) unprotect(fd, vma);
          const found = pagemap.protectWritten(vma);
          all.add(vma.start, vma.end);
          for (let i = 0; i < found.length; i += 3) written.add(found[i]!, found[i + 1]!);
        } catch (error) {
          // Somebody else watches it, or it is gone: it is saved whole each time.
          if (!(error instanceof SyscallError)) throw error;
        }
      }
    } finally {
      pagemap[Symbol.dispose]();
    }
    return common(without(all.runs(), written.runs()), this.#before.get(pid) ?? NO_RUNS);
  }

  /**
   * Says in the image who watches.
   *
   * @param idOf gives the id of a process in the image @param memory all that the image has of processes, or its parent
   */
  write(
    draft: ImageDraft,
    idOf: (pid: number) => number,
    memory: readonly Pick<Memory, 'name' | 'runs' | 'unchanged'>[],
  ): void {
    // What a page server has is not asked for again.
    if (draft.sendsMemory) for (const each of memory) writePagemap(draft, each, 0, sentFile(each.name));
    const { tracker, tracked } = trackerOf([...this.#armed].map(([pid, fd]) => ({ pid, fd })));
    this.#tracker = tracker;
    writeEntries(draft.create(fileName(images.TRACKING)), images.TRACKING, [
      {
        tracker: tracker.self,
        boot_id: bootId(),
        tracked: tracked.map((each) => ({ ...each, id: idOf(each.pid) })),
      },
    ]);
  }

  /** The image is there: whoever holds what watches goes on without us. */
  committed(): void {
    this.#tracker?.letGo();
    this.#tracker = undefined;
  }

  [Symbol.dispose](): void {
    this.#tracker?.end();
    const found = (this.#trackers ?? []).flatMap(({ watching }) => [...watching.values()]);
    for (const fd of new Set([...this.#armed.values(), ...found])) if (fd !== undefined) close({ fd });
    this.#armed.clear();
    this.#trackers = undefined;
  }

  /** Looked for when they are asked for first. */
  get #found(): readonly FoundTracker[] {
    this.#trackers ??= findTrackers(new Set(this.#pids));
    return this.#trackers;
  }

  /** One in the memory of a process: the one that is there, or a new one. */
  #userfaultfd(remote: Remote, vmas: readonly VmaEntry[]): number | undefined {
    const { pid } = remote.scratch;
    const known = this.#found.flatMap(({ watching }) => watching.get(pid) ?? [])[0];
    if (known !== undefined && isOfItsMemory(known, vmas)) return known;
    let fd: number | undefined;
    remote.attempt(NR.userfaultfd, O_CLOEXEC | uffd.UFFD_USER_MODE_ONLY);
    remote.passResult(0, remote.attempt(NR.close, 0), 0);
    remote.runWithPause((targetfd) => {
      if (targetfd < 0) return;
      const pidfd = pidfd_open({ pid, flags: 0 });
      try {
        fd = pidfd_getfd({ pidfd, targetfd, flags: 0 });
      } finally {
        close({ fd: pidfd });
      }
    });
    if (fd === undefined) return undefined;
    try {
      agree(fd, FEATURES);
      return fd;
    } catch (error) {
      close({ fd });
      throw error;
    }
  }

  #readParent(parent: ImageStore): void {
    if (!parent.has(fileName(images.TRACKING))) return;
    const { tracker, boot_id, tracked } = entryOf(parent, images.TRACKING);
    if (boot_id !== bootId() || !this.#found.some(({ self }) => isSame(self, tracker))) return;
    for (const each of tracked) {
      const known = isThere(each) ? pagesIn(parent, each.id!) : undefined;
      if (known === undefined) continue;
      const { vaddr, size, length } = known;
      const runs = new RunList();
      for (let i = 0; i < length; i++) runs.add(vaddr[i]!, vaddr[i]! + size[i]!);
      this.#before.set(each.pid, runs.runs());
    }
  }
}

/** Of those processes that are there: of a pre-dump they run, and may end at any moment. */
function trackerOf(armed: Parameters<typeof makeTracker>[0]): { tracker: Tracker; tracked: Tracked[] } {
  for (let there = armed; ; ) {
    try {
      const tracked = there.map(({ pid }) => identify(pid));
      return { tracker: makeTracker(there), tracked };
    } catch (error) {
      const left = there.filter(({ pid }) => existsSync(`/proc/${pid}`));
      if (!isGone(error) || left.length === there.length) throw error;
      there = left;
    }
  }
}

/** Ends the watching of processes: no image can build on those that were made of them. */
export function stopWatching(pids: readonly number[]): void {
  for (const tracker of findTrackers(new Set(pids))) {
    endTracker(tracker);
    for (const fd of tracker.watching.values()) close({ fd });
  }
}

/** The pagemap of a process as a page server got it, with what stands in its parent. */
function sentFile(name: number | string): string {
  return `sent-pagemap-${name}.img`;
}

/** All pages that an image has of a process, or that a page server has beside it. */
function pagesIn(image: ImageStore, id: number): PageRuns | undefined {
  if (image.has(sentFile(id))) return withSource(image, sentFile(id), PageRuns.read);
  if (!image.has(fileName(images.PAGEMAP, id))) return undefined;
  const memory = new MemoryImage(image, id);
  memory.close();
  return memory.runs;
}

/** Whether a mapping was registered before: whether the first page that is there may be protected. */
function isProtected(pagemap: Pagemap, { start, end }: VmaEntry): boolean {
  const filter = {
    category_inverted: 0,
    category_mask: 0,
    category_anyof_mask: pm.PAGE_IS_PRESENT | pm.PAGE_IS_SWAPPED,
  };
  const found = pagemap.scan({ start, end, ...filter, return_mask: pm.PAGE_IS_WPALLOWED });
  return found.length > 0 && found[2] === pm.PAGE_IS_WPALLOWED;
}

/** Not that of a program that was executed since. */
function isOfItsMemory(fd: number, vmas: readonly VmaEntry[]): boolean {
  try {
    register(fd, vmas.find(isWatched)!, uffd.UFFDIO_REGISTER_MODE_WP);
    return true;
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return error.errno !== Errno.ESRCH;
  }
}

function shareMemory(pid1: number, pid2: number): boolean {
  return kcmp.attempt({ pid1, pid2, type: KCMP_VM, idx1: 0, idx2: 0 }) === 0;
}

function isSame(a: Tracked, b: Tracked): boolean {
  return a.pid === b.pid && a.starttime === b.starttime;
}

function isThere(process: Tracked): boolean {
  try {
    return isSame(identify(process.pid), process);
  } catch {
    return false;
  }
}
