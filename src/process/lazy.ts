/**
 * Restoring without waiting for memory: mappings are registered with a userfaultfd (userfaultfd(2)) and left empty, and another
 * process (lazypages.ts) puts pages there when they are touched, and all others meanwhile.
 *
 *     this process                                             that one
 *     mappings, userfaultfd ------- who and where -----------> takes the userfaultfds, has a guard
 *     goes on when it hears  <------------ ready -------------
 */
import { readSync, writeSync } from 'node:fs';
import { O_CLOEXEC, O_NONBLOCK } from '../abi/fcntl.ts';
import { MAP_DROPPABLE, MAP_GROWSDOWN, MAP_HUGETLB, MAP_LOCKED } from '../abi/mman.ts';
import { NR } from '../abi/unistd.ts';
import * as uffd from '../abi/userfaultfd.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import * as area from '../image/messages/memory.ts';
import type { PageRuns, VmaEntry } from '../image/pages.ts';
import type { ImageTask } from '../image/tree.ts';
import { close } from '../sys/files.ts';
import { pidfd_getfd, pidfd_open } from '../sys/process.ts';
import { agree, register } from '../sys/userfaultfd.ts';
import type { Remote } from './remote.ts';
import { NO_RUNS, RunList, type Runs } from './runs.ts';
import { KERNEL_AREAS } from './vma.ts';

/** An address space whose pages come later. */
export interface LazySpace {
  /** In the image. */
  readonly id: number;
  readonly pid: number;
  /** Userfaultfd, a descriptor of whoever restores. */
  readonly fd: number;
  readonly ranges: readonly (readonly [start: number, end: number])[];
}

/** What the other process is told, as one line of JSON. */
export interface LazyRequest {
  /** Who restores. */
  readonly pid: number;
  readonly spaces: readonly LazySpace[];
}

/** What it answers. */
export const READY = 'ready\n';

/** Forks inherit what is not there yet, and pages are moved, dropped and unmapped before they are. */
const FEATURES =
  uffd.UFFD_FEATURE_EVENT_FORK |
  uffd.UFFD_FEATURE_EVENT_REMAP |
  uffd.UFFD_FEATURE_EVENT_REMOVE |
  uffd.UFFD_FEATURE_EVENT_UNMAP;

/** Private memory that nothing but the process itself is to fill. */
export function mayComeLater(
  vma: VmaEntry,
  { vmas, lock_future }: { readonly vmas: readonly VmaEntry[]; readonly lock_future?: number | undefined },
): boolean {
  const { status, flags, start, end } = vma;
  return (
    (status & area.VMA_ANON_PRIVATE) !== 0 &&
    (status & (KERNEL_AREAS | area.VMA_ANON_SHARED)) === 0 &&
    (flags & (MAP_HUGETLB | MAP_DROPPABLE | MAP_LOCKED | MAP_GROWSDOWN)) === 0 &&
    lock_future === undefined &&
    !vmas.some((each) => (each.status & area.VMA_AREA_GUARD) !== 0 && each.start < end && each.end > start)
  );
}

/** @throws UnsupportedError where pages that are not in the image are in none of these mappings */
function refuseElsewhere(runs: PageRuns, later: Runs, pid: number): void {
  const { bounds } = later;
  for (let i = 0, j = 0; i < runs.length; i++) {
    if ((runs.flags[i]! & area.PE_PRESENT) !== 0) continue;
    const [start, end] = [runs.vaddr[i]!, runs.vaddr[i]! + runs.size[i]!];
    while (j < bounds.length && bounds[j + 1]! <= start) j += 2;
    if (j < bounds.length && bounds[j]! <= start && bounds[j + 1]! >= end) continue;
    throw new UnsupportedError({
      what: `pages at 0x${start.toString(16)}`,
      pid,
      why: 'a page server has them, and they are of memory that must be there from the beginning (a stack, as a rule)',
      remedy: 'make the image by tideover checkpoint --lazy-pages, or restore it with CRIU',
    });
  }
}

export class LazyMemory {
  readonly #fd: number;
  readonly #spaces: LazySpace[] = [];

  /** @param fd a socket to the process that is to bring the pages */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Registers mappings that were made, in a process that is being restored. @returns what is not to be filled */
  register(leader: Remote, task: ImageTask, runs: PageRuns): Runs {
    const later = new RunList();
    const vmas = task.mm!.vmas.filter((vma) => mayComeLater(vma, task.mm!) && runs.hasSome(vma.start, vma.end));
    for (const vma of vmas) later.add(vma.start, vma.end);
    refuseElsewhere(runs, later.runs(), task.pid);
    if (vmas.length === 0) return NO_RUNS;
    const { pid } = leader.scratch;
    const made = leader.call(NR.userfaultfd, O_CLOEXEC | O_NONBLOCK);
    leader.run();
    const targetfd = leader.result(made);
    const pidfd = pidfd_open({ pid, flags: 0 });
    try {
      const fd = pidfd_getfd({ pidfd, targetfd, flags: 0 });
      const ranges = vmas.map(({ start, end }) => [start, end] as const);
      this.#spaces.push({ id: task.pid, pid, fd, ranges });
      agree(fd, FEATURES);
      for (const vma of vmas) {
        register(fd, vma, uffd.UFFDIO_REGISTER_MODE_MISSING);
      }
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw new UnsupportedError({
        what: '--lazy-pages',
        pid,
        why: `${error.message}: the kernel does not have missing pages brought, or not to us`,
        remedy: 'restore without it, or as root (CAP_SYS_PTRACE) on a kernel with CONFIG_USERFAULTFD=y',
      });
    } finally {
      close({ fd: pidfd });
    }
    leader.call(NR.close, targetfd);
    leader.run();
    return later.runs();
  }

  /** Hands all over. From then on memory may be touched. @throws UnsupportedError where the other process is not there */
  handOver(): void {
    const request: LazyRequest = { pid: process.pid, spaces: this.#spaces };
    const answer = Buffer.alloc(READY.length);
    let why = 'it closed the connection';
    try {
      const text = Buffer.from(`${JSON.stringify(request)}\n`);
      for (let done = 0; done < text.length; ) done += writeSync(this.#fd, text, done);
      for (let done = 0; done < answer.length; ) {
        const got = readSync(this.#fd, answer, done, answer.length - done, null);
        if (got === 0) break;
        done += got;
      }
    } catch (error) {
      why = (error as Error).message;
    }
    this[Symbol.dispose]();
    if (answer.toString() === READY) return;
    throw new UnsupportedError({
      what: '--lazy-pages',
      why: `the process that is to bring the pages did not take them over (${why}; see lazy-pages.log)`,
      remedy: 'restore without it',
    });
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#spaces.splice(0)) close({ fd });
  }
}
