/** The address space of one process made anew: mappings in their places, what is in them, and the kernel's own pages. */
import { NR } from '../abi/unistd.ts';
import { UnsupportedError } from '../errors.ts';
import * as area from '../image/messages/memory.ts';
import type { MemoryImage, VmaEntry } from '../image/pages.ts';
import type { ImageTask } from '../image/tree.ts';
import { restoreMm } from './mm.ts';
import { eachPart, fillMemory } from './pages.ts';
import type { Remote } from './remote.ts';
import type { Restoring } from './restoring.ts';
import type { Made } from './tree.ts';
import { OldVdso } from './vdso.ts';
import { finishVma, KERNEL_AREAS, restoreGuard, restoreUnplaced, restoreVma } from './vma.ts';

type Hole = { readonly address: number; readonly size: number };

/**
 * Mappings and what is in them.
 *
 * @param keep descriptor of ours that it has, see lend()
 * @param hole its scratch memory
 */
export function restoreSpace(
  { task, leader }: Made,
  image: MemoryImage,
  restoring: Restoring,
  keep: number,
  hole: Hole,
): void {
  const { mm } = task;
  const vmas = mm!.vmas.filter((vma) => (vma.status & (KERNEL_AREAS | area.VMA_AREA_GUARD)) === 0);
  const filled = new Set<VmaEntry>();
  const rings = vmas.filter((vma) => isRing(vma, restoring));
  placeRings(leader, rings, restoring, keep, hole);
  for (const vma of vmas) {
    if (rings.includes(vma)) continue;
    leader.reserve(3, 0);
    const { runs } = image;
    const first = runs.first(vma.start);
    if (first < runs.length && runs.vaddr[first]! < vma.end) filled.add(vma);
    const behind = behindOf(vma, restoring);
    if (behind === undefined) {
      restoreVma(leader, vma, -1, filled.has(vma));
      continue;
    }
    const lent = lend(leader, keep, behind);
    const mapped = restoreVma(leader, vma, 0, filled.has(vma));
    const closed = leader.call(NR.close, 0);
    leader.passResult(lent, mapped, 4);
    leader.passResult(lent, closed, 0);
  }
  leader.run();
  restoreContents(leader, task, image, hole);
  image.close();
  for (const vma of vmas) {
    leader.reserve(68, 0);
    finishVma(leader, vma, filled.has(vma));
  }
  for (const vma of mm!.vmas.filter(({ status }) => (status & area.VMA_AREA_GUARD) !== 0)) {
    leader.reserve(1, 0);
    restoreGuard(leader, vma);
  }
  leader.reserve(8, 8192);
  const lent = lend(leader, keep, restoring.open(mm!.exe_file_id));
  leader.run();
  restoreMm(leader, mm!, leader.result(lent));
  leader.run();
}

/** What is in the mappings, and the kernel's own ones, of which that is seen only then whether they are the same here. */
function restoreContents(leader: Remote, task: ImageTask, image: MemoryImage, hole: Hole): void {
  const vdso = new OldVdso(task);
  try {
    const fill = (to: number, from: number, length: number) => fillMemory(task.pid, to, from, length);
    eachPart(image, (to, from, length) => vdso.take(to, from, length, fill));
    vdso.place(leader, { start: hole.address, end: hole.address + hole.size });
  } finally {
    vdso[Symbol.dispose]();
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

/** While nothing else is there yet but the scratch memory. */
function placeRings(leader: Remote, rings: readonly VmaEntry[], restoring: Restoring, keep: number, hole: Hole): void {
  const occupied = [{ start: hole.address, end: hole.address + hole.size }];
  for (const vma of rings) {
    leader.run();
    const lent = lend(leader, keep, restoring.open(vma.shmid));
    const mapped = restoreUnplaced(leader, vma, occupied);
    const closed = leader.call(NR.close, 0);
    leader.passResult(lent, mapped, 4);
    leader.passResult(lent, closed, 0);
    leader.run();
    if (leader.result(mapped) !== vma.start) {
      throw new UnsupportedError({
        what: 'io_uring',
        pid: leader.scratch.pid,
        why: `the kernel does not map it at 0x${vma.start.toString(16)}`,
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

/**
 * Adds the call that brings a descriptor of ours into the process.
 *
 * @param keep descriptor in it that stands for this process
 * @returns its index, for passResult()
 */
export function lend(remote: Remote, keep: number, fd: number): number {
  return remote.call(NR.pidfd_getfd, keep, fd, 0);
}
