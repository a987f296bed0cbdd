/** How memory was used, by the kernel's own counters: mm/vmstat.c. In pages. */
import { BTF_KIND_ENUM, BTF_KIND_ENUM64 } from './btf.ts';
import type { Kernel } from './kernel.ts';

export interface MemoryUsage {
  readonly total: number;
  readonly free: number;
  /** Page cache, with buffers and shared memory. */
  readonly file: number;
  readonly shmem: number;
  readonly anon: number;
  readonly mapped: number;
  readonly slabReclaimable: number;
  readonly slabUnreclaimable: number;
  readonly kernelStack: number;
  readonly pageTables: number;
}

/** @throws FormatError, HoleError; a counter that the kernel does not have is 0 */
export function readUsage({ memory, types, kallsyms }: Kernel): MemoryUsage {
  const count = (array: string, of: string, name: string): number => {
    const at = kallsyms.find(array);
    const id = types.btf.find(of, BTF_KIND_ENUM, BTF_KIND_ENUM64);
    const index = id === undefined ? undefined : types.btf.enumerators(id).find((each) => each.name === name)?.value;
    if (at === undefined || index === undefined) return 0;
    // What CPUs have not added yet may make the sum negative.
    return Math.max(0, memory.long(at + index * 8n));
  };
  const zone = (name: string) => count('vm_zone_stat', 'zone_stat_item', name);
  const node = (name: string) => count('vm_node_stat', 'node_stat_item', name);
  const total = kallsyms.find('_totalram_pages');
  return {
    total: total === undefined ? 0 : memory.long(total),
    free: zone('NR_FREE_PAGES'),
    file: node('NR_FILE_PAGES'),
    shmem: node('NR_SHMEM'),
    anon: node('NR_ANON_MAPPED'),
    mapped: node('NR_FILE_MAPPED'),
    slabReclaimable: node('NR_SLAB_RECLAIMABLE_B'),
    slabUnreclaimable: node('NR_SLAB_UNRECLAIMABLE_B'),
    // Counted in KB.
    kernelStack: node('NR_KERNEL_STACK_KB') / 4,
    pageTables: node('NR_PAGETABLE'),
  };
}
