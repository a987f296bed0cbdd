/** The address space of one process made anew: mappings in their places, what is in them, and the kernel's own pages. */
import { ARCH_MAP_VDSO_64 } from '../abi/prctl.ts';
import { NR } from '../abi/unistd.ts';
import { UnsupportedError } from '../errors.ts';
import * as area from '../image/messages/memory.ts';
import type { MemoryImage, VmaEntry } from '../image/pages.ts';
import { readMaps } from '../sys/maps.ts';
import { viewMemory } from '../sys/syscall.ts';
import { restoreMm } from './mm.ts';
import { eachPart, fillMemory } from './pages.ts';
import type { Remote } from './remote.ts';
import type { Restoring } from './restoring.ts';
import type { Made } from './tree.ts';
import { finishVma, KERNEL_AREAS, restoreGuard, restoreUnplaced, restoreVma } from './vma.ts';

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
  hole: { address: number; size: number },
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
  placeVdso(leader, mm!.vmas);
  leader.run();
  eachPart(image, (to, from, length) => {
    const kernels = mm!.vmas.find((vma) => to >= vma.start && to < vma.end);
    if (kernels !== undefined && (kernels.status & KERNEL_AREAS) !== 0) checkVdso(task.pid, kernels, to, from, length);
    else fillMemory(task.pid, to, from, length);
  });
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

/** The file behind a mapping, if any. */
export function fileOf(vma: VmaEntry): number | undefined {
  return (vma.status & (area.VMA_FILE_PRIVATE | area.VMA_FILE_SHARED)) === 0 ? undefined : vma.shmid;
}

function isRing(vma: VmaEntry, restoring: Restoring): boolean {
  const file = fileOf(vma);
  return file !== undefined && restoring.entry(file).type === 'EXT';
}

/** While nothing else is there yet but the scratch memory. */
function placeRings(
  leader: Remote,
  rings: readonly VmaEntry[],
  restoring: Restoring,
  keep: number,
  hole: { address: number; size: number },
): void {
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

/** The kernel's own pages are its own: it maps them where they were. */
function placeVdso(remote: Remote, vmas: readonly VmaEntry[]): void {
  const places = vmas.filter((vma) => (vma.status & (area.VMA_AREA_VDSO | area.VMA_AREA_VVAR)) !== 0);
  if (places.length === 0) return;
  remote.reserve(1, 0);
  remote.call(NR.arch_prctl, ARCH_MAP_VDSO_64, Math.min(...places.map(({ start }) => start)));
}

/**
 * Programs have addresses of functions in the vdso, and libraries keep them: it must be as it was.
 *
 * @param from where a part of the old one lies here, which was at `to` in the process
 */
function checkVdso(pid: number, vdso: VmaEntry, to: number, from: number, length: number): void {
  const here = readMaps('self').find(({ path }) => path === '[vdso]')!;
  const same =
    here.end - here.start === vdso.end - vdso.start &&
    Buffer.compare(viewMemory(from, length), viewMemory(here.start + to - vdso.start, length)) === 0;
  if (same) return;
  throw new UnsupportedError({
    what: 'vdso',
    pid,
    why: 'that of this kernel is another one, and calls cannot be led over to it yet',
    remedy: 'restore on the kernel on which the image was made',
  });
}
