/** Which pages of a process are to be kept. */
import { PAGE_IS_FILE, PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGE_IS_SWAPPED } from '../abi/fs.ts';
import { VMA_ANON_PRIVATE, VMA_AREA_GUARD, VMA_AREA_VDSO } from '../image/messages/memory.ts';
import type { VmaEntry } from '../image/pages.ts';
import { Pagemap } from '../sys/pagemap.ts';
import { RunList, type Runs } from './runs.ts';
import { hasPages } from './vma.ts';

/** Which of the pages that are found are to be told apart. */
export interface Apart {
  readonly return_mask: number;
  /** @param categories those of return_mask that a page has */
  is(categories: number, vma: VmaEntry): boolean;
}

/**
 * Finds the pages that belong to a process and to nothing else: of private mappings, anonymous or copied on write. Pages of
 * zeros that were only read are left out.
 *
 * @returns those that are apart, and all others
 */
export function findPages(pid: number, vmas: readonly VmaEntry[], apart?: Apart): { pages: Runs; apart: Runs } {
  const [found, others] = [new RunList(), new RunList()];
  // A guarded page counts as one that is swapped out, and cannot be read.
  const guards = vmas.filter(({ status }) => (status & VMA_AREA_GUARD) !== 0);
  const add = (list: RunList, start: number, end: number): void => {
    if (start >= end) return;
    const guard = guards.find((each) => each.start < end && each.end > start);
    if (guard !== undefined) {
      add(list, start, guard.start);
      add(list, guard.end, end);
    } else list.add(start, end);
  };
  const kept = vmas.filter(hasPages);
  const pagemap = new Pagemap(pid);
  try {
    for (const { vmas: group, absent } of groupsOf(kept)) {
      const scanned = pagemap.scan(
        {
          start: group[0]!.start,
          end: group.at(-1)!.end,
          category_inverted: absent,
          category_mask: absent,
          category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
          return_mask: apart?.return_mask ?? 0,
        },
        group,
      );
      let at = 0;
      for (const vma of group) {
        // Programs read the vdso's symbols, and whoever restores compares it with his own.
        if ((vma.status & VMA_AREA_VDSO) !== 0) {
          add(found, vma.start, vma.end);
          continue;
        }
        while (at < scanned.length && scanned[at + 1]! <= vma.start) at += 3;
        for (let i = at; i < scanned.length && scanned[i]! < vma.end; i += 3) {
          const list = apart?.is(scanned[i + 2]!, vma) ? others : found;
          add(list, Math.max(scanned[i]!, vma.start), Math.min(scanned[i + 1]!, vma.end));
        }
      }
    }
  } finally {
    pagemap[Symbol.dispose]();
  }
  return { pages: found.runs(), apart: others.runs() };
}

/**
 * Mappings that are looked through at once, and which pages of them are not meant. That a page is a file's is not asked of memory
 * without one: the kernel looks at each page's own record for it.
 */
function groupsOf(vmas: readonly VmaEntry[]): { readonly vmas: VmaEntry[]; readonly absent: number }[] {
  const groups: { vmas: VmaEntry[]; absent: number }[] = [];
  for (const vma of vmas) {
    const absent = (vma.status & VMA_ANON_PRIVATE) === 0 ? PAGE_IS_FILE | PAGE_IS_PFNZERO : PAGE_IS_PFNZERO;
    const last = groups.at(-1);
    if (last?.absent === absent) last.vmas.push(vma);
    else groups.push({ vmas: [vma], absent });
  }
  return groups;
}
